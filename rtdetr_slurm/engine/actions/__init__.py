"""What ranks do: one module per action."""
