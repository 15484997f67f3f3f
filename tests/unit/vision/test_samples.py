"""Samples of one image, batches of several."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from table_support import break_image, make_table, table  # noqa: F401

from rtdetr_slurm.vision.preprocess import Resize
from rtdetr_slurm.vision.samples import EvaluationSet, collate, training_boxes
from rtdetr_slurm.vision.table import Table

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)


class TestTrainingBoxes:
    def test_what_training_learns_from(self, tmp_path: Path) -> None:
        boxes = [
            ([10, 10, 20, 20], 0),
            ([10, 10, 20, 20], 1),  # a crowd
            ([90, 40, 30, 30], 0),  # reaches beyond the image
            ([5, 5, 0, 10], 0),  # no extent
            ([200, 5, 10, 10], 0),  # all outside
        ]
        content = {
            "images": [{"id": 1, "file_name": "a.jpg"}],
            "categories": [{"id": 2, "name": "a"}],
            "annotations": [
                {"image_id": 1, "category_id": 2, "bbox": b, "iscrowd": c} for b, c in boxes
            ],
        }
        (tmp_path / "annotations.json").write_text(json.dumps(content))
        table = make_table(tmp_path)
        corners, labels = training_boxes(table, 0, height=50, width=100)
        assert corners.tolist() == [[10, 10, 30, 30], [90, 40, 100, 50]]
        assert labels.tolist() == [2, 2]
        assert len(table.boxes) == 5  # scoring sees them all


class TestBatches:
    def test_packed_targets_come_apart_again(self, table: Table) -> None:
        data = EvaluationSet(table, Resize((64, 64)))
        samples = [data[i] for i in range(4)]
        batch = collate(samples)
        assert batch.pixels.shape == (4, 3, 64, 64)
        assert batch.num_boxes == sum(batch.counts) == len(batch.boxes)
        for sample, target in zip(samples, batch.targets(), strict=True):
            assert torch.equal(sample.boxes, target["boxes"])
            assert torch.equal(sample.labels, target["labels"])

    def test_evaluation_pixels_and_sizes(self, tmp_path: Path, table: Table) -> None:
        sample = EvaluationSet(table, Resize((32, 64)))[2]
        assert sample.size == (96, 96)
        boxes = table.boxes[table.rows(2)]
        expected = torch.from_numpy((boxes[:, :2] + boxes[:, 2:] / 2) / 96).float()
        torch.testing.assert_close(sample.boxes[:, :2], expected)


class TestBadImages:
    def test_evaluation_goes_black(self, table: Table) -> None:
        break_image(table, 0)
        sample = EvaluationSet(table, Resize((64, 64)))[0]
        assert not sample.pixels.any()
        assert len(sample.bad) == 1
