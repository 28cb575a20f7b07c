"""The import boundary: which part may use which, and which stay free of heavy libraries.

Parts are the modules and folders right under `specialize_jax/`; rows of parts build on the rows
before them.
"""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

_PACKAGE = pathlib.Path(__file__).resolve().parents[1] / "specialize_jax"

_GROUND = {"schemas", "answers", "intervals", "tokenizers"}

# Which other parts a part may import. A new arrow is a decision, made here and seen in review.
_MAY_IMPORT = {
    # the ground: contracts, answers, intervals, tokenizers
    "schemas": set(),
    "answers": set(),
    "intervals": set(),
    "tokenizers": {"schemas"},
    # what builds on the ground only
    "alignment": {"schemas"},
    "losses": {"schemas"},
    "models": _GROUND,
    "decoding": _GROUND,
    "teacher": _GROUND,
    # what joins those
    "training": _GROUND | {"losses"},
    "data": _GROUND | {"alignment", "teacher"},
    "evaluation": _GROUND,
    "socratic": _GROUND | {"decoding"},
    "convert": _GROUND | {"models"},
    "report": _GROUND | {"decoding"},
    "t5x_adapter": _GROUND | {"losses", "data"},
    # the wiring; tasks are named by gin files, never imported by the library
    "apps": _GROUND
    | {"alignment", "losses", "models", "decoding", "teacher"}
    | {"training", "data", "evaluation", "socratic", "convert", "report"},
    # tasks use the library from outside
    "tasks": _GROUND | {"alignment", "decoding", "teacher", "data", "evaluation"},
}

# Libraries that live in some parts only.
_HOMES = {
    "seqio": {"data", "tasks", "apps", "t5x_adapter"},
    "tensorflow": {"data", "tasks", "apps", "t5x_adapter"},
    "tensorflow_datasets": {"data", "tasks", "apps", "t5x_adapter"},
    "tensorflow_text": {"data", "tasks", "apps", "t5x_adapter"},
    "apache_beam": {"data"},
    "clu": {"apps", "t5x_adapter"},
    "gin": {"tasks", "apps", "t5x_adapter"},
    "t5x": {"t5x_adapter"},
    "torch": set(),
}

# Small parts: all that they may import besides specialize_jax and the standard library.
_ONLY = {
    "alignment": {"jax", "numpy"},
    "answers": set(),
    "evaluation": {"etils", "numpy"},
    "intervals": {"numpy"},
    "losses": {"jax", "numpy"},
    "schemas": {"etils", "numpy", "pyarrow"},
}

# Parts that a fresh interpreter must be able to import without the heavy libraries named.
_TENSORFLOW_SIDE = ("tensorflow", "torch", "seqio", "gin")
_STAYS_FREE_OF = {
    "training": _TENSORFLOW_SIDE,
    "decoding": _TENSORFLOW_SIDE,
    "alignment": _TENSORFLOW_SIDE,
    "models": _TENSORFLOW_SIDE,
    "convert": _TENSORFLOW_SIDE,
    "losses": _TENSORFLOW_SIDE,
    "data.packed": _TENSORFLOW_SIDE,
    "evaluation": (*_TENSORFLOW_SIDE, "jax"),
    "schemas": (*_TENSORFLOW_SIDE, "jax"),
    "answers": (*_TENSORFLOW_SIDE, "jax"),
    "intervals": (*_TENSORFLOW_SIDE, "jax"),
    "teacher": (*_TENSORFLOW_SIDE, "jax"),
    "tokenizers": (*_TENSORFLOW_SIDE, "jax", "sentencepiece", "tiktoken", "tokenizers"),
}


def _exists(part: str) -> bool:
    path = _PACKAGE.joinpath(*part.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def _parts() -> list[str]:
    modules = {path.stem for path in _PACKAGE.glob("*.py")} - {"__init__"}
    folders = {path.parent.name for path in _PACKAGE.glob("*/__init__.py")}
    return sorted(modules | folders)


def _files(part: str) -> list[tuple[pathlib.Path, str]]:
    """Returns the files of a part, each with the dotted name of the package that it lies in."""
    module = _PACKAGE / f"{part}.py"
    if module.is_file():
        return [(module, "specialize_jax")]
    folder = (_PACKAGE / part).resolve()  # rglob does not enter a symlink
    return [
        (path, ".".join(["specialize_jax", part, *path.relative_to(folder).parts[:-1]]))
        for path in sorted(folder.rglob("*.py"))
    ]


def _imported_modules(source: str, *, package: str) -> set[str]:
    """Returns the dotted names that a file imports, at its top or inside a function.

    Args:
      source: The text of the file.
      package: Dotted name of the package that the file lies in, which relative imports start from.
    """
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            start = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            # The name may be a module or something in one; only the leading parts matter here.
            names.update(f"{start}.{alias.name}" for alias in node.names)
    return names


def _imports(part: str) -> set[str]:
    names: set[str] = set()
    for path, package in _files(part):
        names |= _imported_modules(path.read_text(encoding="utf-8"), package=package)
    return names


def _imported_parts(part: str) -> set[str]:
    ours = {name.split(".")[1] for name in _imports(part) if name.startswith("specialize_jax.")}
    return ours - {part, "__version__"}


def _imported_libraries(part: str) -> set[str]:
    return {name.split(".")[0] for name in _imports(part)} - {"specialize_jax"}


@pytest.mark.parametrize("part", _parts())
def test_part_imports_only_what_it_may(part: str) -> None:
    assert part in _MAY_IMPORT, f"say in {__file__} what the new part {part!r} may import"
    assert _imported_parts(part) <= _MAY_IMPORT[part]


@pytest.mark.parametrize("part", _parts())
def test_libraries_stay_in_their_homes(part: str) -> None:
    astray = {name for name in _imported_libraries(part) if part not in _HOMES.get(name, {part})}
    assert not astray


@pytest.mark.parametrize("part", [part for part in _ONLY if _exists(part)])
def test_small_parts_import_few_libraries(part: str) -> None:
    assert _imported_libraries(part) - sys.stdlib_module_names <= _ONLY[part]


def test_arrows_never_turn_back() -> None:
    done: set[str] = set()
    waiting = dict(_MAY_IMPORT)
    while ready := {part for part, below in waiting.items() if below <= done}:
        done |= ready
        waiting = {part: below for part, below in waiting.items() if part not in ready}
    assert not waiting, f"these parts import each other in a circle: {sorted(waiting)}"


@pytest.mark.parametrize("module", [name for name in _STAYS_FREE_OF if _exists(name)])
def test_import_stays_free_of_heavy_libraries(module: str) -> None:
    heavy = _STAYS_FREE_OF[module]
    code = (
        f"import sys, specialize_jax.{module}; print(*(n for n in {heavy!r} if n in sys.modules))"
    )
    # From the folder that holds the package: gin/ lies there too and must not pass for gin-config.
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=_PACKAGE.parent,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == []


def test_package_itself_imports_nothing() -> None:
    text = (_PACKAGE / "__init__.py").read_text(encoding="utf-8")
    assert not _imported_modules(text, package="specialize_jax")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import seqio.utils", "seqio.utils"),
        ("def f():\n  from specialize_jax import losses", "specialize_jax.losses"),
        ("from . import t5", "specialize_jax.models.t5"),
        ("from ..losses import chunked", "specialize_jax.losses.chunked"),
    ],
)
def test_import_reader_sees_every_form(source: str, name: str) -> None:
    assert _imported_modules(source, package="specialize_jax.models") == {name}
