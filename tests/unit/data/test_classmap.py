"""What the classes of an inference are called."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from coco_support import written
from spec_files import NEEDED, load

from rtdetr_slurm.data.classmap import inference_classes, read_classmap
from rtdetr_slurm.errors import RequestError

TRAINED = {1: "cat", 2: "big dog"}


def classes(
    folder: Path, classmap: str | None, trained: Mapping[int, str] | None, *more: str
) -> tuple[dict[int, str], list[str]]:
    overrides = [*NEEDED["inference"], "dataset.num_classes=3", "model.num_select=9", *more]
    if classmap is not None:
        path = written(folder / "map.txt", classmap)
        overrides.append(f"dataset.infer_data_sources.classmap={path}")
    experiment = load(folder, "", *overrides, action="inference").experiment
    return inference_classes(experiment, trained)


def refused(folder: Path, classmap: str, trained: Mapping[int, str] | None = None) -> str:
    with pytest.raises(RequestError) as error:
        classes(folder, classmap, trained)
    return str(error.value).replace(f"{folder}/", "").replace("dataset.infer_data_sources.", "")


def test_line_1_is_class_0_as_in_taos_pytorch(tmp_path: Path) -> None:
    """And not class 1 as in its TensorRT inference: both read one file alike here."""
    path = written(tmp_path / "map.txt", "\ufeffbackground\r\ncat\r\nbig dog\r\n\r\n")
    assert read_classmap(path, 3) == {0: "background", 1: "cat", 2: "big dog"}


def test_names_come_from_the_map_else_from_the_training(tmp_path: Path) -> None:
    assert classes(tmp_path, "background\ncat\nbig dog\n", TRAINED) == (
        {0: "background", 1: "cat", 2: "big dog"}, []
    )  # fmt: skip
    assert classes(tmp_path, None, TRAINED) == ({0: "class_0", 1: "cat", 2: "big dog"}, [])
    names, notes = classes(tmp_path, None, {})
    assert names == {0: "class_0", 1: "class_1", 2: "class_2"}
    assert "do not say what their classes are called" in notes[0]
    assert classes(tmp_path, None, None) == ({}, [])  # before a job is queued, perhaps


def test_another_name_is_noted_and_another_place_refused(tmp_path: Path) -> None:
    names, (note,) = classes(tmp_path, "background\nKatze\nbig dog\n", TRAINED)
    assert names[1] == "Katze"
    assert note.startswith("class 1 was 'cat' in training and is 'Katze' in ")
    assert refused(tmp_path, "cat\nbig dog\n", TRAINED) == (
        "map.txt (classmap) has 'cat' on line 1, which is class 0, and in training it was class 1: "
        "all names would be wrong. Line 1 is class 0, so that ids that count from 1 want a first "
        "line such as background"
    )


def test_each_class_has_a_line(tmp_path: Path) -> None:
    assert "has 2 lines, and class 2 has none" in refused(tmp_path, "background\ncat\n", TRAINED)
    assert "has 2 lines, and class 2 has none" in refused(tmp_path, "background\ncat\n", {})
    assert classes(tmp_path, "background\ncat\n", None)[0]  # what is trained is not known yet


def test_what_is_no_class_map(tmp_path: Path) -> None:
    assert "has 4 names, and dataset.num_classes is 3" in refused(tmp_path, "a\nb\nc\nd\n")
    assert "has 0 names" in refused(tmp_path, "\n\n")
    assert refused(tmp_path, "a\n\nb\n").startswith("map.txt:2 (classmap) holds no name; line 1")
    assert "map.txt:3 (classmap) holds 'a', as line 1 does" in refused(tmp_path, "a\nb\na\n")
    assert "map.txt:1 (classmap) holds characters" in refused(tmp_path, "a\x1b[2Jb\n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(RequestError, match="is not UTF-8 text"):
        read_classmap(tmp_path / "latin.txt", 3)
    with pytest.raises(RequestError, match="does not exist"):
        read_classmap(tmp_path / "none.txt", 3)


def test_a_colour_for_no_class_is_refused(tmp_path: Path) -> None:
    colours = "inference.color_map={big dgo: red}"
    with pytest.raises(RequestError, match=r"'big dgo', which is no class; .*mean 'big dog'\?"):
        classes(tmp_path, None, TRAINED, colours)
    assert classes(tmp_path, None, None, colours) == ({}, [])
    classes(tmp_path, None, TRAINED, "inference.color_map={big dog: red}")
