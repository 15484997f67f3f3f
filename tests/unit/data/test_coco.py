"""Annotation files: what is read, and what is said about wrong ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from coco_support import coco, written

from rtdetr_slurm.data.coco import read_annotations
from rtdetr_slurm.errors import RequestError


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(RequestError, match=r"annotation file .*a\.json is not a file"):
        read_annotations(tmp_path / "a.json")


def test_reads_columns(tmp_path: Path) -> None:
    read = read_annotations(written(tmp_path / "a.json", coco()))
    assert read.categories == {1: "cat", 3: "dog"}
    assert read.file_names == ["a.jpg", "b.jpg"]
    assert list(read.image_ids) == [7, 9]
    assert list(read.image_index) == [1, 0]
    assert list(read.category_ids) == [3, 1]
    assert list(read.boxes) == [1, 2, 10, 20, 0, 0, 4, 5]
    assert list(read.areas) == [150, 20]  # the second is width x height
    assert list(read.crowds) == [0, 1]
    assert (read.num_images, read.num_boxes) == (2, 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{'images': }", "is not JSON: .* line 1 column 2"),
        ([], "is not a COCO detection file: its top level is a list"),
        ({"images": []}, "has no list 'annotations' .*found: \\['images'\\]"),
        (coco(categories=[]), "'categories' is empty"),
        (coco(categories=[{"id": 1}]), "categories\\[0\\] has no text 'name'"),
        (coco(categories=[{"id": "1", "name": "a"}]), "has no whole number 'id' \\(found '1'\\)"),
        (coco(categories=[{"id": -1, "name": "a"}]), "negative id -1"),
        (coco(categories=[{"id": 1, "name": "a"}] * 2), "category id 1 is given twice"),
        (coco(images=[{"id": 1}]), "images\\[0\\] \\(id 1\\) has no 'file_name'"),
        (coco(images=[{"id": 1, "file_name": "a"}] * 2), "image id 1 is given twice"),
        (coco(images=["a.jpg"]), "images\\[0\\] is not an object"),
        (coco(images=[{"id": 7, "file_name": "a.jpg"}]), "image id 9, which 'images' does not"),
        (coco(categories=[{"id": 1, "name": "cat"}]), "category id 3, which 'categories'"),
        (
            coco(annotations=[{"image_id": 7, "category_id": 1, "bbox": [1, 2, 3]}]),
            "annotations\\[0\\] has no 'bbox' of four numbers",
        ),
        (
            coco(annotations=[{"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, None]}]),
            "holds None where a finite number",
        ),
        (
            '{"images": [{"id": 1, "file_name": "a"}], "categories": [{"id": 1, "name": "a"}],'
            '"annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, NaN]}]}',
            "holds nan where a finite number",
        ),
        (coco(annotations=None), "'annotations' is null, not a list \\(\\[\\] where there are"),
        (coco(images={}), "'images' is a dict, not a list"),
        (
            coco(images=[{"id": 2**63, "file_name": "a"}]),
            "images\\[0\\] has the id 92233",
        ),
        (
            coco(categories=[{"id": 2**70, "name": "a"}]),
            "categories\\[0\\] has the id 11805",
        ),
        (
            coco(images=[{"id": 1, "file_name": "a\0.jpg"}]),
            "file_name 'a\\\\x00.jpg', which",
        ),
        (coco(images=[{"id": 1, "file_name": "a\ud800"}]), "which no file can have"),
        (coco(images=[{"id": 1, "file_name": "a", "width": -1}]), "width -1; allowed is a whole"),
        (coco(images=[{"id": 1, "file_name": "a", "height": "9"}]), "holds '9' where a finite"),
        (
            coco(annotations=[{"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 10**400]}]),
            "annotations\\[0\\] holds 1000000.*\\.\\.\\. where a finite number",
        ),
        (
            json.dumps(coco())[:-2] + "1" * 5000 + "]}",
            "is not JSON: .* at line 1 column",
        ),
        ('{"images": [' + "[" * 100_000, "is not JSON: nested too deeply at line 1 column 13"),
        (json.dumps(coco(), indent=1).replace('"bbox"', '"bbox'), "is not JSON: .* at line 2[0-9]"),
        (json.dumps(coco()) + "x", "Extra data at line 1 column"),
        ('{"images": [], "images": []}', "a second 'images'"),
    ],
)
def test_refuses_other_files(tmp_path: Path, content: Any, message: str) -> None:
    path = written(tmp_path / "wrong.json", content)
    with pytest.raises(RequestError, match=message) as caught:
        read_annotations(path)
    assert str(path) in str(caught.value)


def test_all_that_is_wrong_is_told_and_the_same_once(tmp_path: Path) -> None:
    entry = {"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4]}
    wrong = [{"bbox": [1]}, {"bbox": None}, {"image_id": "x"}, {"image_id": 5}, {"category_id": 4}]
    content = coco(annotations=[entry | one for one in wrong])
    content["images"].append({"id": 7, "file_name": ""})
    with pytest.raises(RequestError) as caught:
        read_annotations(written(tmp_path / "a.json", content))
    assert str(caught.value).split("detection file: ")[1].split("; ") == [
        "images[2] (id 7) has no 'file_name'",
        "annotations[0] has no 'bbox' of four numbers [x, y, width, height] (and 1 more like it)",
        "annotations[2] has no whole number 'image_id' (found 'x')",
        "image id 7 is given twice",
        "annotations[3] belongs to image id 5, which 'images' does not have",
        "annotations[4] has category id 4, which 'categories' does not have",
    ]


def test_refuses_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="does not exist"):
        read_annotations(tmp_path / "none.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xd8\xff\xe0\x00")
    with pytest.raises(RequestError, match="it is not UTF-8 text"):
        read_annotations(tmp_path / "binary.json")
    with pytest.raises(RequestError, match="is not a file"):
        read_annotations(tmp_path)


@pytest.mark.parametrize(
    ("value", "crowd"),
    [
        *((0, 0), (1, 1), (1.0, 1), (False, 0), (True, 1), (None, 0)),
        *(("0", 0), ("1", 1), ("False", 0), ("true", 1)),
    ],
)
def test_what_iscrowd_says(tmp_path: Path, value: Any, crowd: int) -> None:
    entry = {"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": value}
    read = read_annotations(written(tmp_path / "a.json", coco(annotations=[entry])))
    assert list(read.crowds) == [crowd]


@pytest.mark.parametrize("value", [2, "", "no", [], {}, 0.5])
def test_what_iscrowd_cannot_say(tmp_path: Path, value: Any) -> None:
    entry = {"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": value}
    path = written(tmp_path / "a.json", coco(annotations=[entry]))
    with pytest.raises(RequestError, match=r"annotations\[0\] has iscrowd .*; allowed are 0, 1"):
        read_annotations(path)


def test_sizes_are_read_where_they_are_given(tmp_path: Path) -> None:
    images = [
        {"id": 7, "file_name": "a.jpg", "width": 640, "height": 480.0},
        {"id": 9, "file_name": "b.jpg", "width": None},
        {"id": 11, "file_name": "c.jpg", "width": 0, "height": 0},
    ]
    read = read_annotations(written(tmp_path / "a.json", coco(images=images)))
    assert (list(read.widths), list(read.heights)) == ([640, 0, 0], [480, 0, 0])


def test_lists_come_in_any_order_with_other_things_between(tmp_path: Path) -> None:
    content = coco(info={"a": [1, {"b": 2}]}, licenses=[{"id": 1}], year=2017, note=None)
    expected = read_annotations(written(tmp_path / "a.json", content))
    turned = written(tmp_path / "b.json", dict(reversed(content.items())))
    read = read_annotations(turned)
    assert (read.image_index, read.boxes) == (expected.image_index, expected.boxes)


def test_a_byte_order_mark_is_passed(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(coco()), encoding="utf-8-sig")
    assert read_annotations(path).num_boxes == 2


PROGRAM = r"""
import re, resource, sys
from pathlib import Path
from rtdetr_slurm.data.coco import read_annotations
from rtdetr_slurm.errors import UserError
def peak():
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]),) * 2)
try:
    print(read_annotations(Path(sys.argv[1])).num_boxes)
    print(peak() - before)
except UserError as error:
    print(error.failure_class, error)
"""


def read_alone(*arguments: object) -> str:
    """What a process of its own says about an annotation file."""
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_large_file_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    """Twenty MiB, as segmentations make them."""
    outline = [[round(number * 1.1, 2) for number in range(2000)]]
    entry = {"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4], "segmentation": outline}
    entries = ",".join([json.dumps(entry)] * 1500)
    path = written(
        tmp_path / "a.json", json.dumps(coco(annotations=[0])).replace("[0]", f"[{entries}]")
    )
    assert path.stat().st_size > 18 << 20
    boxes, kib = map(int, read_alone(path).split())
    assert boxes == 1500
    assert kib < 8 << 10


def test_too_little_memory_is_said(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", coco(info="x" * (40 << 20)))
    said = read_alone(path, 80 << 20)
    assert f"OOM_HOST annotation file {path}: its content does not fit into the memory" in said
