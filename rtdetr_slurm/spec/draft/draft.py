"""A spec for a data set from what is known of it: the choices in their order, and their text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rtdetr_slurm.spec.draft import network, training
from rtdetr_slurm.spec.draft.choices import Choices
from rtdetr_slurm.spec.draft.facts import DataFacts, Hardware

RULES: tuple[Callable[[Choices, DataFacts, Hardware], None], ...] = (
    network.sources,
    network.classes,
    network.backbone,
    network.size,
    network.queries,
    training.batch,
    training.epochs,
    training.rates,
)
"""Later ones look at what earlier ones have chosen."""


def choose_fields(facts: DataFacts, given: Mapping[str, Any], hardware: Hardware) -> Choices:
    """The fields of a spec for training on a data set.

    Args:
        given: fields that the user has set, nested; the choices follow from them, too.
    """
    choices = Choices(given)
    for rule in RULES:
        rule(choices, facts, hardware)
    return choices


def draft_text(choices: Choices, facts: DataFacts) -> str:
    """The spec as YAML, with the reason for each field above it."""
    return choices.text(
        f"Spec for training on {facts.folder}, by `rtdetr-slurm init`. Above each field is why it "
        "is what it is; what is left out has its default, which `rtdetr-slurm default-specs train` "
        "explains."
    )
