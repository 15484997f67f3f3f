"""Tensor names of published RT-DETR weights, and loading them.

The module names of this package are those of the official RT-DETRv2 code. What differs elsewhere:

==============================  =================================================================
official v1, NVIDIA TAO         `encoder.input_proj.L.0/1`, `decoder.enc_output.0/1`; TAO puts
                                `model.model.` in front
official v2                     buffers `decoder.anchors`, `valid_mask`, `num_points_scale`
Hugging Face transformers       nearly everything, and q, k, v are three tensors; two generations,
                                of the files on the hub and of transformers 5
timm and torchvision ResNets    no `backbone.` in front, a classifier `fc`
==============================  =================================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from rtdetr_slurm.engine.models.weights import LoadReport, read_state_dict
from rtdetr_slurm.errors import RequestError

Rule = tuple[str, str | Callable[[re.Match[str]], str]]

OWN = "this engine's"
HUGGING_FACE = "Hugging Face"
OFFICIAL_V1 = "official v1"
OFFICIAL_V2 = "official v2"

PREFIX = re.compile(r"^(?:module\.|model\.)+")
DROPPED = re.compile(
    r"^decoder\.(?:anchors|valid_mask)$"  # functions of the input size
    r"|n(?:um)?_points_scale$"  # constants
    r"|^encoder\.pos_embed\d+$"
    r"|^(?:class_embed|bbox_embed)\."  # tied copies of decoder heads
)

OFFICIAL_RULES: tuple[Rule, ...] = (
    (r"^(encoder\.input_proj\.\d+)\.0\.", r"\1.conv."),
    (r"^(encoder\.input_proj\.\d+)\.1\.", r"\1.norm."),
    (r"^decoder\.enc_output\.0\.", "decoder.enc_output.proj."),
    (r"^decoder\.enc_output\.1\.", "decoder.enc_output.norm."),
)

_BLOCK = r"^backbone\.model\.encoder\.stages\.(\d+)\.layers\.(\d+)"
HUGGING_FACE_RULES: tuple[Rule, ...] = (
    (
        r"^backbone\.model\.embedder\.embedder\.(\d)",
        lambda m: f"backbone.conv1.conv1_{int(m[1]) + 1}",
    ),
    (
        rf"{_BLOCK}\.layer\.(\d)",
        lambda m: f"backbone.res_layers.{m[1]}.blocks.{m[2]}.branch2{'abc'[int(m[3])]}",
    ),
    (rf"{_BLOCK}\.shortcut\.1\.", r"backbone.res_layers.\1.blocks.\2.short.conv."),
    (rf"{_BLOCK}\.shortcut\.", r"backbone.res_layers.\1.blocks.\2.short."),
    (r"\.convolution\.", ".conv."),
    (r"\.normalization\.", ".norm."),
    (r"^encoder_input_proj\.", "encoder.input_proj."),
    (r"^decoder_input_proj\.", "decoder.input_proj."),
    (r"^((?:en|de)coder\.input_proj\.\d+)\.0\.", r"\1.conv."),
    (r"^((?:en|de)coder\.input_proj\.\d+)\.1\.", r"\1.norm."),
    (r"^encoder\.aifi\.", "encoder.encoder."),
    (r"^(encoder\..*)\.final_layer_norm\.", r"\1.norm2."),
    (r"\.self_attn_layer_norm\.", ".norm1."),
    (r"\.encoder_attn_layer_norm\.", ".norm2."),
    (r"\.final_layer_norm\.", ".norm3."),
    (r"\.encoder_attn\.", ".cross_attn."),
    (r"\.(?:mlp\.)?fc(\d)\.", r".linear\1."),
    (r"\.o_proj\.", ".out_proj."),
    (r"^decoder\.layers\.", "decoder.decoder.layers."),
    (r"^decoder\.class_embed\.", "decoder.dec_score_head."),
    (r"^decoder\.bbox_embed\.", "decoder.dec_bbox_head."),
    (r"^enc_output\.0\.", "decoder.enc_output.proj."),
    (r"^enc_output\.1\.", "decoder.enc_output.norm."),
    (r"^(denoising_class_embed|enc_score_head|enc_bbox_head)\.", r"decoder.\1."),
)

CLASS_HEAD = re.compile(
    r"^decoder\.(?:enc_score_head|dec_score_head\.\d+)\.(?:weight|bias)$"
    r"|^decoder\.denoising_class_embed\.weight$"
)
DENOISING = "decoder.denoising_class_embed.weight"
COUNTER = "num_batches_tracked"
"""Absent from converted files and from frozen batch norms, and of no effect on results."""
STAGE = re.compile(r"^(backbone\.(?:res_layers\.|layer))\d+\.")
CLASSIFIER = re.compile(r"^backbone\.fc\.")


def own_names(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """Translate a state dict of any known layout; returns whose it was, and name -> tensor.

    Names that no rule knows are kept, so that the caller can list them.
    """
    stripped = {PREFIX.sub("", name): tensor for name, tensor in state.items()}
    if any(name.startswith(("encoder_input_proj.", "backbone.model.")) for name in stripped):
        layout, rules = HUGGING_FACE, HUGGING_FACE_RULES
    elif "encoder.input_proj.0.0.weight" in stripped:
        layout, rules = OFFICIAL_V1, OFFICIAL_RULES
    else:
        layout, rules = OFFICIAL_V2, OFFICIAL_RULES
    renamed = {
        _rename(name, rules): tensor
        for name, tensor in stripped.items()
        if not DROPPED.search(name)
    }
    if renamed.keys() == state.keys():
        layout = OWN
    return layout, _pack_attention(renamed)


def _rename(name: str, rules: tuple[Rule, ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _pack_attention(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Join q_proj, k_proj and v_proj of an attention into one in_proj."""
    packed = dict(state)
    for name in state:
        if ".q_proj." not in name:
            continue
        parts = [name.replace(".q_proj.", f".{part}_proj.") for part in "qkv"]
        if all(part in packed for part in parts):
            joined = torch.cat([packed.pop(part) for part in parts])
            packed[name.replace(".q_proj.", ".in_proj_")] = joined
    return packed


def load_weights(
    model: nn.Module, path: Path, *, part: Literal["detector", "backbone"]
) -> LoadReport:
    """Copy a file's weights into the model.

    Args:
        model: an RTDETR.
        path: .pth or .safetensors; names as this package, NVIDIA TAO, the official RT-DETR (v1 and
            v2), Hugging Face (both generations), timm or torchvision write them. Averaged (EMA)
            weights are preferred where a checkpoint has both.
        part: `detector` fills the whole model. `backbone` fills model.backbone from a backbone's or
            a detector's file.

    Returns:
        What was loaded, and what was skipped and why: class heads of another number of classes, the
        denoising embedding when one side has none, a classifier, backbone stages that are not used.

    Raises:
        RequestError: the file cannot be read, or anything else is missing, left over or of another
            shape; the message lists it.
    """
    layout, state = own_names(read_state_dict(path))
    own = model.state_dict()
    if part == "backbone":
        own = {name: t for name, t in own.items() if name.startswith("backbone.")}
        in_detector = {name: t for name, t in state.items() if name.startswith("backbone.")}
        state = in_detector or {f"backbone.{name}": t for name, t in state.items()}
        layout = layout if in_detector else "backbone file's"
    fit = _Fit.of(state, own)
    if fit.problems():
        raise RequestError(f"{path} does not fit this model's {part}:\n" + fit.problems())
    model.load_state_dict(fit.usable, strict=False)
    return LoadReport(path, layout, len(fit.usable), tuple(fit.skipped))


@dataclass
class _Fit:
    """How a translated file and a model's tensors go together."""

    usable: dict[str, Tensor] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshaped: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> _Fit:
        fit = cls()
        for name, tensor in state.items():
            if name in own:
                fit._compare(name, tensor, own[name])
            elif not name.endswith(COUNTER):
                fit._left_over(name, own)
        for name in own:
            if name in state or name.endswith(COUNTER):
                continue
            if name == DENOISING:
                fit.skipped.append(f"{name}: not in the file, stays as initialised")
            else:
                fit.missing.append(name)
        return fit

    def _compare(self, name: str, theirs: Tensor, ours: Tensor) -> None:
        if theirs.shape == ours.shape:
            self.usable[name] = theirs
            return
        shapes = f"{list(theirs.shape)} in the file, {list(ours.shape)} in the model"
        if CLASS_HEAD.match(name) and theirs.shape[1:] == ours.shape[1:]:
            self.skipped.append(f"{name}: another number of classes ({shapes})")
        else:
            self.misshaped.append(f"{name}: {shapes}")

    def _left_over(self, name: str, own: Mapping[str, Tensor]) -> None:
        stage = STAGE.match(name)
        same_kind = stage and any(key.startswith(stage[1]) for key in own)
        if name == DENOISING:
            self.skipped.append(f"{name}: the model has no denoising (model.dn_number is 0)")
        elif CLASSIFIER.match(name):
            self.skipped.append(f"{name}: a classifier, not part of a backbone")
        elif stage and same_kind and not any(key.startswith(stage[0]) for key in own):
            self.skipped.append(f"{name}: a stage that model.return_interm_indices does not use")
        else:
            self.unexpected.append(name)

    def problems(self, shown: int = 10) -> str:
        """One paragraph per kind of misfit, at most `shown` names each; empty when it fits."""
        kinds = (
            ("missing from the file", self.missing),
            ("in the file but not in the model", self.unexpected),
            ("of another shape", self.misshaped),
        )
        lines = []
        for what, names in kinds:
            if names:
                lines.append(f"  {len(names)} tensors {what}:")
                lines += [f"    {name}" for name in names[:shown]]
                lines += [f"    … and {len(names) - shown} more"] * (len(names) > shown)
        if lines:
            lines.append(
                "  Check that model.backbone and the other model.* fields are those of the file."
            )
        return "\n".join(lines)
