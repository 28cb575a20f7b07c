"""gin as t5x users know it: flags, search order, required macros named in one error.

Files are looked for in the working folder, then in `--gin_search_paths`, then among the packaged
ones (`specialize_jax/gin_configs`). Later files and then `--gin.NAME=value` win.
"""

import argparse
import collections.abc
import difflib
import importlib
import logging
import os
import pathlib
import re
import tokenize
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

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


def flags(args: argparse.Namespace) -> list[str]:
    """Returns the gin flags that a command was given, for another command to be given them."""
    paths = [f"--gin_search_paths={args.gin_search_paths}"] if args.gin_search_paths else []
    bindings = [f"--gin.{binding.replace(' = ', '=', 1)}" for binding in args.gin_bindings]
    return [*(f"--gin_file={name}" for name in args.gin_file), *paths, *bindings]


def configured(
    args: argparse.Namespace, function: Callable[..., Any], **given: Any
) -> Callable[..., Any]:
    """Parses the gin files of a command and returns its configured function.

    Args:
      args: parsed flags, with `gin_bindings`.
      function: what the command runs; gin files bind its arguments.
      **given: arguments that flags set; they win over gin. The function takes more of them.

    Raises:
      ValueError: a file is not found, does not parse, names something unknown, leaves required
        macros open or binds values of a wrong type (all are named); or a binding of the command
        line sets a macro that no file knows.
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
            gin.parse_config_files_and_bindings(args.gin_file, None, finalize_config=False)
            # Before the bindings are parsed: they would define the macro that they misspell.
            _check_macros(args.gin_bindings)
            for binding in args.gin_bindings:
                _parse_binding(binding)
    except OSError as error:
        raise ValueError(
            f"{error}; looked in {os.getcwd()}{', '.join(searched)}; packaged experiments: "
            f"{', '.join(packaged('experiments'))}"
        ) from error
    except (
        AttributeError,
        ImportError,
        NameError,
        SyntaxError,
        TypeError,
        KeyError,
        tokenize.TokenError,
    ) as error:
        raise ValueError(f"gin: {error}") from error
    finally:
        logging.disable(logging.NOTSET)
    wrapped = gin.get_configurable(function)
    missing = sorted(set(_open_macros(function, skip=given)))
    if missing:
        example = "".join(f' --gin.{name}="..."' for name in missing)
        raise ValueError(f"required macros are not set: {', '.join(missing)}; give{example}")
    if wrong := list(dict.fromkeys(_wrong_types(function, skip=given))):
        raise ValueError(f"wrong types: {'; '.join(wrong)}")
    return lambda **more: wrapped(**given, **more)


def macro(name: str) -> Any:
    """Returns the value of a macro of the parsed files; None where they do not set it."""
    from gin import config

    bound = config._CONFIG.get((name, "gin.macro"), {})
    value = _resolve(bound.get("value"), [])
    # %gin.REQUIRED, or something that is only made when a run asks for it
    return None if isinstance(value, config.ConfigurableReference) else value


def import_module(name: str, module: str | None) -> None:
    """Imports a module of the user's that registers what gin files name; None for none.

    Args:
      name: of the macro that names it.
      module: as `my_domain`.

    Raises:
      ValueError: it cannot be imported.
    """
    if module is None:
        return
    try:
        importlib.import_module(module)
    except Exception as error:  # whatever somebody's module raises
        raise ValueError(
            f"cannot import {name} '{module}': {type(error).__name__}: {error}"
        ) from error


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

    for bound in _reachable(function, skip):
        for reference in bound.references:
            value = config._CONFIG.get(reference.config_key, {}).get("value")
            if str(value) == "%gin.REQUIRED":
                yield reference.config_key[0]


def _parse_binding(binding: str) -> None:
    """Parses `NAME = value` of the command line."""
    import gin

    try:
        gin.parse_config(binding)
    except (SyntaxError, tokenize.TokenError) as error:
        # The shell takes one pair of quotes away, so this is nearly always what happened.
        raise ValueError(
            f"gin: --gin.{binding.replace(' = ', '=', 1)}: {' '.join(str(error).split())}; "
            "strings need quotes inside, as --gin.NAME=\"'value'\""
        ) from error


def _check_macros(bindings: Iterable[str]) -> None:
    """Raises ValueError if a binding sets a macro that the parsed files do not know."""
    from gin import config

    known = {scope for scope, target in config._CONFIG if target == "gin.macro"}
    # A file may use a macro and leave its definition to the command line.
    references: list[Any] = []
    for arguments in config._CONFIG.values():
        _resolve(arguments, references)
    known |= {ref.config_key[0] for ref in references if ref.config_key[1] == "gin.macro"}
    unknown = []
    for binding in bindings:
        name = binding.split("=", 1)[0].strip()
        if "." not in name and name not in known:
            close = difflib.get_close_matches(name, known)
            unknown.append(name + (f" (did you mean {', '.join(close)}?)" if close else ""))
    if unknown:
        raise ValueError(f"no gin file has these macros: {', '.join(unknown)}")


def _wrong_types(function: Callable[..., Any], skip: dict[str, Any]) -> Iterator[str]:
    """Describes each bound argument that does not fit its annotation."""
    from gin import config

    for bound in _reachable(function, skip):
        hints = _hints(config._REGISTRY[bound.selector].wrapped)
        if bound.name in hints and not _fits(bound.resolved, hints[bound.name]):
            label = ".".join([*bound.selector.split(".")[-2:], bound.name])
            if isinstance(bound.value, config.ConfigurableReference):
                label = bound.value.config_key[0]
            yield (
                f"{label}: expected {_spelled(hints[bound.name])}, "
                f"got {bound.resolved!r} ({type(bound.resolved).__name__})"
            )


class _Bound(NamedTuple):
    """A bound argument: of which configurable, as written, with macros replaced, and references."""

    selector: str
    name: str
    value: Any
    resolved: Any
    references: list[Any]


def _reachable(function: Callable[..., Any], skip: dict[str, Any]) -> Iterator[_Bound]:
    """Yields the bound arguments of `function`, and of the configurables that they refer to."""
    from gin import config

    first = ("", config._inverse_lookup(function).selector)
    queue = [first]
    seen = {first}
    while queue:
        key = queue.pop(0)
        selector = key[1]
        arguments = config._CONFIG.get(("", selector), {}) | config._CONFIG.get(key, {})
        for name, value in arguments.items():
            if key == first and name in skip:
                continue
            references: list[Any] = []
            resolved = _resolve(value, references)
            yield _Bound(selector, name, value, resolved, references)
            for reference in references:
                target = reference.config_key
                if target[1] not in ("gin.macro", "gin.constant") and target not in seen:
                    seen.add(target)
                    queue.append(target)


def _resolve(value: Any, references: list[Any], within: tuple[str, ...] = ()) -> Any:
    """Returns `value` with macros replaced; appends all references in it to `references`."""
    from gin import config

    if isinstance(value, dict):
        return {
            _resolve(k, references, within): _resolve(v, references, within)
            for k, v in value.items()
        }
    if isinstance(value, (list, tuple)):
        return type(value)([_resolve(item, references, within) for item in value])
    if not isinstance(value, config.ConfigurableReference):
        return value
    references.append(value)
    name, target = value.config_key
    bound = config._CONFIG.get((name, target), {})
    # A macro that is not defined, or by itself, is an error of gin's when it is used.
    if target != "gin.macro" or "value" not in bound or name in within:
        return value
    return _resolve(bound["value"], references, (*within, name))


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Returns the annotations of arguments, without those that do not resolve."""
    target = vars(function).get("__init__") if isinstance(function, type) else function
    names = getattr(target, "__globals__", {})
    hints: dict[str, Any] = {}
    for name, annotation in getattr(target, "__annotations__", {}).items():
        # One at a time: a name under TYPE_CHECKING must not hide the others.
        single = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            hints |= typing.get_type_hints(single, globalns=names)
        except (NameError, AttributeError, TypeError, SyntaxError):
            continue
    return hints


def _fits(value: Any, hint: Any) -> bool:
    """Returns whether a value fits an annotation; True for annotations that are not simple."""
    from gin import config

    if isinstance(value, config.ConfigurableReference):
        return True
    origin, args = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, arg) for arg in args)
    if origin is typing.Literal:
        return any(type(value) is type(arg) and value == arg for arg in args)
    if origin in (None, type(None)):
        return value is None
    if origin in (int, float):
        # To Python, a bool is an int.
        accepted = int if origin is int else (int, float)
        return isinstance(value, accepted) and not isinstance(value, bool)
    if origin in (bool, str):
        return isinstance(value, origin)
    if origin is collections.abc.Sequence:
        # To Python, a str is a sequence of str; here it is a forgotten comma.
        return isinstance(value, (list, tuple)) and all(_fits(v, a) for v in value for a in args)
    if origin is collections.abc.Mapping:
        return isinstance(value, dict) and all(
            _fits(part, arg)
            for item in value.items()
            for part, arg in zip(item, args, strict=False)
        )
    return True


def _spelled(hint: Any) -> str:
    """Returns an annotation as its source has it."""
    if isinstance(hint, type) and not typing.get_args(hint):
        return hint.__name__
    return str(hint).replace("collections.abc.", "").replace("typing.", "")
