"""The console script `specialize-jax`: one small module per subcommand (flags, gin, wiring)."""
