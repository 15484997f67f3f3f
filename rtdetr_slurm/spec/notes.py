"""What the user of a valid spec may not expect, in a line each; pure, as rules.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rtdetr_slurm.actions import EngineOf, own_engine
from rtdetr_slurm.spec.experiment import ExperimentConfig
from rtdetr_slurm.spec.fields import TRAINING, Section, is_chosen, switched_off, visit
from rtdetr_slurm.spec.needs import taken_from
from rtdetr_slurm.spec.sizes import scored_size, training_sizes
from rtdetr_slurm.spec.tao import notes_on_tao
from rtdetr_slurm.yaml_source import dotted, show


def notes_on_chain(
    experiment: ExperimentConfig,
    actions: Sequence[str],
    parent: str | None,
    engine_of: EngineOf = own_engine,
) -> Iterator[str]:
    """All notes on a spec that is valid for these actions."""
    own = [action for action in actions if engine_of(action) != "tao"]
    yield from given_checkpoints(experiment, actions, parent)
    yield from sizes_never_trained(experiment, actions)
    yield from options_without_effect(experiment, own)
    yield from momentum_without_effect(experiment, own)
    yield from notes_on_tao(experiment, [action for action in actions if action not in own])


def given_checkpoints(
    experiment: ExperimentConfig, actions: Sequence[str], parent: str | None
) -> Iterator[str]:
    """A value that is given wins over what would fill the field."""
    for index, action in enumerate(actions):
        for ref, value in visit(experiment):
            if value and (source := taken_from(ref, actions, index, parent)):
                name = dotted(ref.path)
                yield f"{name}: {value} is given, so {action} does not take that of {source}"


def options_without_effect(experiment: ExperimentConfig, actions: Sequence[str]) -> Iterator[str]:
    """What was chosen and changes nothing, by the reason."""
    off = switched_off(experiment)
    chosen: dict[str, list[str]] = {}
    for ref, value in visit(experiment):
        switch = off.get(ref.path[:-1])
        reason = ref.idle or (switch and f"{switch} is {show(False)}")
        meant = not isinstance(value, Section) and bool({*actions} & {*ref.used_by})
        if reason and meant and is_chosen(ref, value):
            chosen.setdefault(reason, []).append(dotted(ref.path))
    for reason, names in chosen.items():
        yield f"{', '.join(names)}: without effect here, as {reason}"


def momentum_without_effect(experiment: ExperimentConfig, actions: Sequence[str]) -> Iterator[str]:
    """AdamW has none."""
    optim = experiment.train.optim
    default = type(optim).model_fields["momentum"].default
    if {*actions} & {*TRAINING} and optim.optimizer == "AdamW" and optim.momentum != default:
        yield "train.optim.momentum: without effect here, as train.optim.optimizer is AdamW"


def sizes_never_trained(experiment: ExperimentConfig, actions: Sequence[str]) -> Iterator[str]:
    """What is scored at a size, or a shape, that no training batch has, is scored too low."""
    if not set(actions) & {*TRAINING}:
        return
    trained = training_sizes(experiment)
    given = bool(experiment.dataset.augmentation.multi_scales)
    scales = [show(list(size)) for size in trained]
    spread = f"{scales[0]} to {scales[-1]}" if len(scales) > 1 else scales[0]
    by = "multi_scales (left out, it follows train_spatial_size)" if given else "train_spatial_size"
    for size, at in dict(filter(None, (scored_size(experiment, one) for one in actions))).items():
        if size not in trained:
            yield (
                f"{dotted(at)}: images are scored at {show(list(size))}, a size that no training "
                f"batch has, and are usually detected worse for it; batches have {spread}, by {by}"
            )
