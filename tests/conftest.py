"""Silent broadcasts are errors (warnings are, in pyproject), and nothing is compiled twice.

Many tests start programs that compile what another has compiled: they share JAX's cache on disk.
Their programs are small, and compiling them is most of the time, so XLA's CPU backend does not
optimise them.
"""

import os
import shutil
import tempfile

from tests import simulated_devices

_CACHE = "JAX_COMPILATION_CACHE_DIR"
# Workers and the processes that tests start inherit both; the one that made the folder removes it.
_MADE = None if os.environ.get(_CACHE) else tempfile.mkdtemp(prefix="specialize_jax_tests_")
if _MADE:
    os.environ[_CACHE] = _MADE
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"

os.environ.setdefault("XLA_FLAGS", simulated_devices.UNOPTIMISED)

import jax  # noqa: E402  (reads all at import)

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_unconfigure() -> None:
    """Removes the folder of compiled programs."""
    if _MADE:
        shutil.rmtree(_MADE, ignore_errors=True)
