"""Optuna says what it does by itself on stderr, which is not its to write on here."""

from __future__ import annotations


def silence() -> None:
    """Leave its warnings."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
