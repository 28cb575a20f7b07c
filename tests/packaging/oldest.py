"""Prints the dependencies of specialize_jax at their lower bounds, as a pip constraints file.

`make test-oldest` installs what this prints. Tools that carry no bound stay at their newest.
"""

import importlib.metadata

from packaging.requirements import Requirement


def lower_bounds(requirements: list[str]) -> dict[str, str]:
    """Reads the lower bound of each requirement that has one.

    Args:
      requirements: PEP 508 strings, as in `Requires-Dist` metadata; extras and markers are ignored.

    Returns:
      Version by package name.

    Raises:
      ValueError: If two requirements give one package different bounds.
    """
    bounds: dict[str, str] = {}
    for requirement in map(Requirement, requirements):
        for specifier in requirement.specifier:
            if specifier.operator != ">=":
                continue
            version = bounds.setdefault(requirement.name, specifier.version)
            if version != specifier.version:
                raise ValueError(
                    f"{requirement.name} has two lower bounds, {version} and {specifier.version}"
                )
    return bounds


def main() -> None:
    """Prints one `name==version` a line."""
    requirements = importlib.metadata.requires("specialize_jax") or []
    for name, version in lower_bounds(requirements).items():
        print(f"{name}=={version}")


if __name__ == "__main__":
    main()
