"""A data set in numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from coco_support import coco, written

from rtdetr_slurm.data.facts import gather_facts
from rtdetr_slurm.data.layout import SplitFiles
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.spec.draft.facts import DataFacts


def gathered(tmp_path: Path, **contents: dict[str, Any]) -> DataFacts:
    splits = {
        name: SplitFiles(written(tmp_path / f"{name}.json", content), f"{name}.json", name)
        for name, content in contents.items()
    }
    return gather_facts("data", splits)


def boxes(image: int, *sides: int) -> list[dict[str, Any]]:
    return [{"image_id": image, "category_id": 1, "bbox": [0, 0, s, s]} for s in sides]


def test_what_is_counted(tmp_path: Path) -> None:
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 200, "height": 100} for i in range(3)]
    train = coco(images=images, annotations=[*boxes(0, 10, 20, 30), *boxes(1, *[50] * 7)])
    train["annotations"][0]["iscrowd"] = 1
    val = coco(images=images, annotations=boxes(2, *[5] * 12))
    found = gathered(tmp_path, train=train, val=val, other=val)
    assert (found.images, found.boxes, found.scored) == (3, 10, 3)
    assert {*found.sources} == {"train", "val"}
    assert found.classes == {1: "cat", 3: "dog"}
    assert found.boxes_of == {1: 22}
    assert found.fullest == 12
    assert found.image_side == 200
    assert found.small_side == pytest.approx(20 / 20_000**0.5)
    assert not found.is_mscoco


def test_without_sizes_small_objects_are_not_known(tmp_path: Path) -> None:
    found = gathered(tmp_path, train=coco())
    assert found.small_side is None
    assert found.image_side == 0


OTHERS = [{"id": 1, "name": "dog"}, {"id": 3, "name": "cat"}]


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"val": coco()}, "there are val"),
        ({"train": coco(annotations=[])}, "it has no boxes"),
        ({"train": coco(), "val": coco(categories=OTHERS)}, "the same id"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(
    tmp_path: Path, contents: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        gathered(tmp_path, **contents)
