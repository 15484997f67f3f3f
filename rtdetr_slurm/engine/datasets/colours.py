"""Distortion of colours in training, after RT-DETR's recipe: drawn where images are loaded, done on
the device, for a whole batch at once.

What torchvision's RandomPhotometricDistort does to the whole image before anything else:
brightness, contrast, saturation, hue, an order of the channels. Each of these is done to a pixel by
itself, so that it makes no difference which part of the image is left by then; contrast, which is
around the mean grey of the whole image, is given that mean. What lies around the image stays black.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rtdetr_slurm.engine.datasets.geometry import Rectangle
from rtdetr_slurm.vision.preprocess import as_tensor, to_unit_range

BRIGHTNESS = (0.875, 1.125)
CONTRAST = (0.5, 1.5)
SATURATION = (0.5, 1.5)
HUE = (-0.05, 0.05)
"""In turns of the circle of hues."""

SAMPLE = (64, 64)
"""Pixels of an image, evenly spread, by which its mean grey is known to a quarter of a level."""

_GREY = (0.2989, 0.587, 0.114)


def draw_colours(
    draw: np.random.Generator, probability: float, image: Image.Image, seen: Rectangle
) -> Tensor:
    """Draw a distortion.

    Args:
        probability: of each of its five parts.
        image: the whole image, RGB.
        seen: where its part of the network's input is; around it there is black.

    Returns:
        float32 [14]: factors of brightness and first contrast, the grey that is around; factor of
        saturation, shift of hue; factor of last contrast, the grey that is around; the order of the
        channels, three numbers; `seen`.
    """
    brightness, contrast, saturation, hue = (
        draw.uniform(*limits) if draw.random() < probability else neutral
        for limits, neutral in ((BRIGHTNESS, 1.0), (CONTRAST, 1.0), (SATURATION, 1.0), (HUE, 0.0))
    )
    first = draw.random() < 0.5
    order = draw.permutation(3) if draw.random() < probability else np.arange(3)
    grey = 0.0
    if contrast != 1:
        pixels = to_unit_range(as_tensor(image.resize(SAMPLE, Image.Resampling.NEAREST))[None])
        pixels = pixels.contiguous().mul_(brightness).clamp_(0, 1)
        if not first:
            _blend(pixels, _grey(pixels), torch.tensor(saturation))
            _turn_hue(pixels, torch.tensor(hue))
        grey = float(_grey(pixels).mean())
    contrasts = [contrast, grey, 1.0, 0.0] if first else [1.0, 0.0, contrast, grey]
    return torch.tensor(
        [brightness, *contrasts[:2], saturation, hue, *contrasts[2:], *order, *seen],
        dtype=torch.float32,
    )


def distort(images: Tensor, colours: Tensor) -> Tensor:
    """Do to each image what was drawn for it.

    Args:
        images: float32 [B, 3, H, W] in 0..1, which may be overwritten.
        colours: float32 [B, 14], of `draw_colours`; [B, 0]: there is nothing to do.

    Returns:
        float32 [B, 3, H, W] in 0..1.
    """
    if not colours.shape[-1]:
        return images
    images = images.contiguous()
    if images.is_cpu:  # one by one, so that what lies in between stays in the processor's cache
        for image, its in zip(images.split(1), colours.split(1), strict=True):
            _distort(image, its)
    else:
        _distort(images, colours)
    return images


def _distort(images: Tensor, colours: Tensor) -> None:
    factors = colours[:, :7, None, None, None].unbind(1)
    brightness, first, first_grey, saturation, hue, last, last_grey = factors
    images.mul_(brightness).clamp_(0, 1)
    _blend(images, first_grey, first)
    _blend(images, _grey(images), saturation)
    _turn_hue(images, hue)
    _blend(images, last_grey, last)
    order = colours[:, 7:10].long() + 3 * torch.arange(len(images), device=images.device)[:, None]
    planes = images.flatten(0, 1)
    planes.copy_(planes.index_select(0, order.flatten()))
    left, top, right, bottom = colours[:, 10:, None].unbind(1)
    images.mul_(_between(top, bottom, images.shape[2])[:, None, :, None])
    images.mul_(_between(left, right, images.shape[3])[:, None, None, :])


def _between(start: Tensor, end: Tensor, length: int) -> Tensor:
    """1 from `start` [B, 1] to `end`, and 0 elsewhere: [B, length]."""
    positions = torch.arange(length, dtype=start.dtype, device=start.device)
    return ((positions >= start) & (positions < end)).to(start.dtype)


def _grey(images: Tensor) -> Tensor:
    """[B, 3, H, W] to [B, 1, H, W]."""
    red, green, blue = images.split(1, dim=1)
    grey: Tensor = (red * _GREY[0]).add_(green, alpha=_GREY[1]).add_(blue, alpha=_GREY[2])
    return grey


def _blend(images: Tensor, other: Tensor, share: Tensor) -> None:
    """`share` of the images, and the rest of another; in place."""
    images.mul_(share).add_(other * (1 - share)).clamp_(0, 1)


def _turn_hue(images: Tensor, shift: Tensor) -> None:
    """Move the hue of each pixel around the circle, in place; saturation and value (HSV) stay."""
    red, green, blue = images.split(1, dim=1)
    least = torch.minimum(torch.minimum(red, green), blue)
    chroma = torch.maximum(torch.maximum(red, green), blue).sub_(least)
    # Sixths of the circle from cyan, 3 is red: up to it over blue, and down to -3 over green.
    hue = (red - green).sub_(blue).add_(least).div_(chroma.clamp(min=1e-6)).add_(2)
    hue = hue.copysign_(blue - green).add_(6 * shift)
    hue.sub_(hue.div(6).round_(), alpha=6)
    shares = (hue.abs().sub_(1), 2 - (hue + 1).abs_(), 2 - (hue - 1).abs_())
    for colour, share in zip((red, green, blue), shares, strict=True):
        torch.addcmul(least, share.clamp_(0, 1), chroma, out=colour)
