"""specialize_jax: turn a large teacher's worked solutions into a small specialist.

Nothing heavy is imported here; import the room you need, for example
`from specialize_jax import alignment`.
"""

__version__ = "0.1.0"
