"""`jax.jit` for tests whose cost is compile time: the compiler is told not to optimise."""

import functools

import jax

quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
