"""Image to network input: the one definition for validation, evaluation and deployment.

The network's input is RGB in 0..1 without mean or standard deviation, of a fixed size: the image is
stretched to it, or keeps its aspect ratio, is as large as fits into it, and leaves the right or the
bottom black. Bilinear with antialiasing by Pillow, in training as well; torchvision's antialiased
resize of uint8 images agrees with it within one grey level.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

FILTER = Image.Resampling.BILINEAR


@dataclass(frozen=True)
class Resize:
    """How an image becomes a network's input.

    Attributes:
        size: (height, width) of the input in pixels.
        preserve_aspect_ratio: scale both sides alike and fill up with black, else stretch.
    """

    size: tuple[int, int]
    preserve_aspect_ratio: bool = False

    def shown(self, sizes: Tensor) -> Tensor:
        """Where images are in the input: from its left top corner to here.

        Args:
            sizes: [B, 2], their width and height in pixels.

        Returns:
            float64 [B, 2]: whole pixels, one at least; the side that limits is that of the input.
        """
        whole = sizes.new_tensor(self.size[::-1], dtype=torch.float64)
        if not self.preserve_aspect_ratio:
            return whole.expand(len(sizes), 2)
        sizes = sizes.double()
        # As quotients of whole numbers: the side that limits comes out whole.
        by_width = (sizes * whole[0] / sizes[:, :1]).round()
        by_height = (sizes * whole[1] / sizes[:, 1:]).round()
        wide = sizes[:, :1] * whole[1] >= sizes[:, 1:] * whole[0]
        return torch.where(wide, by_width, by_height).clamp(min=1)

    def extents(self, sizes: Tensor) -> Tensor:
        """Width and height of the whole input, [B, 2], in pixels of the images: coordinates in 0..1
        times these are coordinates in the image.

        Args:
            sizes: [B, 2], width and height of the images in pixels.
        """
        whole = sizes.new_tensor(self.size[::-1], dtype=torch.float64)
        return sizes.double() * whole / self.shown(sizes)

    def to_pixels(self, image: Image.Image) -> Tensor:
        """An RGB image to uint8 [3, height, width]."""
        height, width = self.size
        shown = self.shown(torch.tensor([image.size]))[0].long().tolist()
        if image.size != (*shown,):
            image = image.resize((*shown,), FILTER)
        if image.size != (width, height):
            whole = Image.new("RGB", (width, height))
            whole.paste(image)
            image = whole
        return as_tensor(image)


def as_tensor(image: Image.Image) -> Tensor:
    """An RGB image as uint8 [3, H, W]; in memory the colours of a pixel are neighbours."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def to_unit_range(images: Tensor) -> Tensor:
    """uint8 [B, 3, H, W] to float32 in 0..1, on whatever device they are."""
    return images.float().div_(255)


def preprocess(image: NDArray[np.uint8], resize: Resize) -> Tensor:
    """One RGB image, uint8 [H, W, 3], to a float32 input [1, 3, height, width] in 0..1."""
    return to_unit_range(resize.to_pixels(Image.fromarray(image))[None])
