"""The names of the detector's modules and parameters, as `train.freeze` takes them.

The login node has no torch to build the detector with, so the structure of encoder and decoder is
written down here once more, and that of the backbones is in a file (`backbones.py`); a test
compares both with the real ones. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from rtdetr_slurm.spec.backbones import Tree, backbone_modules, family
from rtdetr_slurm.spec.experiment import ExperimentConfig
from rtdetr_slurm.spec.model import ModelConfig

_NOTHING: Tree = {}
_WEIGHT: Tree = {"weight": None}
_LINEAR: Tree = {"weight": None, "bias": None}
_NORM = _LINEAR
_CONV_NORM: Tree = {"conv": _WEIGHT, "norm": _NORM, "act": _NOTHING}
_SELF_ATTENTION: Tree = {"in_proj_weight": None, "in_proj_bias": None, "out_proj": _LINEAR}
_ENCODER_LAYER: Tree = {
    "self_attn": _SELF_ATTENTION,
    **dict.fromkeys(("linear1", "linear2", "norm1", "norm2"), _LINEAR),
    **dict.fromkeys(("dropout", "act"), _NOTHING),
}
_DECODER_LAYER: Tree = {
    "self_attn": _SELF_ATTENTION,
    "cross_attn": dict.fromkeys(
        ("sampling_offsets", "attention_weights", "value_proj", "output_proj"), _LINEAR
    ),
    **dict.fromkeys(("norm1", "norm2", "linear1", "linear2", "norm3"), _LINEAR),
}


def keeps_pretrained_norms(experiment: ExperimentConfig) -> bool:
    """Whether training leaves the pretrained backbone's stem and batch norms as they are, which it
    does with ResNets, as TAO does."""
    model = experiment.model
    backbone_alone = model.pretrained_backbone_path and not experiment.train.pretrained_model_path
    return bool(backbone_alone) and model.train_backbone and family(model.backbone) == "resnet"


def detector_modules(experiment: ExperimentConfig) -> Tree:
    """The detector that the spec describes, as training builds it."""
    model = experiment.model
    constant = keeps_pretrained_norms(experiment) or not model.train_backbone
    return model_modules(model, constant_norms=constant)


def model_modules(model: ModelConfig, *, constant_norms: bool = False) -> Tree:
    """The detector of a `model` section; constant batch norms of a backbone have no parameters."""
    return {
        "backbone": backbone_modules(
            model.backbone, model.return_interm_indices, constant_norms=constant_norms
        ),
        "encoder": _encoder(model),
        "decoder": _decoder(model),
    }


def find(tree: Tree, name: str) -> tuple[str, Tree | None]:
    """How far a dotted name leads: the part of it that is there, and what that is."""
    node: Tree | None = tree
    known: list[str] = []
    for part in name.split("."):
        if node is None or part not in node:
            break
        known.append(part)
        node = node[part]
    return ".".join(known), node


def names(tree: Tree, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Every dotted name, and whether it is a parameter's."""
    for name, inside in tree.items():
        yield prefix + name, inside is None
        if inside is not None:
            yield from names(inside, f"{prefix}{name}.")


def _encoder(model: ModelConfig) -> Tree:
    between = model.num_feature_levels - 1
    whole = int(model.feat_channels[0] * model.expansion) == model.feat_channels[0]
    block: Tree = {"conv1": _CONV_NORM, "conv2": _CONV_NORM, "act": _NOTHING}
    fusion: Tree = {
        "conv1": _CONV_NORM,
        "conv2": _CONV_NORM,
        "bottlenecks": _repeated(block, 3 * model.depth_mult),
        "conv3": _NOTHING if whole else _CONV_NORM,
    }
    transformer: Tree = {"layers": _repeated(_ENCODER_LAYER, model.enc_layers)}
    return {
        "input_proj": _repeated(_CONV_NORM, model.num_feature_levels),
        "encoder": _repeated(transformer, len(model.use_encoder_idx)),
        **dict.fromkeys(("lateral_convs", "downsample_convs"), _repeated(_CONV_NORM, between)),
        **dict.fromkeys(("fpn_blocks", "pan_blocks"), _repeated(fusion, between)),
    }


def _decoder(model: ModelConfig) -> Tree:
    boxes: Tree = {"layers": _repeated(_LINEAR, 3)}
    denoising = {"denoising_class_embed": _WEIGHT} if model.dn_number else {}
    return {
        "input_proj": _repeated(_CONV_NORM, model.num_feature_levels),
        "decoder": {"layers": _repeated(_DECODER_LAYER, model.dec_layers)},
        **denoising,
        "query_pos_head": {"layers": _repeated(_LINEAR, 2)},
        "enc_output": {"proj": _LINEAR, "norm": _NORM},
        "enc_score_head": _LINEAR,
        "enc_bbox_head": boxes,
        "dec_score_head": _repeated(_LINEAR, model.dec_layers),
        "dec_bbox_head": _repeated(boxes, model.dec_layers),
    }


def _repeated(tree: Tree, count: int) -> Tree:
    return _numbered(tree for _ in range(count))


def _numbered(trees: Iterator[Tree]) -> Tree:
    return {str(index): tree for index, tree in enumerate(trees)}
