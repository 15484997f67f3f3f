"""Four images in one."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import maximum_filter
from table_support import break_image, make_table, table  # noqa: F401

from rtdetr_slurm.engine.datasets.mosaic import Tile, draw_mosaic, join
from rtdetr_slurm.engine.datasets.training_set import TrainingSet
from rtdetr_slurm.engine.datasets.transforms import Augment
from rtdetr_slurm.engine.recipe import Recipe
from rtdetr_slurm.spec.dataset import AugmentationConfig
from rtdetr_slurm.vision.boxes import cxcywh_to_xyxy
from rtdetr_slurm.vision.samples import Sample
from rtdetr_slurm.vision.table import Table

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)

SIZE = (96, 64)
DENSE = Recipe("deim", 60)
COLOURS = ["red", "lime", "blue", "white"]


def data_of(table: Table, *, replace_bad: bool = False, **augmentation: float) -> TrainingSet:
    cfg = AugmentationConfig(train_spatial_size=[SIZE[1], SIZE[0]], **augmentation)
    plain = Augment(cfg, plain=True)
    return TrainingSet(table, Augment(cfg), 0, replace_bad=replace_bad, recipe=DENSE, plain=plain)


class TestTiles:
    def test_fill_the_input_without_gaps(self) -> None:
        """Four colours, however they are scaled and moved, are one rectangle with nothing in it
        that is of none."""
        draw = np.random.default_rng(0)
        for _ in range(50):
            tiles = draw_mosaic(draw, SIZE)
            images = [Image.new("RGB", (40, 30), colour) for colour in COLOURS]
            placements = [tile.place((40, 30)) for tile in tiles]
            parts = [p.part(image, 1) for p, image in zip(placements, images, strict=True)]
            whole, shown = join(list(zip(placements, parts, strict=True)))
            assert (np.asarray(whole.crop(shown)).max(-1) == 255).all()
            pixels = np.asarray(whole).max(-1) == 255
            assert pixels.sum() == (shown[2] - shown[0]) * (shown[3] - shown[1])

    def test_what_is_drawn(self) -> None:
        draw = np.random.default_rng(0)
        drawn = [draw_mosaic(draw, (1000, 1000)) for _ in range(2000)]
        meetings = np.array([tiles[0].target[2:] for tiles in drawn]) / 1000
        np.testing.assert_allclose([meetings.min(), meetings.max()], [0.4, 0.6], atol=0.005)
        assert np.mean([tiles[0].flipped for tiles in drawn]) == pytest.approx(0.5, abs=0.05)
        small = [t[0].target[2] - t[0].target[0] for t in drawn if t[0].seen[0] == 0]
        assert min(small) == pytest.approx(250, abs=5)  # half of a quarter's side

    @pytest.mark.parametrize("flipped", [False, True])
    def test_boxes_go_where_their_image_goes(self, flipped: bool) -> None:
        """The right half of an image of 40 x 30 in the top left quarter of the input."""
        tile = Tile((0.5, 0.0, 1.0, 1.0), (0, 0, 48, 32), SIZE, flipped)
        boxes = np.array([[24.0, 6, 36, 24], [0, 0, 19, 30], [10, 0, 30, 15]])
        moved, kept = tile.place((40, 30)).move_seen(boxes)
        assert kept.tolist() == [True, False, True]  # the second is all outside
        first, third = [9.6, 6.4, 38.4, 25.6], [0, 0, 24, 16]  # the third is cut off at 20
        if flipped:
            first, third = [96 - 38.4, 6.4, 96 - 9.6, 25.6], [72, 0, 96, 16]
        np.testing.assert_allclose(moved[kept], [first, third])


class TestSamples:
    def test_boxes_follow_their_objects(self, tmp_path: Path) -> None:
        """A white square on black in each image: wherever it goes, its box goes."""
        (tmp_path / "images").mkdir()
        content: dict[str, list[object]] = {"images": [], "annotations": []}
        for number, (x, y) in enumerate(product((16, 60), (12, 40))):
            pixels = np.zeros((80, 120, 3), np.uint8)
            pixels[y : y + 28, x : x + 40] = 255
            Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
            content["images"].append({"id": number, "file_name": f"{number}.png"})
            box = {"image_id": number, "category_id": 1, "bbox": [x, y, 40, 28]}
            content["annotations"].append(box)
        categories = [{"id": 1, "name": "a"}]
        (tmp_path / "annotations.json").write_text(json.dumps(content | {"categories": categories}))
        data = data_of(make_table(tmp_path), distortion_prob=0, iou_crop_prob=0)
        mosaics = 0
        for epoch in DENSE.dense:
            sample = data[epoch, 1]
            covered = np.zeros(SIZE[::-1], bool)
            for box in cxcywh_to_xyxy(sample.boxes) * torch.tensor([*SIZE, *SIZE]):
                left, top, right, bottom = box.round().int().tolist()
                covered[top:bottom, left:right] = True
                inside = sample.pixels[0, top + 1 : bottom - 1, left + 1 : right - 1]
                assert (inside > 200).all()
            near = maximum_filter(covered, 5)
            assert (sample.pixels[0].numpy()[~near] < 60).all()
            mosaics += len(sample.boxes) > 1
        assert 8 < mosaics < 22

    def test_is_a_function_of_seed_epoch_and_image(self, table: Table) -> None:
        one, again = data_of(table), data_of(table)
        for epoch in (DENSE.dense.start, DENSE.dense.start + 1):
            samples = [one[epoch, image] for image in range(10)]
            for image in reversed(range(10)):
                other = again[epoch, image]
                assert torch.equal(samples[image].pixels, other.pixels)
                assert torch.equal(samples[image].boxes, other.boxes)
                assert torch.equal(samples[image].colours, other.colours)

    def test_weights_say_what_it_is_made_of(self, table: Table) -> None:
        data = data_of(table, distortion_prob=0)
        data.weights = np.eye(10)[4]
        only = [break_image(table, image) for image in range(10) if image not in (3, 4)]
        samples = [data[epoch, 3] for epoch in DENSE.dense]
        assert len(only) == 8
        assert all(not sample.bad for sample in samples)

    def test_plain_epochs_are_flipped_and_resized(self, table: Table) -> None:
        sample = data_of(table)[59, 0]
        assert not sample.colours.numel()
        whole = Image.open(table.path(0)).convert("RGB").resize(SIZE, Image.Resampling.BILINEAR)
        upright = torch.from_numpy(np.array(whole)).permute(2, 0, 1)
        assert any(torch.equal(sample.pixels, one) for one in (upright, upright.flip(-1)))
        assert len(sample.boxes) == table.rows(0).stop


class TestBadImages:
    def mosaic_with(self, data: TrainingSet, bad: str) -> Sample:
        """The first sample of a good image that meets a bad one."""
        samples = (data[epoch, 0] for epoch in DENSE.dense)
        return next(sample for sample in samples if bad in [one.path for one in sample.bad])

    def test_the_next_good_one_takes_its_place(self, table: Table) -> None:
        broken = break_image(table, 4)
        sample = self.mosaic_with(data_of(table, replace_bad=True), broken)
        assert sample.pixels.shape == (3, SIZE[1], SIZE[0])
        assert sample.pixels.any()

    def test_without_replacement_it_is_named(self, table: Table) -> None:
        broken = break_image(table, 4)
        assert not self.mosaic_with(data_of(table), broken).pixels.numel()
