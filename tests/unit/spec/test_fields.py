"""The declared fields against TAO's published ones (tao_fields.json), and their own consistency."""

from __future__ import annotations

from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from tao_specs import TAO_FIELDS

from rtdetr_slurm.actions import ACTIONS
from rtdetr_slurm.contract import ENGINE_SECTION
from rtdetr_slurm.spec.experiment import ExperimentConfig, SpecFile
from rtdetr_slurm.spec.fields import FieldRef, walk
from rtdetr_slurm.spec.overrides import SHORTHANDS
from rtdetr_slurm.yaml_source import dotted

OURS: dict[str, FieldRef] = {dotted(ref.path): ref for ref in walk(ExperimentConfig)}
SCHEMA = SpecFile.model_json_schema()

# Where we knowingly differ from TAO, per field and property. Bounds that TAO leaves out make values
# impossible that mean nothing; other types and names make values possible that its engine takes.
DEVIATIONS: dict[str, dict[str, Any]] = {
    "model_name": {"enum": ["", "rtdetr"]},
    "model.backbone": {"enum": "more"},
    "model.frozen_fm.backbone": {"enum": "more"},
    "model.act": {"enum": ["relu", "gelu", "silu", "leaky_relu"]},
    "model.enc_act": {"enum": ["relu", "gelu", "silu", "leaky_relu"]},
    "model.expansion": {"type": "float", "math_cond": "> 0"},
    "model.hidden_dim": {"min": 8},
    "model.nheads": {"min": 1},
    "train.clip_grad_norm": {"math_cond": ">= 0.0", "min": 0.0},
    "evaluate.conf_threshold": {"min": 0.0, "max": 1.0},
    "evaluate.input_height": {"min": 32},
    "evaluate.input_width": {"min": 32},
    "inference.conf_threshold": {"min": 0.0, "max": 1.0},
    "export.gpu_id": {"min": 0},
    "export.onnx_file": {"required": False},
    "gen_trt_engine.trt_engine": {"required": False},
    "export.input_channel": {"min": None},
    "distill.bindings[].weight": {"min": 0.0},
    "distill.bindings[].criterion": {"enum": ["L1", "L2", "KL", "IOU", ""]},
    "quantize.results_dir": {"required": False},
    "quantize.layers[].weights.dtype": {
        "enum": ["int8", "fp8_e4m3fn", "fp8_e5m2", "native", "float8_e4m3fn", "float8_e5m2", ""]
    },
    "quantize.layers[].activations.dtype": {
        "enum": ["int8", "fp8_e4m3fn", "fp8_e5m2", "native", "float8_e4m3fn", "float8_e5m2", ""]
    },
    "gen_trt_engine.tensorrt.calibration.cal_image_dir": {"default": []},
    # TAO finds out when it has started that these are missing; here an action cannot start.
    "dataset.train_data_sources": {"required": True},
    "dataset.test_data_sources": {"required": True},
    "dataset.infer_data_sources": {"required": True},
    "evaluate.trt_engine": {"required": True},
    "inference.trt_engine": {"required": True},
    "distill.bindings": {"required": True},
}
TYPES = {bool: "bool", int: "int", float: "float", str: "string", list: "list", dict: "collection"}


def our_type(annotation: Any) -> str:
    if get_origin(annotation) in (Union, UnionType):
        return our_type(next(arg for arg in get_args(annotation) if arg is not type(None)))
    if get_origin(annotation) is Annotated:
        return our_type(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return TYPES[type(get_args(annotation)[0])]
    return TYPES.get(get_origin(annotation) or annotation, "collection")


def keyword(ref: FieldRef, *names: str) -> Any:
    """A keyword of the field's JSON Schema, inside `anyOf` too."""
    section = SCHEMA if len(ref.path) == 1 else SCHEMA["$defs"][ref.section.__name__]
    schema = section["properties"][str(ref.path[-1])]
    for option in (schema, *schema.get("anyOf", [])):
        for name in names:
            if name in option:
                return option[name]
    return None


def our_facts(ref: FieldRef) -> dict[str, Any]:
    is_section = ref.nested is not None and not isinstance(ref.default, list | None)
    return {
        "type": our_type(ref.info.annotation),
        "default": "section" if is_section else ref.default,
        "min": keyword(ref, "minimum"),
        "max": keyword(ref, "maximum"),
        "enum": keyword(ref, "enum"),
        "regex": keyword(ref, "pattern"),
        "automl": ref.extra("x-automl"),
        "math_cond": ref.extra("x-math-cond"),
        "depends_on": ref.extra("x-depends-on"),
        "popular": bool(ref.extra("popular")),
        "parent_param": bool(ref.extra("x-parent-param")),
        "required": bool(ref.required_by),
    }


def tao_facts(path: str) -> dict[str, Any]:
    entry = TAO_FIELDS[path]
    kind = {"categorical": "string", "ordered_int": "int"}.get(entry["type"], entry["type"])
    default = entry.get("runtime_default", entry["default"])
    if kind == "string" and "enum" not in entry and default in (None, "???"):
        default = ""  # "to be given" and "none" are both empty text here
    if kind == "collection" and default is None and OURS[path].nested is not None:
        is_section = OURS[path].default is not None
        default = "section" if is_section else None
    condition = entry.get("math_cond")
    return {
        "type": kind,
        "default": default,
        "min": entry.get("min"),
        "max": entry.get("max"),
        "enum": entry.get("enum"),
        "regex": entry.get("regex"),
        "automl": entry.get("automl"),
        "math_cond": "> 0" if condition == ">0" else condition,
        "depends_on": entry.get("depends_on"),
        "popular": entry.get("popular", False),
        "parent_param": entry.get("parent_param", False),
        "required": entry.get("required", False),
    }


def test_there_are_218_of_them() -> None:
    assert len(TAO_FIELDS) == 218


def test_every_field_of_tao_exists_and_no_other() -> None:
    assert set(TAO_FIELDS) - set(OURS) == set()
    ours_alone = {
        path
        for path in set(OURS) - set(TAO_FIELDS)
        # The parts of a data source, which TAO declares as free dictionaries, and the teacher,
        # which TAO's list names without expanding it.
        if not path.startswith("distill.teacher.")
        and "_data_sources" not in path
        # Our own section, which TAO's images are not given.
        and path.partition(".")[0] != ENGINE_SECTION
    }
    assert ours_alone == set()


@pytest.mark.parametrize("path", sorted(TAO_FIELDS))
def test_field_is_as_in_tao(path: str) -> None:
    expected, actual = tao_facts(path), our_facts(OURS[path])
    for key, value in DEVIATIONS.get(path, {}).items():
        assert value != expected[key], f"{key} no longer deviates"
        if value == "more":
            assert actual[key][: len(expected[key])] == expected[key]
            actual[key] = expected[key]
        else:
            expected[key] = value
    assert actual == expected


def test_teacher_has_the_fields_of_model() -> None:
    model = {path.removeprefix("model.") for path in OURS if path.startswith("model.")}
    teacher = {path.removeprefix("distill.teacher.") for path in OURS if ".teacher." in path}
    assert teacher == model


@pytest.mark.parametrize("ref", list(walk(SpecFile)), ids=lambda ref: dotted(ref.path))
def test_declaration_is_complete_and_consistent(ref: FieldRef) -> None:
    description = ref.info.description
    assert description
    assert description.endswith(".")
    for key in ("x-used-by", "x-honoured-by", "x-no-effect-in", "x-required-by"):
        assert set(ref.extra(key) or ()) <= set(ACTIONS)
    assert set(ref.honoured_by) <= set(ref.used_by)
    assert set(ref.required_by) <= set(ref.used_by)
    assert not set(ref.honoured_by) & set(ref.no_effect_in)


def test_what_is_meant_for_whom() -> None:
    """A field is never meant for an action that its section is not meant for."""
    assert OURS["model.train_backbone"].used_by == ("train", "distill")
    assert OURS["distill.teacher.train_backbone"].used_by == ("distill",)
    assert OURS["distill.teacher.train_backbone"].honoured_by == ()
    assert OURS["train.seed"].used_by == ("train", "distill")
    assert OURS["evaluate.checkpoint"].used_by == ("evaluate", "trt_evaluate")
    assert OURS["evaluate.trt_engine"].used_by == ("evaluate", "trt_evaluate")
    assert OURS["evaluate.trt_engine"].required_by == ("trt_evaluate",)
    assert OURS["dataset.dataset_type"].no_effect_in == tuple(ACTIONS)


def test_data_sources_are_meant_for_the_actions_that_read_them() -> None:
    for kind in ("train", "val", "test", "infer", "quant_calibration"):
        reading = [
            name for name, action in ACTIONS.items() if kind in (*action.reads, *action.may_read)
        ]
        source = OURS[f"dataset.{kind}_data_sources"]
        assert list(source.used_by) == reading
        inside = [ref for ref in OURS.values() if ref.path[:2] == source.path and ref != source]
        assert inside
        for ref in inside:
            assert list(ref.used_by) == reading


def test_what_a_parent_fills() -> None:
    """TAO's table of inference functions, with its deploy actions by our names."""
    inferred = {
        (action, path): function
        for path, ref in OURS.items()
        for action in ACTIONS
        if (function := ref.inferred(action)) not in (None, "output_dir", "key")
    }
    assert inferred == {
        ("train", "model.pretrained_backbone_path"): "ptm_if_no_resume_model",
        ("train", "train.pretrained_model_path"): "ptm_if_no_resume_model",
        ("train", "train.resume_training_checkpoint_path"): "resume_model",
        ("distill", "distill.pretrained_teacher_model_path"): "parent_model",
        ("evaluate", "evaluate.checkpoint"): "parent_model",
        ("trt_evaluate", "evaluate.trt_engine"): "parent_model",
        ("inference", "inference.checkpoint"): "parent_model",
        ("trt_inference", "inference.trt_engine"): "parent_model",
        ("export", "export.checkpoint"): "parent_model",
        ("export", "export.onnx_file"): "create_onnx_file",
        ("quantize", "quantize.model_path"): "parent_model",
        ("gen_trt_engine", "gen_trt_engine.onnx_file"): "parent_model",
        ("gen_trt_engine", "gen_trt_engine.trt_engine"): "create_engine_file",
        ("gen_trt_engine", "gen_trt_engine.tensorrt.calibration.cal_cache_file"):
            "create_cal_cache",
    }  # fmt: skip
    for action, one in ACTIONS.items():
        assert OURS["encryption_key"].inferred(action) == "key"
        assert OURS[f"{one.section}.results_dir"].inferred(action) == "output_dir"


def test_what_carries_over_from_a_parent() -> None:
    carried = {path for path, ref in OURS.items() if "evaluate" in (ref.extra("x-carried") or ())}
    required = ("num_queries", "num_select", "hidden_dim", "feat_channels", "enc_layers")
    assert carried >= {f"model.{name}" for name in (*required, "backbone", "dec_layers")}
    assert carried >= {
        "dataset.num_classes",
        "dataset.eval_class_ids",
        "dataset.augmentation.eval_spatial_size",
    }
    # Whatever evaluation reads of the model, it must read as training did.
    read = {p for p, r in OURS.items() if p.startswith("model.") and "evaluate" in r.honoured_by}
    assert read - {"model"} <= carried


def test_shorthands_name_fields() -> None:
    assert len(SHORTHANDS) == 16
    assert set(SHORTHANDS.values()) <= {*OURS, "automl.policy"}


def test_only_available_actions_honour_what_they_are_meant_for() -> None:
    """What train and evaluate honour now, told apart from what they would have to ignore."""
    for action, fixed in {
        "train": {
            "model.frozen_fm.enabled",
            "dataset.dataset_type",
            "train.optim.monitor_name",
        },
        "evaluate": {"evaluate.trt_engine"},
        "quantize": {"quantize.backend_kwargs"},
    }.items():
        for path in fixed:
            assert action in OURS[path].used_by
            assert action not in OURS[path].honoured_by
    for path in ("train.optim.warmup_steps", "train.optim.lr_backbone", "model.aux_loss"):
        assert "train" in OURS[path].honoured_by
    for path in (
        "evaluate.num_nodes",
        "evaluate.batch_size",
        "evaluate.input_height",
        "dataset.eval_class_ids",
    ):
        assert "evaluate" in OURS[path].honoured_by
