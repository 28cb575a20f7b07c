"""Takes from a JSON value what is usable, and None for all else: the files are others' work."""

import math
from typing import Any


def number(value: Any) -> float | int | None:
    """Returns a finite number as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) else None


def numbers(value: Any) -> dict[str, int | float]:
    """Returns the numbers in an object by key; a lone number stands under `all`."""
    if isinstance(value, dict):
        return {str(k): n for k, v in value.items() if (n := number(v)) is not None}
    return {} if number(value) is None else {"all": value}


def name(value: Any) -> str | None:
    """Returns a name that stands as a string, or under `name` in an object."""
    value = value.get("name") if isinstance(value, dict) else value
    return value if isinstance(value, str) and value else None


def text(value: Any) -> str | None:
    """Returns a value as text."""
    return None if value is None else str(value)


def first(value: Any) -> str | None:
    """Returns the first leaf of nested lists as text."""
    while isinstance(value, list):
        value = value[0] if value else None
    return text(value)
