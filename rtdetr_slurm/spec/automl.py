"""`automl`: hyper-parameter search. Ours, not TAO's; no version runs it yet."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, WithJsonSchema

from rtdetr_slurm.spec.fields import Section, field


def _word(value: Any) -> Any:
    # YAML 1.1 reads the words on and off as booleans.
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


Policy = Annotated[
    Literal["on", "off"] | None,
    BeforeValidator(_word),
    WithJsonSchema({"enum": ["on", "off", True, False, None]}),
]


class AutoMLConfig(Section):
    """Hyper-parameter search around train."""

    policy: Policy = field(
        None,
        description="Whether train searches for hyper-parameters (on) or trains once (off). Null "
        "trains once in this version, and on is not available yet.",
    )
    trials: int = field(20, ge=1, description="Trainings to spend on the search.")
    parallel: int = field(4, ge=1, description="Trainings at the same time.")
    algorithm: Literal[
        "bayesian", "random", "grid", "qmc", "hyperband", "asha", "bohb", "hyperband_es", "pbt",
        "dehb",
    ] = field("bayesian", description="Search algorithm.")  # fmt: skip
    metric: Literal["val_mAP", "val_mAP50", "val_loss", "train_loss"] = field(
        "val_mAP", description="Metric that decides."
    )
    direction: Literal["maximize", "minimize"] | None = field(
        None, description="Whether a higher or a lower metric is better; null goes by the metric."
    )
    parameters: list[str] = field(
        [],
        description="Dotted fields to search; empty means those that the schema marks with "
        "automl_default_parameters.",
    )
    ranges: dict[str, Any] = field(
        {}, description="Dotted field to the range or the list of values to search."
    )
