"""Strictness for the whole suite: silent broadcasts are errors (warnings are, in pyproject)."""

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
