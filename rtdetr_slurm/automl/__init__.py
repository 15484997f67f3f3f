"""A hyper-parameter search: what is tried, by which algorithm, and what came of it."""
