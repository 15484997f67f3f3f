"""What the chosen action needs of a spec, and what it would have to ignore. Pure, like rules.py."""

from __future__ import annotations

from collections.abc import Iterator

from rtdetr_slurm.actions import AVAILABLE
from rtdetr_slurm.model_check import Problem
from rtdetr_slurm.spec.experiment import ExperimentConfig
from rtdetr_slurm.spec.fields import TRAINING, Section, visit
from rtdetr_slurm.spec.model import AVAILABLE_BACKBONES
from rtdetr_slurm.yaml_source import show

Problems = Iterator[Problem]


def check_action(experiment: ExperimentConfig, action: str) -> Problems:
    """All rules that depend on the action."""
    for rule in RULES:
        yield from rule(experiment, action)


def intervals_fit_epochs(experiment: ExperimentConfig, action: str) -> Problems:
    if action not in TRAINING:
        return
    train = experiment.train
    names = ["validation_interval"]
    if train.checkpoint_interval_unit == "epoch":
        names.append("checkpoint_interval")
    for name in names:
        interval = getattr(train, name)
        if interval > train.num_epochs:
            yield Problem(
                ("train", name),
                f"found {interval}; allowed: ≤ {train.num_epochs}, which is train.num_epochs",
                also=(("train", "num_epochs"),),
            )


def required_is_given(experiment: ExperimentConfig, action: str) -> Problems:
    for ref, value in visit(experiment):
        if action in (ref.extra("x-required-by") or ()) and value in ("", None, []):
            about = str(ref.info.description).split(". ")[0].rstrip(".")
            yield Problem(ref.path, f"missing; action '{action}' needs it: {about}")


def sources_are_whole(experiment: ExperimentConfig, action: str) -> Problems:
    for ref, value in visit(experiment.dataset):
        part = ref.path[-1] in ("image_dir", "json_file")
        empty = not value or (isinstance(value, list) and "" in value)
        if part and empty and action in ref.used_by:
            yield Problem(("dataset", *ref.path), "missing in this data source")


def calibration_is_given(experiment: ExperimentConfig, action: str) -> Problems:
    static = experiment.quantize.mode == "static_ptq"
    if action == "quantize" and static and not experiment.dataset.quant_calibration_data_sources:
        yield Problem(
            ("dataset", "quant_calibration_data_sources"),
            "missing; quantize.mode 'static_ptq' needs images to calibrate on",
            also=(("quantize", "mode"),),
        )


def backbone_is_available(experiment: ExperimentConfig, action: str) -> Problems:
    name = experiment.model.backbone
    if action in AVAILABLE and name not in AVAILABLE_BACKBONES:
        yield Problem(
            ("model", "backbone"),
            f"found '{name}', which is not available in this version; allowed: "
            f"{', '.join(AVAILABLE_BACKBONES)}",
        )


def options_are_honoured(experiment: ExperimentConfig, action: str) -> Problems:
    """A value other than the default needs someone to honour it."""
    if action not in AVAILABLE:
        return
    for ref, value in visit(experiment):
        inside_list = any(isinstance(part, int) for part in ref.path)  # the list itself is compared
        ignored = action in ref.used_by and action not in ref.honoured_by
        if inside_list or isinstance(value, Section) or not ignored:
            continue
        if value != ref.default and value not in (ref.extra("x-also-default") or ()):
            yield Problem(
                ref.path,
                f"found {show(value)}; this option is not available yet in action '{action}'; "
                f"allowed: its default, {show(ref.default)}",
            )


RULES = (
    intervals_fit_epochs,
    required_is_given,
    sources_are_whole,
    calibration_is_given,
    backbone_is_available,
    options_are_honoured,
)
