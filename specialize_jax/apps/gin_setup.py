"""gin as t5x users know it: flags, search order, required macros named in one error.

Files are looked for in the working folder, then in `--gin_search_paths`, then among the packaged
ones (`specialize_jax/gin_configs`). Later files and then `--gin.NAME=value` win.
"""

import argparse
import logging
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

PACKAGED = pathlib.Path(__file__).resolve().parents[1] / "gin_configs"
_BINDING = re.compile(r"--gin\.([^=]+)=(.*)", re.DOTALL)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that every gin-configured command takes."""
    parser.add_argument(
        "--gin_file",
        action="append",
        default=[],
        metavar="FILE",
        help="gin file; repeatable, later files win",
    )
    parser.add_argument(
        "--gin_search_paths",
        default="",
        metavar="DIR[,DIR]",
        help="folders to look for gin files in, after the working folder",
    )
    # Consumed by split_bindings; named here for --help.
    parser.add_argument("--gin.NAME=VALUE", dest="_", action="store_true", help="bind a macro")


def split_bindings(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separates `--gin.NAME=value` from the other arguments.

    Returns:
      Bindings as `NAME=value`, and the other arguments.
    """
    bindings, rest = [], []
    for arg in argv:
        match = _BINDING.fullmatch(arg)
        if match:
            bindings.append(f"{match[1]} = {match[2]}")
        else:
            rest.append(arg)
    return bindings, rest


def configured(
    args: argparse.Namespace, function: Callable[..., Any], **given: Any
) -> Callable[..., Any]:
    """Parses the gin files of a command and returns its configured function.

    Args:
      args: parsed flags, with `gin_bindings`.
      function: what the command runs; gin files bind its arguments.
      **given: arguments that flags set; they win over gin.

    Raises:
      ValueError: a file is not found, does not parse, names something unknown, or leaves required
        macros open (all are named).
    """
    import gin
    from gin import config

    if not args.gin_file:
        raise ValueError(
            f"expected --gin_file; packaged experiments: {', '.join(packaged('experiments'))}"
        )
    gin.clear_config()
    searched = ["", *filter(None, args.gin_search_paths.split(",")), str(PACKAGED)]
    # The public way to add a path cannot put one before those of an earlier call.
    config._LOCATION_PREFIXES[:] = searched
    try:
        # gin reports as an error every place where a file is not, before it finds the file.
        logging.disable(logging.ERROR)
        with gin.unlock_config():
            gin.parse_config_files_and_bindings(
                args.gin_file, args.gin_bindings, finalize_config=False
            )
    except OSError as error:
        raise ValueError(
            f"{error}; looked in {os.getcwd()}{', '.join(searched)}; packaged experiments: "
            f"{', '.join(packaged('experiments'))}"
        ) from error
    except (AttributeError, ImportError, NameError, SyntaxError, TypeError, KeyError) as error:
        raise ValueError(f"gin: {error}") from error
    finally:
        logging.disable(logging.NOTSET)
    wrapped = gin.get_configurable(function)
    missing = sorted(set(_open_macros(function, skip=given)))
    if missing:
        example = "".join(f' --gin.{name}="..."' for name in missing)
        raise ValueError(f"required macros are not set: {', '.join(missing)}; give{example}")
    return lambda: wrapped(**given)


def operative_config() -> str:
    """Returns the parameters that were used by what was called so far, as a gin file."""
    import gin

    return gin.operative_config_str()


def packaged(folder: str) -> list[str]:
    """Returns the packaged gin files of a folder, as `--gin_file` takes them."""
    return sorted(str(p.relative_to(PACKAGED)) for p in (PACKAGED / folder).rglob("*.gin"))


def _open_macros(function: Callable[..., Any], skip: dict[str, Any]) -> Iterator[str]:
    """Yields macros that stand at %gin.REQUIRED and that calling `function` would need."""
    from gin import config

    selector = config._inverse_lookup(function).selector
    seen: set[str] = set()
    queue: list[Any] = [
        value for name, value in config._CONFIG.get(("", selector), {}).items() if name not in skip
    ]
    while queue:
        value = queue.pop()
        if isinstance(value, dict):
            queue += [*value.keys(), *value.values()]
        elif isinstance(value, (list, tuple)):
            queue += value
        elif isinstance(value, config.ConfigurableReference):
            name, target = value.config_key
            if target == "gin.macro" and name not in seen:
                seen.add(name)
                inner = config._CONFIG.get((name, target), {}).get("value")
                if str(inner) == "%gin.REQUIRED":
                    yield name
                queue.append(inner)
            else:
                queue += config._CONFIG.get(("", target), {}).values()
