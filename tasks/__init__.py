"""Tasks and mixtures, one module per data set; `import specialize_jax.tasks.NAME` registers."""
