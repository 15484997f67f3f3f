"""What must hold between fields. One small function per rule; all pure, all run every time.

A rule yields a `Problem` for the field that is wrong and names in `also` the fields it was
compared with, so that a message can point at the one the user wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from rtdetr_slurm.errors import near
from rtdetr_slurm.model_check import NEAR, Problem
from rtdetr_slurm.spec.colours import NAMES, parse_colour
from rtdetr_slurm.spec.engine_rules import recipe_decides, sampling_weights_differ
from rtdetr_slurm.spec.experiment import ExperimentConfig
from rtdetr_slurm.spec.model import ModelConfig
from rtdetr_slurm.yaml_source import KeyPath, dotted, show

Problems = Iterator[Problem]


def check_experiment(experiment: ExperimentConfig) -> Problems:
    """All rules for the sections that `experiment` has in use (its `model_fields_set`)."""
    active = experiment.model_fields_set | {"model", "dataset"}
    models: list[tuple[ModelConfig, KeyPath]] = [(experiment.model, ("model",))]
    if "distill" in active:
        models.append((experiment.distill.teacher, ("distill", "teacher")))
    for model, at in models:
        for model_rule in MODEL_RULES:
            yield from model_rule(model, at)
    for name, section_rules in SECTION_RULES.items():
        if name in active:
            for rule in section_rules:
                yield from rule(experiment)


# --- model (also distill.teacher) ------------------------------------------------------------
def levels_agree(model: ModelConfig, at: KeyPath) -> Problems:
    levels = (*at, "num_feature_levels")
    for name in ("return_interm_indices", "feat_channels", "feat_strides"):
        values = getattr(model, name)
        if len(values) != model.num_feature_levels:
            yield Problem(
                (*at, name),
                f"found {len(values)} entries; allowed: {model.num_feature_levels}, one for each "
                f"of {dotted(levels)}",
                also=(levels,),
            )


def stages_are_consecutive(model: ModelConfig, at: KeyPath) -> Problems:
    stages = model.return_interm_indices
    if stages and stages != list(range(stages[0], stages[0] + len(stages))):
        yield Problem(
            (*at, "return_interm_indices"),
            f"found {show(stages)}; allowed: stages that follow one another, such as [1, 2, 3]",
        )


def strides_are_the_stages(model: ModelConfig, at: KeyPath) -> Problems:
    stages = model.return_interm_indices
    right = [4 * 2**stage for stage in stages]
    if len(model.feat_strides) == len(right) and model.feat_strides != right:
        yield Problem(
            (*at, "feat_strides"),
            f"found {show(model.feat_strides)}; allowed: {right}, the strides of stages "
            f"{show(stages)}",
            also=((*at, "return_interm_indices"),),
        )


def encoder_has_one_width(model: ModelConfig, at: KeyPath) -> Problems:
    if len(set(model.feat_channels)) > 1:
        yield Problem(
            (*at, "feat_channels"),
            f"found {show(model.feat_channels)}; allowed: the same width on every level",
        )


def heads_divide_widths(model: ModelConfig, at: KeyPath) -> Problems:
    nheads = (*at, "nheads")
    for width in dict.fromkeys(model.feat_channels):
        if width % model.nheads:
            yield Problem(
                (*at, "feat_channels"),
                f"found {width}; allowed: multiples of {dotted(nheads)} ({model.nheads})",
                also=(nheads,),
            )
    if model.hidden_dim % 8:
        reason = "the decoder's attention always has eight heads"
        yield Problem(
            (*at, "hidden_dim"), f"found {model.hidden_dim}; allowed: multiples of 8 ({reason})"
        )


def position_code_has_four_parts(model: ModelConfig, at: KeyPath) -> Problems:
    wrong = [width for width in model.feat_channels if width % 4]
    if wrong:
        reason = "the position code has four parts"
        yield Problem(
            (*at, "feat_channels"), f"found {wrong[0]}; allowed: multiples of 4 ({reason})"
        )


def encoder_levels_exist(model: ModelConfig, at: KeyPath) -> Problems:
    yield from no_repeats((*at, "use_encoder_idx"), model.use_encoder_idx)
    for index, level in enumerate(model.use_encoder_idx):
        if level >= model.num_feature_levels:
            yield Problem(
                (*at, "use_encoder_idx", index),
                f"found {level}; allowed: 0..{model.num_feature_levels - 1}, the levels of "
                f"{dotted((*at, 'num_feature_levels'))}",
                also=((*at, "num_feature_levels"),),
            )


def evaluated_layer_exists(model: ModelConfig, at: KeyPath) -> Problems:
    if model.eval_idx >= model.dec_layers:
        yield Problem(
            (*at, "eval_idx"),
            f"found {model.eval_idx}; allowed: -1..{model.dec_layers - 1}, as "
            f"{dotted((*at, 'dec_layers'))} is {model.dec_layers}",
            also=((*at, "dec_layers"),),
        )


def losses_are_listed_once(model: ModelConfig, at: KeyPath) -> Problems:
    yield from no_repeats((*at, "loss_types"), model.loss_types)


# --- model and dataset -----------------------------------------------------------------------
def selection_fits_queries(experiment: ExperimentConfig) -> Problems:
    model, classes = experiment.model, experiment.dataset.num_classes
    most = model.num_queries * classes
    if model.num_select > most:
        yield Problem(
            ("model", "num_select"),
            f"found {model.num_select}; allowed: ≤ {most} (model.num_queries {model.num_queries} × "
            f"dataset.num_classes {classes})",
            also=(("model", "num_queries"), ("dataset", "num_classes")),
        )


def scored_classes_exist(experiment: ExperimentConfig) -> Problems:
    dataset, path = experiment.dataset, ("dataset", "eval_class_ids")
    ids = dataset.eval_class_ids
    if ids is None:
        return
    if not ids:
        yield Problem(path, "found []; allowed: at least one class id, or null for all")
    yield from no_repeats(path, ids)
    for index, class_id in enumerate(ids):
        if class_id >= dataset.num_classes:
            yield Problem(
                (*path, index),
                f"found {class_id}; allowed: 0..{dataset.num_classes - 1}, as dataset.num_classes "
                f"is {dataset.num_classes}",
                also=(("dataset", "num_classes"),),
            )


# --- train, evaluate, inference --------------------------------------------------------------
def gpus_are_counted(name: str) -> Callable[[ExperimentConfig], Problems]:
    """The rule for the section called `name`: num_gpus is the length of gpu_ids."""

    def rule(experiment: ExperimentConfig) -> Problems:
        section = getattr(experiment, name)
        count, ids = section.num_gpus, section.gpu_ids
        path = (name, "gpu_ids")
        yield from no_repeats(path, ids)
        if count != len(ids):
            yield Problem(
                (name, "num_gpus"),
                f"found {count}, but {name}.gpu_ids lists {len(ids)} ({show(ids)}); allowed: "
                f"{name}.num_gpus {len(ids)}, or {name}.gpu_ids {show(list(range(count)))}",
                also=(path,),
            )

    return rule


def input_size_is_whole(name: str) -> Callable[[ExperimentConfig], Problems]:
    """The rule for the section called `name`: input_height and input_width come together."""

    def rule(experiment: ExperimentConfig) -> Problems:
        section = getattr(experiment, name)
        sides = {"input_height": section.input_height, "input_width": section.input_width}
        absent = [side for side, value in sides.items() if value is None]
        if len(absent) == 1:
            given = next(side for side in sides if side not in absent)
            yield Problem(
                (name, absent[0]),
                f"missing; it must be given with {name}.{given}",
                also=((name, given),),
            )

    return rule


def batch_is_open_or_positive(name: str) -> Callable[[ExperimentConfig], Problems]:
    """The rule for the section called `name`: batch_size is -1 or at least 1."""

    def rule(experiment: ExperimentConfig) -> Problems:
        if getattr(experiment, name).batch_size == 0:
            yield Problem((name, "batch_size"), "found 0; allowed: -1, or ≥ 1")

    return rule


def colours_exist(experiment: ExperimentConfig) -> Problems:
    for name, colour in (experiment.inference.color_map or {}).items():
        if parse_colour(colour) is None:
            hint = near(colour, NAMES, NEAR)
            yield Problem(
                ("inference", "color_map", name),
                f"found {show(colour)}; allowed: a colour of CSS such as red or steelblue, #rrggbb "
                f"or #rgb{hint}",
            )


def milestones_rise(experiment: ExperimentConfig) -> Problems:
    steps = experiment.train.optim.lr_steps
    if any(later <= earlier for earlier, later in pairwise(steps)):
        yield Problem(
            ("train", "optim", "lr_steps"),
            f"found {show(steps)}; allowed: epochs in rising order",
        )


def split_over_gpus(experiment: ExperimentConfig) -> Problems:
    train, strategy = experiment.train, ("train", "distributed_strategy")
    if train.distributed_strategy != "fsdp":
        return
    if train.num_gpus * train.num_nodes == 1:
        yield Problem(
            strategy,
            "found 'fsdp', which splits the model over several GPUs; allowed with one: 'ddp'",
            also=(("train", "num_gpus"), ("train", "num_nodes")),
        )
    if train.precision == "bf16":
        yield Problem(
            ("train", "precision"),
            "found 'bf16'; allowed with train.distributed_strategy 'fsdp': 'fp16', or 'fp32', "
            "which is then taken for it, as in TAO",
            also=(strategy,),
        )
    if train.enable_ema and train.ema.cpu_offload:
        yield Problem(
            ("train", "ema", "cpu_offload"),
            "found true; allowed with train.distributed_strategy 'fsdp': false, as each GPU holds "
            "its share of the average alone",
            also=(strategy,),
        )


def onnx_is_written(experiment: ExperimentConfig) -> Problems:
    if experiment.export.format != "onnx":
        yield Problem(
            ("export", "format"),
            f"found '{experiment.export.format}', which TAO's schema lists and its export never "
            "writes; allowed: 'onnx'",
        )


def images_have_colour(experiment: ExperimentConfig) -> Problems:
    if experiment.export.input_channel != 3:
        yield Problem(
            ("export", "input_channel"),
            f"found {experiment.export.input_channel}; allowed: 3, as the detector takes RGB "
            "images and has learned from such",
        )


# --- the later actions -----------------------------------------------------------------------
def bindings_fit_criterion(experiment: ExperimentConfig) -> Problems:
    for index, binding in enumerate(experiment.distill.bindings):
        if binding.criterion != "IOU":
            continue
        at: KeyPath = ("distill", "bindings", index)
        student, teacher = binding.student_module_name, binding.teacher_module_name
        for name, value in (("student_module_name", student), ("teacher_module_name", teacher)):
            if value not in ("srcs", "dsrcs", ""):
                yield Problem(
                    (*at, name),
                    f"found {show(value)}; allowed with criterion IOU: 'srcs' or 'dsrcs'",
                    also=((*at, "criterion"),),
                )
        if student and teacher and student != teacher:
            yield Problem(
                (*at, "teacher_module_name"),
                f"found {show(teacher)}; allowed with criterion IOU: the student's, "
                f"{show(student)}",
                also=((*at, "student_module_name"),),
            )


def backend_has_mode(experiment: ExperimentConfig) -> Problems:
    quantize = experiment.quantize
    right = "weight_only_ptq" if quantize.backend == "torchao" else "static_ptq"
    if quantize.mode != right:
        yield Problem(
            ("quantize", "mode"),
            f"found '{quantize.mode}'; allowed with backend '{quantize.backend}': '{right}'",
            also=(("quantize", "backend"),),
        )


def engine_batches_rise(experiment: ExperimentConfig) -> Problems:
    at, tensorrt = ("gen_trt_engine", "tensorrt"), experiment.gen_trt_engine.tensorrt
    low, best, high = tensorrt.min_batch_size, tensorrt.opt_batch_size, tensorrt.max_batch_size
    if not low <= best <= high:
        yield Problem(
            (*at, "opt_batch_size"),
            f"found {best}; allowed: min_batch_size ≤ opt_batch_size ≤ max_batch_size "
            f"(found {low}, {best}, {high})",
            also=((*at, "min_batch_size"), (*at, "max_batch_size")),
        )


def engine_batch_in_range(experiment: ExperimentConfig) -> Problems:
    tensorrt, batch = experiment.gen_trt_engine.tensorrt, experiment.gen_trt_engine.batch_size
    if batch > 0 and not tensorrt.min_batch_size <= batch <= tensorrt.max_batch_size:
        yield Problem(
            ("gen_trt_engine", "batch_size"),
            f"found {batch}; allowed: {tensorrt.min_batch_size}..{tensorrt.max_batch_size}, the "
            "range of tensorrt.min_batch_size and max_batch_size, or -1",
        )


MODEL_RULES = (
    levels_agree,
    stages_are_consecutive,
    strides_are_the_stages,
    encoder_has_one_width,
    heads_divide_widths,
    position_code_has_four_parts,
    encoder_levels_exist,
    evaluated_layer_exists,
    losses_are_listed_once,
)
SECTION_RULES: dict[str, tuple[Callable[[ExperimentConfig], Problems], ...]] = {
    "model": (selection_fits_queries,),
    "dataset": (scored_classes_exist,),
    "train": (gpus_are_counted("train"), milestones_rise, split_over_gpus),
    "engine": (recipe_decides, sampling_weights_differ),
    "evaluate": (
        gpus_are_counted("evaluate"),
        input_size_is_whole("evaluate"),
        batch_is_open_or_positive("evaluate"),
    ),
    "inference": (
        gpus_are_counted("inference"),
        input_size_is_whole("inference"),
        batch_is_open_or_positive("inference"),
        colours_exist,
    ),
    "export": (batch_is_open_or_positive("export"), onnx_is_written, images_have_colour),
    "distill": (bindings_fit_criterion,),
    "quantize": (backend_has_mode,),
    "gen_trt_engine": (
        batch_is_open_or_positive("gen_trt_engine"),
        engine_batches_rise,
        engine_batch_in_range,
    ),
}


def no_repeats(path: KeyPath, values: Sequence[Any]) -> Problems:
    """Each value at most once."""
    repeated = [value for index, value in enumerate(values) if value in values[:index]]
    if repeated:
        yield Problem(path, f"found {show(repeated[0])} twice; allowed: each once")
