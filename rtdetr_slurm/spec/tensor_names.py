"""Names of tensors in published RT-DETR weights, and in this engine's. Pure.

Our names are those of the official RT-DETRv2 code. What differs elsewhere:

==============================  =================================================================
official v1, NVIDIA TAO         `encoder.input_proj.L.0/1`, `decoder.enc_output.0/1`; TAO puts
                                `model.model.` in front
official v2                     buffers `decoder.anchors`, `valid_mask`, `num_points_scale`
Hugging Face transformers       nearly everything, and q, k, v are three tensors; two generations,
                                of the files on the hub and of transformers 5
backbones alone                 no `backbone.` in front, a classifier; NVIDIA TAO's masked
                                autoencoders `encoder.`
==============================  =================================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from rtdetr_slurm.spec.backbone_names import own_backbone_names

Layout = Literal["this engine's", "Hugging Face", "official v1", "official v2", "a backbone's"]
"""Whose names the tensors of a file have."""

POINTS_SCALE = re.compile(r"\.n(?:um)?_points_scale$")
"""1/n for each sampling point of a level that has n."""

COUNTER = "num_batches_tracked"
"""Absent from converted files and from frozen batch norms, and of no effect on results."""
CLASSIFIER = re.compile(
    r"^backbone\.(?:fc|head|classifier|norm|norm_pre)\."
    r"|^backbone\.cls_token$|^backbone\.cls_attn_blocks\.\d+\.(?:attn\.|mlp\.|gamma2$)"
)
"""What a backbone's file has that served classification alone; FAN's class token, too."""
_AUTOENCODER = re.compile(r"^encoder\.(?=stages\.|downsample_layers\.)")

_PREFIX = re.compile(r"^(?:module\.|model\.)+")
_DROPPED = re.compile(
    r"^decoder\.(?:anchors|valid_mask)$"  # functions of the input size
    rf"|{POINTS_SCALE.pattern}"  # constants
    r"|^encoder\.pos_embed\d+$"
    r"|^(?:class_embed|bbox_embed)\."  # tied copies of decoder heads
)

_OFFICIAL = {
    "encoder.input_proj.#.0": "encoder.input_proj.#.conv",
    "encoder.input_proj.#.1": "encoder.input_proj.#.norm",
    "decoder.enc_output.0": "decoder.enc_output.proj",
    "decoder.enc_output.1": "decoder.enc_output.norm",
}
"""Modules of the official code's first version → ours."""

_BEFORE_5 = (
    (r"\.out_proj\.", ".o_proj."),
    (r"(layers\.\d+)\.fc(\d)\.", r"\1.mlp.fc\2."),
    (r"^encoder\.encoder\.", "encoder.aifi."),
)
"""Names of the files on the hub → transformers 5."""

_ATTENTION = {f"self_attn.{part}_proj": f"self_attn.{part}_proj" for part in "qkv"}
_ATTENTION |= {"self_attn.o_proj": "self_attn.out_proj", "self_attn_layer_norm": "norm1"}
_FEED_FORWARD = {"mlp.fc1": "linear1", "mlp.fc2": "linear2"}
_LAYERS = {
    ("encoder.aifi.#.layers.#", "encoder.encoder.#.layers.#"): {
        **_ATTENTION,
        **_FEED_FORWARD,
        "final_layer_norm": "norm2",
    },
    ("decoder.layers.#", "decoder.decoder.layers.#"): {
        **_ATTENTION,
        **_FEED_FORWARD,
        **{
            f"encoder_attn.{part}": f"cross_attn.{part}"
            for part in ("sampling_offsets", "attention_weights", "value_proj", "output_proj")
        },
        "encoder_attn_layer_norm": "norm2",
        "final_layer_norm": "norm3",
    },
}
_CONV = {"convolution": "conv", "normalization": "norm"}
_STAGES, _BLOCKS = "backbone.model.encoder.stages.", "backbone.res_layers."
_BACKBONE = {
    **{f"backbone.model.embedder.embedder.{n}": f"backbone.conv1.conv1_{n + 1}" for n in range(3)},
    **{
        f"{_STAGES}#.layers.#.layer.{n}": f"{_BLOCKS}#.blocks.#.branch2{'abc'[n]}" for n in range(3)
    },
    f"{_STAGES}#.layers.#.shortcut.1": f"{_BLOCKS}#.blocks.#.short.conv",
    f"{_STAGES}#.layers.#.shortcut": f"{_BLOCKS}#.blocks.#.short",
}
_HUGGING_FACE = {
    **{
        f"{theirs}.{conv}": f"{ours}.{own}"
        for theirs, ours in _BACKBONE.items()
        for conv, own in _CONV.items()
    },
    **{
        f"{theirs}.{inside}": f"{ours}.{own}"
        for (theirs, ours), names in _LAYERS.items()
        for inside, own in names.items()
    },
    **{
        f"{part}_input_proj.#.{n}": f"{part}.input_proj.#.{own}"
        for part in ("encoder", "decoder")
        for n, own in enumerate(_CONV.values())
    },
    "enc_output.0": "decoder.enc_output.proj",
    "enc_output.1": "decoder.enc_output.norm",
    "denoising_class_embed": "decoder.denoising_class_embed",
    "enc_score_head": "decoder.enc_score_head",
    "enc_bbox_head.layers.#": "decoder.enc_bbox_head.layers.#",
    "decoder.class_embed.#": "decoder.dec_score_head.#",
    "decoder.bbox_embed.#.layers.#": "decoder.dec_bbox_head.#.layers.#",
}
"""Modules of transformers 5, without the `model.` in front of all, → ours, where they differ."""

_TIMM_THEIRS, _BACKBONE_OURS = "backbone.model._backbone.", "backbone."
"""A backbone of timm's inside: its own names follow."""


def own_tensor_names(names: Iterable[str]) -> tuple[Layout, dict[str, str]]:
    """Whose names these are, and each of them → ours; q, k and v stay apart.

    Constants and tied copies are left out, and a name that nothing is known of is kept.
    """
    bare = {name: _PREFIX.sub("", name) for name in names}
    layout: Layout = "official v2"
    if any(name.startswith(("encoder_input_proj.", "backbone.model.")) for name in bare.values()):
        layout = "Hugging Face"
    elif "encoder.input_proj.0.0.weight" in bare.values():
        layout = "official v1"
    kept = {name: stripped for name, stripped in bare.items() if not _DROPPED.search(stripped)}
    ours = {name: _own_name(stripped, layout) for name, stripped in kept.items()}
    ours |= _own_names_in_backbone(ours)
    if len(ours) == len(bare) and all(name == own for name, own in ours.items()):
        layout = "this engine's"
    return layout, ours


def backbone_tensor_names(names: Iterable[str]) -> tuple[Layout, dict[str, str]]:
    """As `own_tensor_names`, of a file that may hold a backbone alone."""
    bare = {name: _PREFIX.sub("", name) for name in names}
    if any(name.startswith(_BACKBONE_OURS) for name in bare.values()):
        return own_tensor_names(bare)
    encoder = {
        name: _AUTOENCODER.sub("", one) for name, one in bare.items() if _AUTOENCODER.match(one)
    }
    alone = encoder or bare
    ours = own_backbone_names(alone.values())
    return "a backbone's", {name: _BACKBONE_OURS + ours[one] for name, one in alone.items()}


def hugging_face_name(own: str) -> str:
    """What transformers 5 calls a tensor of ours; q, k and v are apart."""
    name = _renamed(own, _TO_HUGGING_FACE)
    if name == own and own.startswith(_BACKBONE_OURS):
        name = _TIMM_THEIRS + own.removeprefix(_BACKBONE_OURS)
    return f"model.{name}"


def _own_names_in_backbone(names: Mapping[str, str]) -> dict[str, str]:
    inside = {
        theirs: name.removeprefix(_BACKBONE_OURS)
        for theirs, name in names.items()
        if name.startswith(_BACKBONE_OURS)
    }
    ours = own_backbone_names(inside.values())
    return {theirs: _BACKBONE_OURS + ours[name] for theirs, name in inside.items()}


def _own_name(name: str, layout: Layout) -> str:
    if layout != "Hugging Face":
        return _renamed(name, _FROM_OFFICIAL)
    if name.startswith(_TIMM_THEIRS):
        return _BACKBONE_OURS + name.removeprefix(_TIMM_THEIRS)
    for pattern, replacement in _BEFORE_5:
        name = re.sub(pattern, replacement, name)
    return _renamed(name, _FROM_HUGGING_FACE)


_Rules = Sequence[tuple[re.Pattern[str], str]]


def _rules(modules: Mapping[str, str]) -> _Rules:
    """What matches each module, and what takes its place; `#` is any number."""
    return [
        (re.compile(re.escape(theirs).replace(r"\#", r"(\d+)")), _counted(ours))
        for theirs, ours in modules.items()
    ]


def _counted(module: str) -> str:
    """`a.#.b.#` as `a.\\1.b.\\2`."""
    first, *rest = module.split("#")
    return first + "".join(f"\\{number}{part}" for number, part in enumerate(rest, 1))


_FROM_OFFICIAL = _rules(_OFFICIAL)
_FROM_HUGGING_FACE = _rules(_HUGGING_FACE)
_TO_HUGGING_FACE = _rules({ours: theirs for theirs, ours in _HUGGING_FACE.items()})


def _renamed(name: str, rules: _Rules) -> str:
    """`name` with its module called otherwise; as it is where no rule knows the module."""
    module, _, leaf = name.rpartition(".")
    for pattern, replacement in rules:
        if match := pattern.fullmatch(module):
            return f"{match.expand(replacement)}.{leaf}"
    return name
