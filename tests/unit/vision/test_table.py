"""Annotations as arrays."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from table_support import make_table

from rtdetr_slurm.data.sample import write_sample


class TestTable:
    def test_sources_are_joined_and_images_stay_apart(self, tmp_path: Path) -> None:
        """Both splits number their images from 1."""
        write_sample(tmp_path, train=4, val=3, size=64)
        table = make_table(tmp_path / "train", tmp_path / "val")
        assert len(table) == 7
        assert table.image_ids.tolist() == [1, 2, 3, 4, 1, 2, 3]
        assert table.path(4) == tmp_path / "val" / "images" / "000001.jpg"
        assert table.describe(4) == f"1 ({table.path(4)})"
        val = make_table(tmp_path / "val")
        assert np.array_equal(table.boxes[table.rows(5)], val.boxes[val.rows(1)])

    def test_unordered_annotations(self, tmp_path: Path) -> None:
        boxes = [(3, [3, 0, 1, 1]), (1, [1, 0, 1, 1]), (3, [3, 1, 1, 1])]
        content = {
            "images": [{"id": i, "file_name": f"{i}.jpg"} for i in (1, 2, 3)],
            "categories": [{"id": 1, "name": "a"}],
            "annotations": [{"image_id": i, "category_id": 1, "bbox": b} for i, b in boxes],
        }
        (tmp_path / "annotations.json").write_text(json.dumps(content))
        table = make_table(tmp_path)
        assert [table.boxes[table.rows(i)].tolist() for i in range(3)] == [
            [[1, 0, 1, 1]],
            [],
            [[3, 0, 1, 1], [3, 1, 1, 1]],
        ]
