"""Names of tensors in published weights of backbones, and in this engine's. Pure.

Ours are those of timm's feature extractors, which call `stages.0` stages_0 and `stem.0` stem_0.
What differs elsewhere:

========================================  =======================================================
timm's whole networks                     a dot there
ConvNeXt's authors, EdgeNeXt's, TAO       `downsample_layers`, `dwconv`, `pwconv1`, `grn` in blocks
torchvision's ConvNeXt                    `features.0` to `features.7`
EfficientViT's authors, TAO               `input_stem` (B), `op_list`; L counts its stem as stage 0
TAO's detectors                           `conv_512`, `norm1`, `out_norm1` behind the stages
========================================  =======================================================

ResNets have the same names everywhere, and FAN's are those of its authors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_LEVELS_OF_CONVS = {"512": "1", "1024": "2", "2048": "3"}
_TORCHVISION_PARTS = {
    "block.0": "conv_dw",
    "block.2": "norm",
    "block.3": "mlp.fc1",
    "block.5": "mlp.fc2",
    "layer_scale": "gamma",
}
_INPUT_STEM = "input_stem."

_LARGE = (
    (r"^stages\.0\.op_list\.", r"input_stem.op_list."),
    *((rf"^stages\.{n + 1}\.op_list\.", rf"stages_{n}.blocks.") for n in range(4)),
)
_SAME_EVERYWHERE = (
    (r"^input_stem\.op_list\.0\.", r"stem_in_conv."),
    *((rf"^input_stem\.op_list\.{n + 1}\.", rf"stem_res{n}.") for n in range(8)),
    (r"^stages\.(\d)\.op_list\.", r"stages_\1.blocks."),
    (r"^downsample_layers\.0\.", "stem_"),
    (r"^downsample_layers\.(\d)\.", r"stages_\1.downsample."),
    (r"^features\.0\.", "stem_"),
    *((rf"^features\.{2 * n}\.", rf"stages_{n}.downsample.") for n in range(1, 4)),
    *((rf"^features\.{2 * n + 1}\.", rf"stages_{n}.blocks.") for n in range(4)),
    *(
        (rf"^(stages_\d\.blocks\.\d+)\.{re.escape(theirs)}\b", rf"\1.{ours}")
        for theirs, ours in _TORCHVISION_PARTS.items()
    ),
    (r"^stages\.(\d)\.(?=\d)", r"stages_\1.blocks."),
    (r"^stages\.(\d)\.", r"stages_\1."),
    (r"^stem\.", "stem_"),
    (r"^(stages_\d\.blocks\.\d+)\.dwconv\.", r"\1.conv_dw."),
    (r"^(stages_\d\.blocks\.\d+)\.pwconv(\d)\.", r"\1.mlp.fc\2."),
    (r"^(stages_\d\.blocks\.\d+)\.grn\.(?:gamma|weight)$", r"\1.mlp.grn.weight"),
    (r"^(stages_\d\.blocks\.\d+)\.grn\.(?:beta|bias)$", r"\1.mlp.grn.bias"),
    *((rf"^conv_{width}\.", f"levels.{stage}.") for width, stage in _LEVELS_OF_CONVS.items()),
    (r"^(?:out_)?norm([0-3])\.", r"levels.\1."),
)
"""In this order, each on what the one before has left."""


def own_backbone_names(names: Iterable[str]) -> dict[str, str]:
    """Names of a backbone's tensors, without anything in front → ours; unknown ones stay."""
    given = list(names)
    large = not any(name.startswith(_INPUT_STEM) for name in given)
    rules = [
        (re.compile(pattern), replacement)
        for pattern, replacement in (*(_LARGE if large else ()), *_SAME_EVERYWHERE)
    ]
    found = {}
    for name in given:
        own = name
        for pattern, replacement in rules:
            own = pattern.sub(replacement, own)
        found[name] = own
    return found
