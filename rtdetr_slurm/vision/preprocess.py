"""Image to network input: the one definition for validation, evaluation and deployment.

The network's input is RGB in 0..1, resized to a fixed size without keeping the aspect ratio
(bilinear with antialiasing), without mean or standard deviation. Pillow does the resizing, in
training as well; torchvision's antialiased resize of uint8 images agrees with it within one grey
level.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

FILTER = Image.Resampling.BILINEAR


def to_pixels(image: Image.Image, size: tuple[int, int]) -> Tensor:
    """An RGB image to uint8 [3, height, width] for `size` = (height, width), resized."""
    height, width = size
    fits = image.size == (width, height)
    return as_tensor(image if fits else image.resize((width, height), FILTER))


def as_tensor(image: Image.Image) -> Tensor:
    """An RGB image as uint8 [3, H, W]; in memory the colours of a pixel are neighbours."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def to_unit_range(images: Tensor) -> Tensor:
    """uint8 [B, 3, H, W] to float32 in 0..1, on whatever device they are."""
    return images.float().div_(255)


def preprocess(image: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
    """One RGB image, uint8 [H, W, 3], to a float32 input [1, 3, height, width] in 0..1."""
    return to_unit_range(to_pixels(Image.fromarray(image), size)[None])
