"""What a bad row or line of somebody's file does: ends the work, or is left out and listed."""

from specialize_jax.schemas.targets import SchemaError

ON_ERROR = ("fail", "skip")


class Faults:
    """What was wrong with rows that were left out.

    Attributes:
      found: the errors, in the order in which they came.

    Args:
      on_error: "fail", or "skip", which leaves a bad row out and lists it.

    Raises:
      ValueError: another `on_error`.
    """

    def __init__(self, on_error: str = "fail"):
        check_on_error(on_error)
        self._skip = on_error == "skip"
        self.found: list[str] = []

    def add(self, error: SchemaError) -> None:
        """Lists what is wrong with a row.

        Raises:
          SchemaError: `error`, unless bad rows are skipped.
        """
        if not self._skip:
            raise error
        self.found.append(str(error))


def check_on_error(value: str) -> None:
    """Raises ValueError for a value of `--on_error` that does not exist."""
    if value not in ON_ERROR:
        raise ValueError(f"--on_error: expected one of {', '.join(ON_ERROR)}, got {value!r}")
