"""Where images go in training, beside torchvision's transforms of the same names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.transforms import v2
from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat

from rtdetr_slurm.engine.datasets.geometry import Placement, crop, place

IMAGE = (64, 48)
BOXES = np.array([[4, 6, 30, 30], [35, 20, 60, 44], [20, 2, 28, 9.5]], np.float64)
SIZE = (80, 96)


def noise(size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    )


def draws(count: int, crop_probability: float) -> list[tuple[Placement, np.ndarray, np.ndarray]]:
    draw = np.random.default_rng(0)
    return [place(draw, IMAGE, BOXES, SIZE, 0.5, crop_probability) for _ in range(count)]


def theirs(boxes: np.ndarray, size: tuple[int, int]) -> BoundingBoxes:
    corners = torch.from_numpy(boxes)
    return BoundingBoxes(corners, format=BoundingBoxFormat.XYXY, canvas_size=size[::-1])


class TestPixels:
    def test_part_of_an_image_is_as_torchvision_resizes_it(self) -> None:
        image = noise(IMAGE)
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        placement = Placement((5, 3, 37, 40), (0, 0, *SIZE), SIZE, flipped=True)
        ours = np.asarray(placement.draw(image, 1)).astype(int)
        cut = v2.functional.resized_crop(tensor, 3, 5, 37, 32, [96, 80], antialias=True)
        expected = cut.flip(-1).permute(1, 2, 0).numpy()
        # At the edges ours sees what is beside the crop.
        assert np.abs(ours - expected)[3:-3, 3:-3].max() <= 1

    def test_around_an_image_there_is_black(self) -> None:
        placement = Placement((0, 0, *IMAGE), (10, 20, 42, 44), SIZE, flipped=False)
        drawn = np.asarray(placement.draw(Image.new("RGB", IMAGE, "white"), 1))
        assert (drawn[20:44, 10:42] == 255).all()
        assert drawn.sum(dtype=np.int64) == 255 * 3 * 24 * 32
        flipped = Placement((0, 0, *IMAGE), (10, 20, 42, 44), SIZE, flipped=True)
        assert flipped.shown == (38, 20, 70, 44)
        again = np.asarray(flipped.draw(Image.new("RGB", IMAGE, "white"), 1))
        assert (again == drawn[:, ::-1]).all()

    def test_only_what_is_wanted_is_decoded(self) -> None:
        def shrink(source: Sequence[int], target: Sequence[int]) -> int:
            return Placement((0, 0, *source), (0, 0, *target), SIZE, flipped=False).shrink

        assert shrink((319, 400), (80, 80)) == 1
        assert shrink((320, 400), (80, 80)) == 2
        assert shrink((4000, 3000), (80, 40)) == 8
        assert shrink((10, 10), (80, 96)) == 1

    def test_a_part_of_a_shrunk_image(self) -> None:
        smooth = noise((16, 12)).resize((256, 192), Image.Resampling.BICUBIC)
        placement = Placement((16, 20, 215, 171), (0, 0, 40, 30), (40, 30), flipped=False)
        half = smooth.reduce(2)
        assert placement.shrink == 2
        whole, part = (
            np.asarray(placement.draw(i, n)).astype(int) for i, n in ((smooth, 1), (half, 2))
        )
        assert np.abs(whole - part).max() <= 2


class TestBoxes:
    def test_follow_the_image(self) -> None:
        placement = Placement((10, 8, 42, 40), (20, 16, 52, 80), SIZE, flipped=False)
        boxes = np.array([[10, 8, 42, 40], [26, 24, 30, 28.0]])
        assert placement.move(boxes).tolist() == [[20, 16, 52, 80], [36, 48, 40, 56]]
        flipped = Placement(placement.source, placement.target, SIZE, flipped=True)
        assert flipped.move(boxes).tolist() == [[28, 16, 60, 80], [40, 48, 44, 56]]

    def test_stay_inside_and_large_enough(self) -> None:
        for placement, boxes, kept in draws(300, 0.8):
            left, top, right, bottom = placement.shown
            assert 0 <= left < right <= SIZE[0]
            assert 0 <= top < bottom <= SIZE[1]
            assert len(boxes) == kept.sum()
            assert (boxes >= np.array([left, top, left, top]) - 1e-6).all()
            assert (boxes <= np.array([right, bottom, right, bottom]) + 1e-6).all()
            assert (boxes[:, 2:] - boxes[:, :2] >= 1).all()

    def test_an_image_without_boxes_is_never_cropped(self) -> None:
        draw = np.random.default_rng(0)
        none = np.empty((0, 4))
        assert all(crop(draw, IMAGE, none)[0] == (0, 0, *IMAGE) for _ in range(20))
        placement, boxes, kept = place(draw, (1, 1), none, SIZE, 0.5, 1.0)
        assert (boxes.shape, kept.shape) == ((0, 4), (0,))
        assert placement.source == (0, 0, 1, 1)


class TestDistributions:
    """Two samples of the same distribution; draws of fixed seeds."""

    def alike(self, ours: Sequence[float], others: Sequence[float]) -> None:
        assert ks_2samp(ours, others).pvalue > 0.005

    def test_crops(self) -> None:
        draw, count = np.random.default_rng(1), 250
        torch.manual_seed(1)
        transform, target = v2.RandomIoUCrop(), theirs(BOXES, IMAGE)
        pixels = torch.zeros(3, *IMAGE[::-1])
        other: list[dict[str, Any]] = [
            transform.make_params([pixels, target]) for _ in range(count)
        ]
        found = [crop(draw, IMAGE, BOXES) for _ in range(4 * count)]
        windows = np.array([window for window, _ in found])
        whole = {"left": 0, "top": 0, "width": IMAGE[0], "height": IMAGE[1]}
        whole["is_within_crop_area"] = torch.ones(3)
        other = [one or whole for one in other]
        self.alike(windows[:, 0], [one["left"] for one in other])
        self.alike(windows[:, 1], [one["top"] for one in other])
        self.alike(windows[:, 2] - windows[:, 0], [one["width"] for one in other])
        self.alike(windows[:, 3] - windows[:, 1], [one["height"] for one in other])
        for box in range(3):
            inside = np.mean([kept[box] for _, kept in found])
            assert inside == pytest.approx(
                np.mean([float(one["is_within_crop_area"][box]) for one in other]), abs=0.1
            )

    def test_boxes(self) -> None:
        torch.manual_seed(2)
        pipeline = v2.Compose(
            [
                v2.RandomZoomOut(fill=0, p=0.5),
                v2.RandomApply([v2.RandomIoUCrop()], p=0.5),
                v2.SanitizeBoundingBoxes(min_size=1),
                v2.RandomHorizontalFlip(),
                v2.Resize(SIZE[::-1]),
                v2.SanitizeBoundingBoxes(min_size=1),
            ]
        )
        pixels, labels = torch.zeros(3, *IMAGE[::-1], dtype=torch.uint8), torch.arange(3)
        counts, sides = [], []
        for _ in range(200):
            _, found = pipeline(pixels, {"boxes": theirs(BOXES, IMAGE), "labels": labels})
            counts.append(len(found["labels"]))
            sides += found["boxes"].as_subclass(torch.Tensor).tolist()
        drawn = draws(800, 0.5)
        assert np.mean([kept.sum() for *_, kept in drawn]) == pytest.approx(
            np.mean(counts), abs=0.2
        )
        ours, others = np.concatenate([boxes for _, boxes, _ in drawn]), np.array(sides)
        for side in range(4):
            self.alike(ours[:, side], others[:, side])
        self.alike(ours[:, 2] - ours[:, 0], others[:, 2] - others[:, 0])
