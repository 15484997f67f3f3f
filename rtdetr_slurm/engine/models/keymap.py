"""Loading weights that are named in any way that spec/tensor_names.py knows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from rtdetr_slurm.engine.models.decoder import NUM_POINTS
from rtdetr_slurm.engine.models.weights import LoadReport, read_state_dict
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.spec.backbones import sides
from rtdetr_slurm.spec.tensor_names import (
    CLASSIFIER,
    COUNTER,
    POINTS_SCALE,
    backbone_tensor_names,
    own_tensor_names,
)

CLASS_HEAD = re.compile(
    r"^decoder\.(?:enc_score_head|dec_score_head\.\d+)\.(?:weight|bias)$"
    r"|^decoder\.denoising_class_embed\.weight$"
)
DENOISING = "decoder.denoising_class_embed.weight"
STAGE = re.compile(
    r"backbone\.(?:(?:res_layers\.|layer|stages_|levels\.|blocks\.)\d+"
    r"|patch_embed\.(?:proj|backbone\.stages\.1)"
    r"|pos_embed|cls_attn_blocks|learnable_downsample)\."
)
"""Modules that are built only where the stages are read that need them."""
FOR_DETECTION = re.compile(r"backbone\.(?:levels|learnable_downsample)\.")
"""What detectors have in their backbones, and classifiers have not."""


def own_names(
    state: Mapping[str, Tensor], part: Literal["detector", "backbone"] = "detector"
) -> tuple[str, dict[str, Tensor]]:
    """Translate a state dict of any known layout; returns whose it was, and name -> tensor.

    Names that no rule knows are kept, so that the caller can list them.

    Args:
        part: a `backbone` has nothing in front of its names.
    """
    layout, names = (backbone_tensor_names if part == "backbone" else own_tensor_names)(state)
    return layout, _pack_attention({own: state[name] for name, own in names.items()})


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


def unpacked(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of ours with q_proj, k_proj and v_proj in place of each in_proj."""
    apart = {}
    for name, tensor in state.items():
        if ".in_proj_" not in name:
            apart[name] = tensor
            continue
        for part, piece in zip("qkv", tensor.chunk(3), strict=True):
            apart[name.replace(".in_proj_", f".{part}_proj.")] = piece
    return apart


def load_weights(
    model: nn.Module,
    path: Path,
    *,
    part: Literal["detector", "backbone"],
    key: str | None = None,
) -> LoadReport:
    """Copy a file's weights into the model.

    Args:
        model: an RTDETR.
        path: .pth or .safetensors; names as this package, NVIDIA TAO, the official RT-DETR (v1 and
            v2), Hugging Face (both generations), timm or torchvision write them. Averaged (EMA)
            weights are preferred where a checkpoint has both.
        part: `detector` fills the whole model. `backbone` fills model.backbone from a backbone's or
            a detector's file.
        key: of a checkpoint that is encrypted.

    Returns:
        What was loaded, and what was skipped and why: class heads of another number of classes, the
        denoising embedding when one side has none, a classifier, backbone stages that are not used.

    Raises:
        RequestError: the file cannot be read, or anything else is missing, left over or of another
            shape; the message lists it.
    """
    there = read_state_dict(path, key)
    layout, state = own_names(there, part)
    own = model.state_dict()
    if part == "detector":
        _refuse_other_points(there, path)
    else:
        own, state = (
            {name: tensor for name, tensor in all_of_it.items() if name.startswith("backbone.")}
            for all_of_it in (own, state)
        )
    fit = _Fit.of(state, own, part)
    if fit.problems():
        raise RequestError(f"{path} does not fit this model's {part}:\n" + fit.problems())
    model.load_state_dict(fit.usable, strict=False)
    return LoadReport(path, layout, len(fit.usable), tuple(fit.skipped))


def _refuse_other_points(state: Mapping[str, Tensor], path: Path) -> None:
    """RT-DETRv2 can sample other numbers of points on each level, as many in all, so that shapes
    alone do not tell."""
    for name, tensor in state.items():
        if POINTS_SCALE.search(name) and not torch.all(tensor * NUM_POINTS == 1):
            counts = sorted({round(1 / scale) for scale in tensor.tolist() if scale > 0})
            raise RequestError(
                f"{path}: its decoder samples {' or '.join(map(str, counts))} points on a level "
                f"({name}); allowed: {NUM_POINTS} on each, which is all that this version has"
            )


@dataclass
class _Fit:
    """How a translated file and a model's tensors go together."""

    usable: dict[str, Tensor] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshaped: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        state: Mapping[str, Tensor],
        own: Mapping[str, Tensor],
        part: Literal["detector", "backbone"],
    ) -> _Fit:
        fit = cls()
        for name, tensor in state.items():
            if name in own:
                fit._compare(name, tensor, own[name])
            elif not name.endswith(COUNTER):
                fit._left_over(name)
        for name in own:
            if name in state or name.endswith(COUNTER):
                continue
            if name == DENOISING or (part == "backbone" and FOR_DETECTION.match(name)):
                fit.skipped.append(f"{name}: not in the file, stays as initialised")
            else:
                fit.missing.append(name)
        fit._pass_over_stages(own)
        return fit

    def _compare(self, name: str, theirs: Tensor, ours: Tensor) -> None:
        if sides(theirs.shape) == sides(ours.shape):
            # ConvNeXt's pointwise layers are linear here and 1x1 convolutions there.
            self.usable[name] = theirs.reshape(ours.shape)
            return
        shapes = f"{list(theirs.shape)} in the file, {list(ours.shape)} in the model"
        if CLASS_HEAD.match(name) and theirs.shape[1:] == ours.shape[1:]:
            self.skipped.append(f"{name}: another number of classes ({shapes})")
        else:
            self.misshaped.append(f"{name}: {shapes}")

    def _left_over(self, name: str) -> None:
        if name == DENOISING:
            self.skipped.append(f"{name}: the model has no denoising (model.dn_number is 0)")
        elif CLASSIFIER.match(name):
            self.skipped.append(f"{name}: a classifier, not part of a backbone")
        else:
            self.unexpected.append(name)

    def _pass_over_stages(self, own: Mapping[str, Tensor]) -> None:
        """Where all that the model has is in the file, whole stages may be left over."""
        if self.missing or not self.usable:
            return
        for name in self.unexpected[:]:
            stage = STAGE.match(name)
            if stage and not any(key.startswith(stage[0]) for key in own):
                self.unexpected.remove(name)
                self.skipped.append(
                    f"{name}: a stage that model.return_interm_indices does not use"
                )

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
