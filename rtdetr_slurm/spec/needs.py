"""What the chosen actions need of a spec, and what they would have to ignore; pure, as rules.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rtdetr_slurm.actions import EngineOf, last_that_leaves, own_engine
from rtdetr_slurm.contract import Infer
from rtdetr_slurm.model_check import Problem
from rtdetr_slurm.resolved_spec import shown_uri
from rtdetr_slurm.spec.addresses import address_problem
from rtdetr_slurm.spec.backbones import CONV_WIDTHS, level_layer
from rtdetr_slurm.spec.checkpointer import monitored_is_known, names_are_sound
from rtdetr_slurm.spec.datasets import ROOTS
from rtdetr_slurm.spec.engine_rules import compiled_in_one_piece, parts_are_tried_whole
from rtdetr_slurm.spec.experiment import ExperimentConfig
from rtdetr_slurm.spec.export import OPSETS
from rtdetr_slurm.spec.fields import (
    EXPORT,
    QUANTIZE,
    TRAINING,
    FieldRef,
    Section,
    is_chosen,
    switched_off,
    users,
    visit,
)
from rtdetr_slurm.spec.job import JobConfig
from rtdetr_slurm.spec.keys import key_is_no_reference, legacy_files_are_named
from rtdetr_slurm.spec.model import ModelConfig
from rtdetr_slurm.spec.modules import detector_modules, find, names
from rtdetr_slurm.spec.overrides import MISSING
from rtdetr_slurm.spec.paths import path_problem
from rtdetr_slurm.spec.precision import int8_has_images, layers_precision_can_be_written
from rtdetr_slurm.spec.quantization import STATIC, backend_can_do_it, checkpoint_is_left
from rtdetr_slurm.spec.sizes import count_cells, sizes_of, training_sizes
from rtdetr_slurm.spec.tao import TAO_RULES
from rtdetr_slurm.spec.teacher import (
    TEACHER,
    bindings_can_be_bound,
    given_teacher,
    teacher_is_the_model,
)
from rtdetr_slurm.spec.topology import read_topology
from rtdetr_slurm.yaml_source import KeyPath, dotted, show

Problems = Iterator[Problem]


def check_chain(
    experiment: ExperimentConfig,
    actions: Sequence[str],
    job: JobConfig,
    engine_of: EngineOf = own_engine,
) -> Problems:
    """All rules that depend on the actions, for each of them.

    Args:
        actions: in the order they run; none where the spec does not say what it is for.
        engine_of: whose image an action runs in.
    """
    if not actions:
        return
    for index, action in enumerate(actions):
        yield from required_is_given(experiment, actions, index, job.parent)
        of_engine = TAO_RULES if engine_of(action) == "tao" else OWN_RULES
        for rule in (*RULES, *of_engine):
            yield from rule(experiment, action)
        yield from teacher_is_the_model(experiment, actions, index)
    yield from choices_are_used(experiment, actions, job)
    yield from dry_run_is_not_gone_on_from(experiment, actions)


def taken_from(ref: FieldRef, actions: Sequence[str], index: int, parent: str | None) -> str | None:
    """Where an action of a chain has a field's value from that is left empty, in words; None: from
    no stage and no run.

    The last stage before it that leaves such a model counts, else the parent run. A training goes
    on from the parent run alone: one before it in the chain has its epochs behind it.
    """
    function, before = ref.inferred(actions[index]), actions[:index]
    made = last_that_leaves(ref.takes, before)
    if function == Infer.PARENT_MODEL and made is not None:
        return actions[made]
    return parent and f"job.parent, {parent}" if parent_fills(ref, actions, index) else None


def parent_fills(ref: FieldRef, actions: Sequence[str], index: int) -> bool:
    """Whether the field of an action of a chain, left empty, is the parent run's to fill."""
    if ref.inferred(actions[index]) not in (Infer.PARENT_MODEL, Infer.RESUME_MODEL):
        return False
    return last_that_leaves(ref.takes, actions[:index]) is None


def takes_checkpoint(ref: FieldRef) -> bool:
    """Whether what fills the field is one of several checkpoints of a training."""
    function = ref.extra("x-inferred")
    return function in (Infer.PARENT_MODEL, Infer.RESUME_MODEL) and ref.takes == "checkpoint"


def intervals_fit_epochs(experiment: ExperimentConfig, action: str) -> Problems:
    if action not in TRAINING:
        return
    train = experiment.train
    intervals = ["validation_interval"]
    if train.checkpoint_interval_unit == "epoch":
        intervals.append("checkpoint_interval")
    for name in intervals:
        interval = getattr(train, name)
        if interval > train.num_epochs:
            yield Problem(
                ("train", name),
                f"found {interval}; allowed: ≤ {train.num_epochs}, which is train.num_epochs",
                also=(("train", "num_epochs"),),
            )


def dry_run_is_not_gone_on_from(experiment: ExperimentConfig, actions: Sequence[str]) -> Problems:
    """A dry run leaves no checkpoint that a later action of the chain could take."""
    if not experiment.train.is_dry_run:
        return
    for index, action in enumerate(actions):
        before = last_that_leaves("checkpoint", actions[:index])
        takes = any(
            takes_checkpoint(ref) and not value and taken_from(ref, actions, index, None)
            for ref, value in visit(experiment)
        )
        if before is not None and actions[before] in TRAINING and takes:
            yield Problem(
                ("train", "is_dry_run"),
                f"found true; it leaves no checkpoint, and action '{action}' takes one from "
                f"'{actions[before]}'; allowed: false, or a dry run alone",
            )
            return


def models_of(experiment: ExperimentConfig, action: str) -> Iterator[tuple[ModelConfig, KeyPath]]:
    """The detectors that an action builds, as far as the spec gives them, and where it does."""
    yield experiment.model, ("model",)
    if action in users("distill") and (teacher := given_teacher(experiment)) is not None:
        yield teacher, TEACHER


def queries_fit_cells(experiment: ExperimentConfig, action: str) -> Problems:
    """Queries are chosen among the cells of the feature maps."""
    sizes = dict(reversed([*sizes_of(experiment, action)]))  # the first place of each
    for model, path in models_of(experiment, action):
        cells = {size: count_cells(model, size) for size in sizes}
        size = min(sizes, key=cells.__getitem__, default=None)
        if size is not None and model.num_queries > (most := cells[size]):
            at = sizes[size]
            yield Problem(
                (*path, "num_queries"),
                f"found {model.num_queries}; allowed: ≤ {most}, the cells of the feature maps of "
                f"an image of {size[0]} × {size[1]} pixels, the smallest of action '{action}' "
                f"({dotted(at)})",
                also=(at,),
            )


def batch_norm_has_values(experiment: ExperimentConfig, action: str) -> Problems:
    """One image with one cell gives batch norm nothing to take statistics of; ranks share them."""
    topology = read_topology(experiment, action)
    one_image = experiment.dataset.batch_size * topology.num_nodes * topology.num_gpus == 1
    if action not in TRAINING or not one_image:
        return
    coarsest = max(experiment.model.feat_strides, default=1)
    for (height, width), at in training_sizes(experiment).items():
        if height <= coarsest and width <= coarsest:
            yield Problem(
                ("dataset", "batch_size"),
                f"found 1; allowed: ≥ 2 with images of {height} × {width} pixels ({dotted(at)}), "
                "whose coarsest feature map has one cell: batch norm needs more than one value",
                also=(at,),
            )


def frozen_names_exist(experiment: ExperimentConfig, action: str) -> Problems:
    """What train.freeze names is in the detector, and leaves something to train."""
    frozen, model = experiment.train.freeze, experiment.model
    built = model.return_interm_indices and model.feat_channels
    if action not in TRAINING or not (frozen and built):
        return
    tree = detector_modules(experiment)
    for index, name in enumerate(frozen):
        known, inside = find(tree, name)
        if not name or known != name:
            there = f"{known or 'the detector'} has {', '.join(inside or ()) or 'nothing inside'}"
            yield Problem(
                ("train", "freeze", index),
                f"found {show(name)}, which the detector does not have; {there}",
                also=(("model", "backbone"),),
            )
    constant = [*frozen] if model.train_backbone else [*frozen, "backbone"]
    inside_frozen = tuple(f"{name}." for name in constant)
    parameters = (name for name, is_parameter in names(tree) if is_parameter)
    if all(f"{name}.".startswith(inside_frozen) for name in parameters):
        yield Problem(("train", "freeze"), f"found {show(frozen)}, which leaves nothing to train")


def heeds_common_choice(
    ref: FieldRef, actions: Sequence[str], index: int, parent: str | None
) -> bool:
    """Whether job.checkpoint is about what fills the field: where there is a parent run, the choice
    is among its checkpoints, and not among those that a training here will leave."""
    return parent is None or parent_fills(ref, actions, index)


def required_is_given(
    experiment: ExperimentConfig, actions: Sequence[str], index: int, parent: str | None
) -> Problems:
    action = actions[index]
    for ref, value in visit(experiment):
        empty = value in ("", None, []) or (isinstance(value, list) and "" in value)
        if action not in ref.required_by or not empty:
            continue
        if taken_from(ref, actions, index, parent) is not None:
            continue
        about = str(ref.info.description).split(". ")[0].rstrip(".")
        root = ROOTS.get(str(ref.path[-1]).removesuffix("_data_sources"))
        filled = f"; job.datasets.{root} would fill it" if root else ""
        yield Problem(ref.path, f"missing; action '{action}' needs it: {about}{filled}")


def choices_are_used(
    experiment: ExperimentConfig, actions: Sequence[str], job: JobConfig
) -> Problems:
    """A choice among checkpoints needs a stage that takes one."""
    taking: list[list[FieldRef]] = [
        [
            ref
            for ref, value in visit(experiment)
            if takes_checkpoint(ref) and not value and taken_from(ref, actions, index, job.parent)
        ]
        for index in range(len(actions))
    ]
    common = any(
        heeds_common_choice(ref, actions, index, job.parent)
        for index, refs in enumerate(taking)
        for ref in refs
    )
    asked: dict[KeyPath, tuple[str | None, bool]] = {
        ("job", "checkpoint"): (job.checkpoint, common)
    }
    for number, entry in enumerate(job.then):
        asked["job", "then", number, "checkpoint"] = (entry.checkpoint, bool(taking[number + 1]))
    for path, (choice, used) in asked.items():
        if choice is not None and not used:
            yield Problem(
                path,
                f"found {choice}, and nothing here takes a checkpoint from a stage before or from "
                "job.parent; leave it out, or leave the field that wants a checkpoint empty",
            )


def calibration_is_given(experiment: ExperimentConfig, action: str) -> Problems:
    dataset = experiment.dataset
    given = dataset.quant_calibration_data_sources or dataset.train_data_sources
    static = experiment.quantize.mode == STATIC
    if action in QUANTIZE and static and not given:
        yield Problem(
            ("dataset", "quant_calibration_data_sources"),
            "missing, and dataset.train_data_sources, which stands in for it, too; quantize.mode "
            f"'{STATIC}' needs images to calibrate on",
            also=(("quantize", "mode"),),
        )


def addresses_are_meant(experiment: ExperimentConfig, action: str) -> Problems:
    for ref, value in visit(experiment):
        if ref.extra("x-path") != "read" or action not in ref.used_by:
            continue
        holds = ref.extra("x-holds")
        for text in value if isinstance(value, list) else [value]:
            if text and (problem := address_problem(text, holds)):
                yield Problem(ref.path, f"found {show(shown_uri(text))}; {problem}")


def paths_are_meant(experiment: ExperimentConfig, action: str) -> Problems:
    """No variables, which a spec does not fill in, and no folder of the system."""
    for ref, value in visit(experiment):
        if ref.extra("x-path") is None or action not in ref.used_by:
            continue
        for text in value if isinstance(value, list) else [value]:
            if text and text != MISSING and (reason := path_problem(text)):
                yield Problem(ref.path, f"found {show(text)}; {reason}")


def convolutions_have_their_levels(experiment: ExperimentConfig, action: str) -> Problems:
    """ConvNeXt's levels are widened to three fixed widths, as in TAO."""
    most = len(CONV_WIDTHS)
    for model, path in models_of(experiment, action):
        levels = len(model.return_interm_indices)
        if level_layer(model.backbone) == "conv" and levels != most:
            yield Problem(
                (*path, "return_interm_indices"),
                f"found {levels} levels; allowed with {model.backbone}: {most}, whose maps are "
                f"{', '.join(map(str, CONV_WIDTHS))} channels wide",
                also=((*path, "backbone"),),
            )


def opset_is_supported(experiment: ExperimentConfig, action: str) -> Problems:
    found = experiment.export.opset_version
    if action in EXPORT and found not in OPSETS:
        yield Problem(
            ("export", "opset_version"),
            f"found {found}; allowed: {OPSETS[0]}..{OPSETS[-1]}: layer normalization is an "
            f"operator since {OPSETS[0]}, and deformable attention's GridSample another one from "
            f"{OPSETS[-1] + 1} on",
        )


def options_are_honoured(experiment: ExperimentConfig, action: str) -> Problems:
    """A value other than the default needs someone to honour it."""
    off = switched_off(experiment)
    for ref, value in visit(experiment):
        inside_list = any(isinstance(part, int) for part in ref.path)  # the list itself is compared
        heeded = action in (*ref.honoured_by, *ref.no_effect_in)
        ignored = action in ref.used_by and not heeded and ref.path[:-1] not in off
        if inside_list or isinstance(value, Section) or not ignored:
            continue
        if is_chosen(ref, value):
            others = ", ".join(ref.honoured_by) or "NVIDIA TAO's image alone (engine: tao)"
            yield Problem(
                ref.path,
                f"found {show(value)}; action '{action}' does not have this option, which works in "
                f"{others}; allowed: its default, {show(ref.default)}",
            )


RULES = (
    intervals_fit_epochs,
    queries_fit_cells,
    batch_norm_has_values,
    convolutions_have_their_levels,
    calibration_is_given,
    addresses_are_meant,
    legacy_files_are_named,
    key_is_no_reference,
    paths_are_meant,
)
OWN_RULES = (
    parts_are_tried_whole,
    compiled_in_one_piece,
    names_are_sound,
    monitored_is_known,
    frozen_names_exist,
    bindings_can_be_bound,
    backend_can_do_it,
    checkpoint_is_left,
    opset_is_supported,
    layers_precision_can_be_written,
    int8_has_images,
    options_are_honoured,
)
