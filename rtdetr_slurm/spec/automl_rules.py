"""What must hold within `automl`, whatever is trained; pure, as rules.py."""

from __future__ import annotations

from collections.abc import Iterable

from rtdetr_slurm.contract import COSTS
from rtdetr_slurm.errors import near
from rtdetr_slurm.model_check import NEAR, Problem
from rtdetr_slurm.spec.automl import MULTI_FIDELITY, AutoMLConfig, range_of
from rtdetr_slurm.spec.experiment import ExperimentConfig
from rtdetr_slurm.spec.fields import walk
from rtdetr_slurm.spec.rules import Problems, no_repeats
from rtdetr_slurm.yaml_source import KeyPath, dotted, show


def check_automl(automl: AutoMLConfig) -> Problems:
    """All of these rules."""
    yield from _searched_fields_exist(automl)
    yield from _ranges_are_ranges(automl)
    yield from _objectives_fit(automl)


def _searched_fields_exist(automl: AutoMLConfig) -> Problems:
    fields = [dotted(ref.path) for ref in walk(ExperimentConfig) if ref.nested is None]
    wanted: Iterable[tuple[KeyPath, str]] = [
        *((("automl", "parameters", i), name) for i, name in enumerate(automl.parameters)),
        *((("automl", "ranges", name), name) for name in automl.ranges),
    ]
    for path, name in wanted:
        if name not in fields:
            hint = near(name, fields, NEAR)
            yield Problem(path, f"found {show(name)}; allowed: the dotted path of a field{hint}")


def _ranges_are_ranges(automl: AutoMLConfig) -> Problems:
    for name, value in automl.ranges.items():
        try:
            range_of(value)
        except ValueError as error:
            yield Problem(("automl", "ranges", name), f"found {show(value)}; allowed: {error}")


def _objectives_fit(automl: AutoMLConfig) -> Problems:
    at, objectives = ("automl", "objectives"), automl.objectives
    yield from no_repeats(at, [one.metric for one in objectives])
    given = automl.model_fields_set
    if objectives and "metric" in given and automl.metric != objectives[0].metric:
        yield Problem(
            ("automl", "metric"),
            f"found '{automl.metric}'; allowed with automl.objectives: the first of them, "
            f"'{objectives[0].metric}', or nothing",
            also=(at,),
        )
    if objectives and objectives[0].metric in COSTS:
        yield Problem(
            (*at, 0),
            f"found '{objectives[0].metric}' first; allowed: a metric of the detections, for the "
            "first one decides between trials, and a small detector that finds nothing would win",
        )
    if len(objectives) > 1 and automl.algorithm in MULTI_FIDELITY:
        yield Problem(
            ("automl", "algorithm"),
            f"found '{automl.algorithm}', which goes by one metric; allowed with several "
            "objectives: bayesian, random, grid, qmc",
            also=(at,),
        )
