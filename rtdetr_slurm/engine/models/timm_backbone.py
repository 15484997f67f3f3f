"""Plain ResNet backbones, from timm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from rtdetr_slurm.engine.models.activation_checkpoint import checkpointed
from rtdetr_slurm.installed import without


class TimmBackbone(nn.Module):
    """A timm network cut into its stages; module names are timm's (and torchvision's).

    Args:
        name: timm's model name, for example `resnet50`.
        return_indices: which of the four stages (0..3, strides 4..32) to return, ascending.
        activation_checkpoint: recompute the stages in the backward pass.
    """

    def __init__(
        self, name: str, return_indices: Sequence[int], activation_checkpoint: bool = False
    ) -> None:
        super().__init__()
        with without("wandb"):  # timm imports it wherever it is installed
            import timm  # takes seconds to import, and only these backbones need it

        # Feature 0 is the stem's output, so stage i is feature i + 1.
        features = timm.create_model(
            name, pretrained=False, features_only=True, out_indices=[i + 1 for i in return_indices]
        )
        info: Any = features.feature_info
        self.channels: list[int] = info.channels()
        self.strides: list[int] = info.reduction()
        self.activation_checkpoint = activation_checkpoint
        self.returned = {f"layer{i + 1}" for i in return_indices}
        for child_name, child in features.named_children():
            self.add_module(child_name, child)
        for module in self.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False

    def stem(self) -> list[nn.Module]:
        """The modules before the first stage."""
        return [child for name, child in self.named_children() if not name.startswith("layer")]

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W] to one map [B, channels[i], H/strides[i], W/strides[i]] per level."""
        x = images
        maps = []
        for name, module in self.named_children():
            again = self.activation_checkpoint and self.training and name.startswith("layer")
            x = checkpointed(module, x) if again else module(x)
            if name in self.returned:
                maps.append(x)
        return maps
