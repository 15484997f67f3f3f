"""The config.json of a detector of Hugging Face transformers: from a spec, and back. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.model_check import find_problems, in_lines
from rtdetr_slurm.spec.backbones import family, stage_widths
from rtdetr_slurm.spec.experiment import ExperimentConfig
from rtdetr_slurm.spec.model import ModelConfig
from rtdetr_slurm.spec.rules import check_experiment
from rtdetr_slurm.yaml_source import show

MODEL_TYPES = ("rt_detr", "rt_detr_v2")

_SAME = {
    "hidden_dim": "d_model",
    "nheads": "encoder_attention_heads",
    "enc_layers": "encoder_layers",
    "use_encoder_idx": "encode_proj_layers",
    "dim_feedforward": "encoder_ffn_dim",
    "enc_act": "encoder_activation_function",
    "act": "activation_function",
    "expansion": "hidden_expansion",
    "pe_temperature": "positional_encoding_temperature",
    "dec_layers": "decoder_layers",
    "num_queries": "num_queries",
    "dn_number": "num_denoising",
    "class_cost": "matcher_class_cost",
    "bbox_cost": "matcher_bbox_cost",
    "giou_cost": "matcher_giou_cost",
    "vfl_loss_coef": "weight_loss_vfl",
    "bbox_loss_coef": "weight_loss_bbox",
    "giou_loss_coef": "weight_loss_giou",
    "alpha": "focal_loss_alpha",
    "gamma": "focal_loss_gamma",
    "aux_loss": "auxiliary_loss",
}
"""Fields of `model` that have another name there, and the same meaning and default."""

_FIXED: Mapping[str, Any] = {
    "decoder_attention_heads": 8,
    "decoder_ffn_dim": 1024,
    "decoder_activation_function": "relu",
    "decoder_n_points": 4,
    "decoder_offset_scale": 0.5,
    "decoder_method": "default",
    "learn_initial_query": False,
    "normalize_before": False,
    "layer_norm_eps": 1e-5,
    "batch_norm_eps": 1e-5,
}
"""What every detector has here; transformers' defaults, too. The offset's scale and the method are
RTDetrV2's."""
_FIXED_BACKBONE: Mapping[str, Any] = {
    "num_channels": 3,
    "embedding_size": 64,
    "hidden_act": "relu",
    "downsample_in_first_stage": False,
    "downsample_in_bottleneck": False,
}
STAGE_DEPTHS = {"18": (2, 2, 2, 2), "34": (3, 4, 6, 3), "50": (3, 4, 6, 3), "101": (3, 4, 23, 3)}
"""Blocks per stage of the ResNets."""
_RESNET, _TIMM = "rt_detr_resnet", "timm_backbone"
_STAGE = ("stem", "stage1", "stage2", "stage3", "stage4")


@dataclass(frozen=True)
class FoundDetector:
    """The detector that a config.json is of.

    Attributes:
        experiment: a spec for it.
        said: the fields of its `model` section that the file gives.
        classes: id to name, of those that have one.
    """

    experiment: ExperimentConfig
    said: dict[str, Any]
    classes: dict[int, str]


def config_of(
    model: ModelConfig, num_classes: int, classes: Mapping[int, str], *, constant_norms: bool
) -> dict[str, Any]:
    """The config.json of a detector.

    Args:
        classes: id to name, as far as known.
        constant_norms: whether the backbone's batch norms are kept as they are.

    Raises:
        RequestError: transformers has no such detector.
    """
    if model.depth_mult != 1:
        raise RequestError(
            f"model.depth_mult: found {model.depth_mult}; transformers' RT-DETR always has 1"
        )
    if family(model.backbone) != "resnet":
        raise RequestError(
            f"model.backbone: found {model.backbone}; allowed for transformers' RT-DETR: a ResNet"
        )
    labels = {number: classes.get(number, _unnamed(number)) for number in range(num_classes)}
    channels = stage_widths(model.backbone)
    return {
        "architectures": ["RTDetrForObjectDetection"],
        "model_type": MODEL_TYPES[0],
        "dtype": "float32",
        **{theirs: getattr(model, ours) for ours, theirs in _SAME.items()},
        "encoder_hidden_dim": model.feat_channels[0],
        "encoder_in_channels": [channels[stage] for stage in model.return_interm_indices],
        "decoder_in_channels": model.feat_channels,
        "feat_strides": model.feat_strides,
        "num_feature_levels": model.num_feature_levels,
        "freeze_backbone_batch_norms": constant_norms,
        "backbone_config": _backbone_config(model, channels),
        "id2label": {str(number): name for number, name in labels.items()},
        "label2id": {name: number for number, name in labels.items()},
    }


def image_processor_of(size: tuple[int, int]) -> dict[str, Any]:
    """The preprocessor_config.json of a detector whose images have a size, (height, width)."""
    height, width = size
    return {
        "image_processor_type": "RTDetrImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": 2,  # Pillow's number of bilinear
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": False,
        "do_pad": False,
    }


def detector_of(config: Mapping[str, Any], size: tuple[int, int] | None = None) -> FoundDetector:
    """The detector that a config.json is of.

    Args:
        size: (height, width) of its images; None where it is not known.

    Raises:
        RequestError: with every field that says something else than this engine can compute.
    """
    problems = [*_refused(config)]
    if problems:
        raise RequestError("\n".join(problems))
    labels = {int(number): str(name) for number, name in (config.get("id2label") or {}).items()}
    num_classes = len(labels) or config.get("num_labels", 2)
    model = {ours: config[theirs] for ours, theirs in _SAME.items() if theirs in config}
    stages = _stages(config["backbone_config"])
    width = config.get("encoder_hidden_dim", 256)
    model |= {
        "backbone": _backbone(config["backbone_config"]),
        "return_interm_indices": stages,
        "num_feature_levels": len(stages),
        "feat_strides": [4 * 2**stage for stage in stages],
        "feat_channels": [width for _ in stages],
    }
    queries = model.get("num_queries", 300)
    model["num_select"] = min(queries, 1000) if isinstance(queries, int) else queries
    dataset: dict[str, Any] = {"num_classes": num_classes}
    if size is not None:
        dataset["augmentation"] = {"eval_spatial_size": list(size)}
    experiment, wrong = find_problems(ExperimentConfig, {"model": model, "dataset": dataset})
    if experiment is None or (wrong := [*check_experiment(experiment)]):
        raise RequestError(in_lines(wrong))
    named = {number: name for number, name in sorted(labels.items()) if name != _unnamed(number)}
    return FoundDetector(experiment, model, named)


def image_size_of(processor: Mapping[str, Any]) -> tuple[int, int] | None:
    """(height, width) of a preprocessor_config.json; None where the images keep their shape.

    Raises:
        RequestError: it makes other numbers of an image than RGB in 0..1.
    """
    for name, allowed in (("do_normalize", False), ("do_rescale", True), ("do_resize", True)):
        if processor.get(name, allowed) is not allowed:
            raise RequestError(
                f"{name}: found {show(processor[name])}; allowed: {show(allowed)}, for images are "
                "stretched to one size and are RGB in 0..1 here, without mean and deviation"
            )
    factor = processor.get("rescale_factor", 1 / 255)
    if not isinstance(factor, float) or abs(factor * 255 - 1) > 1e-6:
        raise RequestError(f"rescale_factor: found {show(factor)}; allowed: 1/255")
    size = processor.get("size")
    match size:
        case {"height": int(height), "width": int(width)}:
            return height, width
    return None


def _refused(config: Mapping[str, Any]) -> Iterator[str]:
    kind = config.get("model_type")
    if kind not in MODEL_TYPES:
        yield f"model_type: found {show(kind)}; allowed: {', '.join(MODEL_TYPES)}"
        return
    for name, value in _FIXED.items():
        if config.get(name, value) != value:
            yield f"{name}: found {show(config[name])}; allowed: {show(value)}"
    labels = config.get("id2label") or {}
    if not isinstance(labels, Mapping) or {*labels} != {*map(str, range(len(labels)))}:
        yield "id2label: allowed: a name for each number from 0 on"
    backbone = config.get("backbone_config")
    if not isinstance(backbone, Mapping) or not _backbone(backbone):
        yield (
            "backbone_config: this is no ResNet of 18, 34, 50 or 101 layers, neither "
            f"{_RESNET} nor {_TIMM}"
        )
        return
    for name, value in _FIXED_BACKBONE.items():
        if backbone.get(name, value) != value:
            yield f"backbone_config.{name}: found {show(backbone[name])}; allowed: {show(value)}"
    stages = _stages(backbone)
    if not stages:
        yield "backbone_config: its out_features name no stages"
        return
    levels = config.get("num_feature_levels", 3)
    if levels != len(stages):
        yield (
            f"num_feature_levels: found {show(levels)}; allowed: {len(stages)}, one for each stage "
            "of the backbone"
        )
    width = config.get("encoder_hidden_dim", 256)
    widths = config.get("decoder_in_channels", [width for _ in stages])
    if widths != [width for _ in stages]:
        yield f"decoder_in_channels: found {show(widths)}; allowed: {width} on each level"


def _unnamed(number: int) -> str:
    """What transformers calls a class without a name."""
    return f"LABEL_{number}"


def _backbone_config(model: ModelConfig, channels: list[int]) -> dict[str, Any]:
    _, number, *variant = model.backbone.split("_")
    built = max(model.return_interm_indices) + 1
    if not variant:
        return {
            "model_type": _TIMM,
            "backbone": f"resnet{number}",
            "features_only": True,
            # Feature 0 is the stem's output.
            "out_indices": [stage + 1 for stage in model.return_interm_indices],
            "num_channels": 3,
        }
    return {
        "model_type": _RESNET,
        **_FIXED_BACKBONE,
        "depths": list(STAGE_DEPTHS[number][:built]),
        "hidden_sizes": channels[:built],
        "layer_type": "bottleneck" if int(number) >= 50 else "basic",
        "out_features": [_STAGE[stage + 1] for stage in model.return_interm_indices],
    }


def _backbone(config: Mapping[str, Any]) -> str | None:
    """The name of a backbone here; None where it has none."""
    if config.get("model_type") == _TIMM:
        name = str(config.get("backbone")).partition(".")[0]
        return {f"resnet{number}": f"resnet_{number}" for number in STAGE_DEPTHS}.get(name)
    if config.get("model_type") != _RESNET:
        return None
    deep = config.get("layer_type", "bottleneck") == "bottleneck"
    depths = config.get("depths", [*STAGE_DEPTHS["50"]])
    for number, known in STAGE_DEPTHS.items():
        if (int(number) >= 50) == deep and depths in ([*known], [*known[:2]], [*known[:3]]):
            return f"resnet_{number}_vd"
    return None


def _stages(backbone: Mapping[str, Any]) -> list[int]:
    """The stages that are read, from 0; empty where that cannot be told."""
    features, indices = backbone.get("out_features"), backbone.get("out_indices")
    if isinstance(features, list):
        indices = [_STAGE.index(one) for one in features if one in _STAGE]
    if not isinstance(indices, list) or not all(one in range(1, 5) for one in indices):
        return []
    return [one - 1 for one in indices]
