"""Colours in training, beside torchvision's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from rtdetr_slurm.engine.datasets.colours import _distort, distort, draw_colours

WHOLE = (0, 0, 80, 60)


def image() -> Image.Image:
    """Smooth, with dark, bright and grey parts."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    pixels[0] = pixels[0, :, :1]
    return Image.fromarray(pixels).resize((80, 60), Image.Resampling.BICUBIC)


def as_batch(one: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(one)).permute(2, 0, 1)[None] / 255


def torchvision(pixels: Tensor, colours: Tensor) -> Tensor:
    brightness, first, _, saturation, hue, last, _, *rest = colours.tolist()
    pixels = F.adjust_contrast(F.adjust_brightness(pixels, brightness), first)
    pixels = F.adjust_hue(F.adjust_saturation(pixels, saturation), hue)
    return F.permute_channels(F.adjust_contrast(pixels, last), [int(n) for n in rest[:3]])


def drawn(count: int, probability: float) -> Tensor:
    draw = np.random.default_rng(0)
    return torch.stack([draw_colours(draw, probability, image(), WHOLE) for _ in range(count)])


def test_the_same_as_torchvision() -> None:
    """Up to the mean grey, which is known from a part of the pixels."""
    colours = drawn(40, 0.8)
    ours = distort(as_batch(image()).repeat(40, 1, 1, 1), colours)
    for number, found in enumerate(ours):
        expected = torchvision(as_batch(image())[0], colours[number])
        assert (found - expected).abs().max() < 0.5 / 255


def test_a_whole_batch_at_once_as_on_a_gpu() -> None:
    colours = drawn(6, 0.8)
    batch = as_batch(image()).repeat(6, 1, 1, 1)
    one_by_one = distort(batch.clone(), colours)
    _distort(batch, colours)
    torch.testing.assert_close(batch, one_by_one, atol=1e-6, rtol=0)


def test_each_part_alone() -> None:
    """Exactly, where contrast is around the grey that torchvision finds."""
    neutral = [1, 1, 0, 1, 0, 1, 0, 0, 1, 2, *WHOLE]
    grey = float(F.rgb_to_grayscale(as_batch(image())).mean())
    changes = [
        {},
        {0: 1.125},
        {1: 0.5, 2: grey},
        {3: 1.5},
        {4: -0.05},
        {5: 1.5, 6: grey},
        {7: 2, 9: 0},
    ]
    for change in changes:
        values = [change.get(column, value) for column, value in enumerate(neutral)]
        colours = torch.tensor([values], dtype=torch.float32)
        expected = torchvision(as_batch(image())[0], colours[0])
        torch.testing.assert_close(
            distort(as_batch(image()), colours)[0], expected, atol=2e-6, rtol=0
        )


def test_what_is_drawn() -> None:
    colours = drawn(400, 0.8)
    brightness, first, _, saturation, hue, last, _, *order = colours[:, :10].unbind(1)
    contrast = first * last
    for values, low, high, neutral in (
        (brightness, 0.875, 1.125, 1),
        (contrast, 0.5, 1.5, 1),
        (saturation, 0.5, 1.5, 1),
        (hue, -0.05, 0.05, 0),
    ):
        assert low <= float(values.min()) < low + 0.1 * (high - low)
        assert high >= float(values.max()) > high - 0.1 * (high - low)
        assert float((values == neutral).float().mean()) == pytest.approx(0.2, abs=0.06)
        assert float(values[values != neutral].mean()) == pytest.approx(neutral, abs=0.1)
    assert not ((first != 1) & (last != 1)).any()
    assert float((first != 1).float().mean()) == pytest.approx(0.4, abs=0.08)
    orders = torch.stack(order, 1)
    assert len(orders.unique(dim=0)) == 6
    assert float((orders == torch.arange(3)).all(1).float().mean()) == pytest.approx(
        0.2 + 0.8 / 6, abs=0.07
    )


def test_around_the_image_it_stays_black() -> None:
    draw = np.random.default_rng(3)
    colours = torch.stack([draw_colours(draw, 1.0, image(), (20, 10, 50, 40)) for _ in range(8)])
    batch = torch.zeros(8, 3, 60, 80)
    batch[..., 10:40, 20:50] = torch.rand(8, 3, 30, 30)
    found = distort(batch.contiguous(memory_format=torch.channels_last), colours)
    inside = found[..., 10:40, 20:50].sum()
    assert found.sum() == pytest.approx(float(inside), rel=1e-6)
    assert (found.amax(dim=(1, 2, 3)) > 0.5).all()


def test_nothing_to_do() -> None:
    pixels = as_batch(image())
    assert distort(pixels, torch.empty(1, 0)) is pixels
