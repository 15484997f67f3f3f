"""What must hold between `engine` and other fields; pure, as rules.py."""

from __future__ import annotations

from collections.abc import Iterator

from rtdetr_slurm.model_check import Problem
from rtdetr_slurm.spec.experiment import ExperimentConfig
from rtdetr_slurm.spec.fields import TRAIN, TRAINING, Section
from rtdetr_slurm.yaml_source import KeyPath, show

Problems = Iterator[Problem]

_RECIPE: tuple[KeyPath, ...] = (("engine", "recipe"),)


def recipe_decides(experiment: ExperimentConfig) -> Problems:
    """What DEIM's recipe needs, and what it puts in the place of fields that are then to be left
    alone."""
    if experiment.engine.recipe != "deim":
        return
    yield from _deim_needs(experiment)
    model, optim = experiment.model, experiment.train.optim
    scheduler = ("lr_scheduler", "lr_steps", "lr_step_size", "lr_decay")
    yield from _left_alone(model, ("model",), ("alpha", "gamma"))
    yield from _left_alone(optim, ("train", "optim"), scheduler)


def _deim_needs(experiment: ExperimentConfig) -> Problems:
    losses = experiment.model.loss_types
    if "vfl" not in losses:
        yield Problem(
            ("model", "loss_types"),
            f"found {show(losses)}; allowed with engine.recipe 'deim': with vfl, which its "
            "matchability-aware loss takes the place of",
            also=_RECIPE,
        )
    if experiment.dataset.batch_size < 2:
        yield Problem(
            ("dataset", "batch_size"),
            "found 1; allowed with engine.recipe 'deim': ≥ 2, as it mixes the images of a batch",
            also=_RECIPE,
        )
    if experiment.engine.batch == "auto":
        yield Problem(
            ("engine", "batch"),
            "found 'auto'; allowed with engine.recipe 'deim': 'fixed', as it mixes the images of a "
            "batch, and a part may have one alone",
            also=_RECIPE,
        )


def _left_alone(section: Section, at: KeyPath, names: tuple[str, ...]) -> Problems:
    for name in names:
        value = getattr(section, name)
        default = type(section).model_fields[name].get_default(call_default_factory=True)
        if value != default:
            yield Problem(
                (*at, name),
                f"found {show(value)}; allowed with engine.recipe 'deim', which has a loss and a "
                f"learning rate of its own: nothing, or the default, {show(default)}",
                also=_RECIPE,
            )


def sampling_weights_differ(experiment: ExperimentConfig) -> Problems:
    sampling, sources = experiment.engine.sampling, experiment.dataset.train_data_sources
    at: KeyPath = ("engine", "sampling", "source_weights")
    weights = sampling.source_weights
    if weights and sources is not None and len(weights) != len(sources):
        yield Problem(
            at,
            f"found {len(weights)}; allowed: {len(sources)}, one for each of "
            "dataset.train_data_sources",
            also=(("dataset", "train_data_sources"),),
        )
    elif weights and len(set(weights)) == 1:
        yield Problem(at, f"found {show(weights)}, which changes nothing; allowed: unequal weights")
    if sampling.class_weights and set(sampling.class_weights.values()) == {1.0}:
        yield Problem(
            ("engine", "sampling", "class_weights"),
            "found no weight but 1, which every class has; allowed: one that differs",
        )


def parts_are_tried_whole(experiment: ExperimentConfig, action: str) -> Problems:
    """What a step takes is tried out on a model in one piece."""
    strategy = experiment.train.distributed_strategy
    if action in TRAINING and experiment.engine.batch == "auto" and strategy == "fsdp":
        yield Problem(
            ("engine", "batch"),
            "found 'auto'; allowed with train.distributed_strategy 'fsdp': 'fixed'",
            also=(("train", "distributed_strategy"),),
        )


def compiled_in_one_piece(experiment: ExperimentConfig, action: str) -> Problems:
    """A compiler sees neither modules that are split nor which are to be computed again."""
    train = experiment.train
    if action not in TRAIN or not experiment.engine.compile:
        return
    for name, value, allowed, why in (
        ("activation_checkpoint", True, False, "what is compiled decides by itself what it keeps"),
        ("distributed_strategy", "fsdp", "ddp", "it takes whole modules"),
    ):
        if getattr(train, name) == value:
            yield Problem(
                ("train", name),
                f"found {show(value)}; allowed with engine.compile true: {show(allowed)}, as {why}",
                also=(("engine", "compile"),),
            )
