"""An annotation file in numbers."""

from __future__ import annotations

from pathlib import Path

from coco_support import coco, written

from rtdetr_slurm.data.coco import read_annotations
from rtdetr_slurm.data.page import histogram
from rtdetr_slurm.data.samples import chosen_images
from rtdetr_slurm.data.statistics import ClassNumbers, count


def test_what_is_counted(tmp_path: Path) -> None:
    boxes = [[0, 0, 10, 20], [0, 0, 40, 40], [0, 0, 100, 200], [0, 0, 0, 5]]
    entries = [{"image_id": 7, "category_id": 3, "bbox": box} for box in boxes]
    crowd = {"image_id": 7, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 1}
    content = coco(annotations=[*entries, crowd])
    read = read_annotations(written(tmp_path / "a.json", content))
    numbers = count(read)
    assert (numbers.images, numbers.empty, numbers.boxes, numbers.crowds) == (2, 1, 5, 1)
    assert numbers.per_image == [5, 0]
    assert numbers.sizes == (1, 1, 1)
    assert numbers.ratios == [0.5, 1.0, 0.5]
    cat, dog = numbers.classes
    assert cat == ClassNumbers(1, "cat", 1, 1, 0, 0, 0, 0.0, 0.0)
    assert dog == ClassNumbers(3, "dog", 4, 1, 1, 1, 1, 40, 40)


def test_every_class_is_on_the_sheet(tmp_path: Path) -> None:
    images = [{"id": n, "file_name": f"{n}.jpg"} for n in range(40)]
    common = [{"image_id": n, "category_id": 1, "bbox": [0, 0, 9, 9]} for n in range(39)]
    rare = {"image_id": 37, "category_id": 3, "bbox": [0, 0, 9, 9]}
    content = coco(images=images, annotations=[*common, rare])
    chosen = chosen_images(read_annotations(written(tmp_path / "a.json", content)), 5)
    assert chosen == [37, 0, 8, 16, 24]


def test_bins_of_a_histogram() -> None:
    bars = histogram([0, 4, 7.9, 8, 100], [4, 8], " px")
    named = [(bar.name, bar.value) for bar in bars]
    assert named == [("below 4 px", 1), ("4 – 8 px", 2), ("from 8 px on", 2)]
