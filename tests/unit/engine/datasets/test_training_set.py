"""Augmented training samples."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from table_support import break_image, make_table, table  # noqa: F401

from rtdetr_slurm.engine.datasets.training_set import TrainingSet
from rtdetr_slurm.engine.datasets.transforms import Augment
from rtdetr_slurm.spec.dataset import AugmentationConfig
from rtdetr_slurm.vision.samples import Sample, collate
from rtdetr_slurm.vision.table import Table

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)


AUGMENTATION = AugmentationConfig(train_spatial_size=[64, 96])


class TestAugmentation:
    def samples(self, table: Table, seed: int, epoch: int) -> list[Sample]:
        data = TrainingSet(table, Augment(AUGMENTATION), seed, replace_bad=False)
        return [data[epoch, image] for image in range(len(table))]

    def test_is_a_function_of_seed_epoch_and_image(self, table: Table) -> None:
        first = self.samples(table, 1, 0)
        torch.manual_seed(123)  # the state outside does not matter, nor does the order
        again = TrainingSet(table, Augment(AUGMENTATION), 1, replace_bad=False)[0, 6]
        assert torch.equal(first[6].pixels, again.pixels)
        assert torch.equal(first[6].boxes, again.boxes)
        for other in (self.samples(table, 2, 0), self.samples(table, 1, 1)):
            same = [torch.equal(a.pixels, b.pixels) for a, b in zip(first, other, strict=True)]
            assert sum(same) <= 1

    def test_an_image_that_comes_again_is_augmented_anew(self, table: Table) -> None:
        data = TrainingSet(table, Augment(AUGMENTATION), 1, replace_bad=False)
        once, again = data[0, 6], data[0, 16]
        assert (once.image, again.image) == (6, 6)
        assert not torch.equal(once.pixels, again.pixels)

    def test_leaves_the_global_generator_alone(self, table: Table) -> None:
        before = torch.get_rng_state()
        self.samples(table, 1, 0)
        assert torch.equal(before, torch.get_rng_state())

    def test_shapes_and_boxes(self, table: Table) -> None:
        for sample in self.samples(table, 3, 0):
            assert sample.pixels.shape == (3, 64, 96)
            assert sample.pixels.dtype == torch.uint8
            assert sample.boxes.dtype == torch.float32
            assert len(sample.boxes) == len(sample.labels)
            corners = torch.cat(
                [
                    sample.boxes[:, :2] - sample.boxes[:, 2:] / 2,
                    sample.boxes[:, :2] + sample.boxes[:, 2:] / 2,
                ],
                dim=1,
            )
            assert (corners >= -1e-5).all()
            assert (corners <= 1 + 1e-5).all()

    def test_boxes_follow_their_objects(self, tmp_path: Path) -> None:
        """A white square on black: wherever it goes, its box goes."""
        (tmp_path / "images").mkdir()
        pixels = np.zeros((80, 120, 3), np.uint8)
        pixels[20:50, 60:100] = 255
        Image.fromarray(pixels).save(tmp_path / "images" / "a.png")
        content = {
            "images": [{"id": 1, "file_name": "a.png"}],
            "categories": [{"id": 1, "name": "a"}],
            "annotations": [{"image_id": 1, "category_id": 1, "bbox": [60, 20, 40, 30]}],
        }
        (tmp_path / "annotations.json").write_text(json.dumps(content))
        cfg = AugmentationConfig(train_spatial_size=[96, 96], distortion_prob=0, iou_crop_prob=0.5)
        data = TrainingSet(make_table(tmp_path), Augment(cfg), 0, replace_bad=False)
        seen = 0
        for epoch in range(30):
            sample = data[epoch, 0]
            if not len(sample.boxes):
                continue
            bright = (sample.pixels[0] > 127).nonzero()
            top, left = bright.min(0).values.tolist()
            bottom, right = (bright.max(0).values + 1).tolist()
            centre, half = sample.boxes[0, :2] * 96, sample.boxes[0, 2:] * 48
            expected = [*(centre - half).tolist(), *(centre + half).tolist()]
            np.testing.assert_allclose([left, top, right, bottom], expected, atol=1.5)
            seen += 1
        assert seen > 20


class TestBadImages:
    def test_the_next_good_one_takes_its_place(self, table: Table) -> None:
        broken = [break_image(table, i) for i in (3, 4)]
        sample = TrainingSet(table, Augment(AUGMENTATION), 0, replace_bad=True)[1, 3]
        assert sample.image == 5
        assert [bad.path for bad in sample.bad] == broken

    def test_without_replacement_it_is_only_named(self, table: Table) -> None:
        broken = break_image(table, 3)
        data = TrainingSet(table, Augment(AUGMENTATION), 0, replace_bad=False)
        batch = collate([data[0, 2], data[0, 3]])
        assert [bad.path for bad in batch.bad] == [broken]

    def test_no_good_one_at_all(self, table: Table) -> None:
        for image in range(len(table)):
            break_image(table, image)
        sample = TrainingSet(table, Augment(AUGMENTATION), 0, replace_bad=True)[0, 0]
        assert len(sample.bad) == 10
        assert not sample.pixels.numel()
