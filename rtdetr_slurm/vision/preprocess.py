"""Image to network input: the one definition for validation, evaluation and deployment.

The network's input is RGB in 0..1, resized to a fixed size without keeping the aspect ratio
(bilinear with antialiasing), without mean or standard deviation. Pillow does the resizing here;
torchvision's antialiased resize of uint8 images, which training uses, agrees with it within one
grey level.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor


def resize(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] to uint8 [height, width, 3] for `size` = (height, width)."""
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized)


def to_pixels(image: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
    """uint8 [H, W, 3] to uint8 [3, height, width], resized."""
    return torch.from_numpy(resize(image, size).copy()).permute(2, 0, 1)


def to_unit_range(images: Tensor) -> Tensor:
    """uint8 [B, 3, H, W] to float32 in 0..1, on whatever device they are."""
    return images.float().div_(255)


def preprocess(image: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
    """One RGB image, uint8 [H, W, 3], to a float32 input [1, 3, height, width] in 0..1."""
    return to_unit_range(to_pixels(image, size)[None])
