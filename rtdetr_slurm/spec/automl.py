"""`automl`: the search for hyper-parameters around train. Ours, not TAO's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, WithJsonSchema, model_validator

from rtdetr_slurm.contract import HIGHER_IS_BETTER, Algorithm, Direction, Kpi, Retention
from rtdetr_slurm.spec.fields import Section, field

MULTI_FIDELITY = ("hyperband", "asha", "bohb", "hyperband_es", "pbt", "dehb")
"""Algorithms that end trainings early, or take them up again."""
_OF_LANGUAGE_MODELS = ("llm", "hybrid", "autoresearch")
"""TAO's algorithms that ask one."""
OFF_IN_WORDS = ("turn off AutoML", "disable AutoML", "no HPO", "plain training")
"""What else means off, in whatever case."""

Metric = Literal["val_mAP", "val_mAP50", "val_loss", "train_loss"]
Measure = Literal["val_mAP", "val_mAP50", "val_loss", "train_loss", "parameters", "latency_ms"]

_TAO_METRICS = {"mAP": Kpi.VAL_MAP, "mAP50": Kpi.VAL_MAP50}


def _policy(value: Any) -> Any:
    """`on` or `off` where it is one of the words for it; anything else as it is."""
    if isinstance(value, bool):  # YAML 1.1 reads the words on and off as booleans
        return "on" if value else "off"
    if not isinstance(value, str):
        return value
    word = " ".join(value.lower().split())
    if word in map(str.lower, OFF_IN_WORDS):
        return "off"
    return word if word in ("on", "off") else value


def _algorithm(value: Any) -> Any:
    if value in _OF_LANGUAGE_MODELS:
        raise ValueError(
            "an algorithm that goes by what was measured, such as bayesian; TAO's "
            f"{', '.join(_OF_LANGUAGE_MODELS)} ask a language model, and nothing is sent from here"
        )
    return "bayesian" if value == "bfbo" else value


def _metric(value: Any) -> Any:
    return _TAO_METRICS.get(value, value) if isinstance(value, str) else value


def _moment(value: Any) -> Any:
    """A date and time as ISO 8601 with its offset; one without is this machine's."""
    if value is None:
        return None
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError("a date and time such as 2027-01-31T08:00") from None
    return (moment if moment.tzinfo else moment.astimezone()).isoformat()


RANGE_KEYS = {
    "min": "low", "max": "high", "log": "log", "step": "step", "values": "values",
    "weights": "weights", "valid_min": "low", "valid_max": "high", "valid_options": "values",
    "option_weights": "weights",
}  # fmt: skip
"""What a range says, by TAO's words and ours."""


Policy = Annotated[
    Literal["on", "off"] | None,
    BeforeValidator(_policy),
    WithJsonSchema({"enum": ["on", "off", *OFF_IN_WORDS, True, False, None]}),
]
_METRIC_WORDS = WithJsonSchema({"enum": [*Metric.__args__, *_TAO_METRICS]})  # type: ignore[attr-defined]
MetricName = Annotated[Metric, BeforeValidator(_metric), _METRIC_WORDS]


class ObjectiveConfig(Section):
    """One of the things that a search is after."""

    metric: Annotated[Measure, BeforeValidator(_metric)] = field(
        ..., description="What is measured."
    )
    direction: Direction | None = field(
        None, description="Whether more or less of it is better; null goes by the metric."
    )

    @model_validator(mode="before")
    @classmethod
    def _is_named(cls, data: Any) -> Any:
        """The name of a metric alone is a whole entry."""
        return {"metric": data} if isinstance(data, str) else data


class AutoMLConfig(Section):
    """Hyper-parameter search around train."""

    policy: Policy = field(
        None,
        description="Whether train searches for hyper-parameters (on) or trains once (off). Null: "
        "it searches on a cluster where there are val_data_sources, and trains once elsewhere. "
        "distill searches only where this says on.",
    )
    trials: int = field(20, ge=1, le=10_000, description="Trainings to spend on the search.")
    parallel: int = field(
        4, ge=1, le=10_000, description="Workers, each a job that trains one trial after the other."
    )
    max_concurrent: int | None = field(
        None, ge=1, description="Workers that run at the same time; null: all."
    )
    algorithm: Annotated[Algorithm, BeforeValidator(_algorithm)] = field(
        "bayesian",
        description="How trials are chosen, and which go on. TAO's bfbo is bayesian here.",
    )
    metric: MetricName = field(
        Kpi.VAL_MAP,
        description="Metric that decides; a trial is worth what its best epoch is. mAP and mAP50 "
        "mean val_mAP and val_mAP50.",
    )
    direction: Direction | None = field(
        None, description="Whether a higher or a lower metric is better; null goes by the metric."
    )
    objectives: list[ObjectiveConfig] = field(
        [],
        description="Several metrics in place of one, for a Pareto front: names, or sections with "
        "metric and direction. The first decides where one trial must be chosen. parameters and "
        "latency_ms are those of the trained detector.",
    )
    parameters: list[str] = field(
        [],
        description="Dotted fields to search; empty means those that the schema marks with "
        "automl_default_parameters and that have an effect.",
    )
    ranges: dict[str, Any] = field(
        {},
        description="Dotted field to what it may be, in place of its own range: {min, max, log, "
        "step}, or a list of values, or {values, weights}. A field that is named here is searched.",
    )
    override_disabled: bool = field(
        False,
        description="Let parameters and ranges name fields that the schema marks with "
        "automl_disabled_parameters.",
    )
    seed: int = field(1234, ge=0, description="Seed of whatever is drawn.")
    max_gpu_hours: float | None = field(
        None,
        math_cond="> 0",
        description="GPU hours after which no further trial begins; null: no limit.",
    )
    deadline: Annotated[
        str | None, BeforeValidator(_moment), WithJsonSchema({"type": ["string", "null"]})
    ] = field(
        None,
        description="Date and time (ISO 8601) after which no further trial begins; null: none.",
    )
    reduction_factor: int = field(
        3, ge=2, description="Of hyperband, asha, bohb and dehb: one trial in so many goes on."
    )
    min_epochs: int | None = field(
        None,
        ge=1,
        description="Epochs that each trial gets before one of them is ended early; null: a sixth "
        "of train.num_epochs, or train.validation_interval if that is more.",
    )
    population: int = field(8, ge=2, description="Of pbt and dehb: trainings that are kept going.")
    interval: int = field(5, ge=1, description="Of pbt: epochs of a generation.")
    retention: Retention = field(
        "best",
        description="Whose checkpoints are left in the end: the best trial's, those of the "
        "`keep` best (topk), or all.",
    )
    keep: int = field(5, ge=1, description="Of retention topk: of how many trials.")
    warm_start: list[str] = field(
        [], description="Earlier runs, by id or folder, whose trials are known from the start."
    )

    @property
    def directions(self) -> Mapping[str, Direction]:
        """What the search is after, each metric with its direction; the first decides."""
        if not self.objectives:
            return {self.metric: self.direction or better(self.metric)}
        return {one.metric: one.direction or better(one.metric) for one in self.objectives}


def better(metric: str) -> Direction:
    """Whether more or less of a metric is better, where nobody says."""
    return "maximize" if metric in HIGHER_IS_BETTER else "minimize"


@dataclass(frozen=True)
class Range:
    """What `automl.ranges` says of a field.

    Attributes:
        log: None: as the field's own range has it.
    """

    low: float | None = None
    high: float | None = None
    log: bool | None = None
    step: int | None = None
    values: tuple[Any, ...] = ()
    weights: tuple[float, ...] = ()


def range_of(value: Any) -> Range:
    """What one entry of `automl.ranges` says.

    Raises:
        ValueError: what is allowed instead.
    """
    if isinstance(value, list):
        if len(value) == 2 and all(map(_is_number, value)) and value[0] < value[1]:
            low, high = value
            raise ValueError(
                f"{{min: {low}, max: {high}}} for all that lies between, or {{values: [{low}, "
                f"{high}]}} for these two alone"
            )
        value = {"values": value}
    if not isinstance(value, dict) or not value or set(value) - set(RANGE_KEYS):
        raise ValueError("{min, max, log, step}, a list of values, or {values, weights}")
    given: dict[str, Any] = {}
    for key, each in value.items():
        if RANGE_KEYS[key] in given:
            raise ValueError(f"each of its parts once, and '{key}' is there twice")
        given[RANGE_KEYS[key]] = tuple(each) if isinstance(each, list) else each
    found = Range(**given)
    _check_values(found) if found.values or found.weights else _check_bounds(found)
    return found


def _check_values(found: Range) -> None:
    if not isinstance(found.values, tuple) or (found.values and len(found.values) < 2):
        raise ValueError("two values or more")
    if any(each in found.values[:index] for index, each in enumerate(found.values)):
        raise ValueError("each value once")
    if found.low is not None or found.high is not None or found.log or found.step:
        raise ValueError("a range or values, not both")
    weights = found.weights
    if weights and not (
        isinstance(weights, tuple)
        and len(weights) == (len(found.values) or len(weights))
        and all(_is_number(one) and one >= 0 for one in weights)
        and sum(weights) > 0
    ):
        raise ValueError("weights that are no less than 0, one for each value")


def _check_bounds(found: Range) -> None:
    for bound in (found.low, found.high):
        if bound is not None and not _is_number(bound):
            raise ValueError("numbers as min and max")
    if found.log is not None and not isinstance(found.log, bool):
        raise ValueError("true or false as log")
    if found.step is not None and (type(found.step) is not int or found.step < 1):
        raise ValueError("a step that is an integer from 1 on")
    if found.low is not None and found.high is not None and found.low >= found.high:
        raise ValueError("a min that is less than max")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def named_fields(automl: AutoMLConfig) -> Sequence[str]:
    """The fields that the spec itself wants searched."""
    return [*dict.fromkeys([*automl.parameters, *automl.ranges])]
