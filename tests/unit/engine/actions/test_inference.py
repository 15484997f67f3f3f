"""Detections on images without annotations."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archive_support import pack
from coco_support import written
from engine_support import (
    Workspace,
    fresh_weights,
    open_workspace,
    stopping_at,
)
from numpy.typing import NDArray
from PIL import Image

from rtdetr_slurm.engine.actions.inference import inference
from rtdetr_slurm.engine.process.rank import skips_bad_images
from rtdetr_slurm.engine.process.stop import Interrupted
from rtdetr_slurm.errors import ActionError, RequestError
from rtdetr_slurm.runs.claim import Start, Superseded
from rtdetr_slurm.vision.drawing import class_colour


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with open_workspace(tmp_path_factory.mktemp("work")) as workspace:
        fresh_weights(workspace)
        yield workspace


@pytest.fixture
def workspace(made: Workspace, tmp_path: Path) -> Workspace:
    """With results of its own."""
    made.results = tmp_path / "results"
    return made


@pytest.fixture
def images(workspace: Workspace) -> Path:
    return workspace.data / "val" / "images"


def given(workspace: Workspace, *sources: Path, threshold: float = 0) -> tuple[str, ...]:
    return (
        f"dataset.infer_data_sources.image_dir={json.dumps([*map(str, sources)])}",
        f"inference.checkpoint={workspace.root / 'weights.pth'}",
        f"inference.conf_threshold={threshold}",
    )


def infer(
    workspace: Workspace, *sources: Path, threshold: float = 0, more: tuple[str, ...] = ()
) -> Path:
    overrides = (*given(workspace, *sources, threshold=threshold), *more)
    assert not inference(workspace.session(*overrides, name="inference"))
    return workspace.results / "inference"


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def files(folder: Path) -> set[str]:
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if "/" in name}


def test_folders_archives_and_lists_come_to_the_same(
    workspace: Workspace, images: Path, tmp_path: Path
) -> None:
    packed = {f"x/{path.name}": path.read_bytes() for path in sorted(images.iterdir())}
    listed = written(tmp_path / "of.txt", "\n".join(map(str, images.iterdir())))
    archives = [pack(tmp_path / name, packed) for name in ("a.tar.gz", "b.zip", "c.tar")]
    results = infer(workspace, images, *archives, listed, more=("inference.batch_size=3",))
    read_images = read(results / "images.json")["images"]
    found: dict[int, list[Any]] = {image["id"]: [] for image in read_images}
    for row in read(results / "predictions.json"):
        found[row["image_id"]].append((row["category_id"], *row["bbox"], row["score"]))
    of_name: dict[str, list[Any]] = {}
    for image in read_images:
        assert (image["width"], image["height"]) == (80, 80)
        of_name.setdefault(Path(image["file_name"]).name, []).append(found[image["id"]])
        lines = (results / image["label"]).read_text().splitlines()
        assert len(lines) == len(found[image["id"]]) == 10
        assert Image.open(results / image["picture"]).size == (80, 80)
    assert len(read_images) == 25
    assert len(of_name) == 5
    for same in of_name.values():
        assert len(same) == 5
        np.testing.assert_allclose(same[1:], same[:1] * 4, atol=2e-3)
    assert [row["image_id"] for row in read(results / "predictions.json")] == sorted(
        row["image_id"] for row in read(results / "predictions.json")
    )


def test_each_option_does_what_it_says(workspace: Workspace, images: Path, tmp_path: Path) -> None:
    """What TAO passes over, and colours that it leaves out, or that change with each run."""
    names = written(tmp_path / "map.txt", "nothing\nbig circle\nsquare\ntriangle\n")
    options = (
        f"dataset.infer_data_sources.classmap={names}",
        "inference.color_map={big circle: '#010203', square: '#010203'}",
        "inference.outline_width=9",
        "inference.input_height=64",
        "inference.input_width=96",
        "inference.is_internal=true",
    )
    results = infer(workspace, images, more=options)
    read_images = read(results / "images.json")
    assert read_images["info"]["input_size"] == [64, 96]
    assert [c["name"] for c in read_images["categories"]] == [
        "nothing", "big circle", "square", "triangle",
    ]  # fmt: skip
    assert files(results) == {
        f"images/{folder}/{path.with_suffix(suffix).name}"
        for path in images.iterdir()
        for folder, suffix in (("labels", ".txt"), ("images_annotated", ".jpg"))
    }
    classes = {row["category_id"] for row in read(results / "predictions.json")}
    line = (results / "images" / "labels" / "000001.txt").read_text().splitlines()[0]
    assert len(line.split(" ")) == 16
    assert classes & {1, 2, 3}
    scores = [row["score"] for row in read(results / "predictions.json")]
    bound = sorted(scores)[len(scores) // 2]
    infer(workspace, images, threshold=bound, more=options)
    kept = [row["score"] for row in read(results / "predictions.json")]
    assert 0 < len(kept) < len(scores)
    assert min(kept) >= bound - 1e-6
    lines = sum(len(path.read_text().splitlines()) for path in results.rglob("labels/*.txt"))
    assert lines == len(kept)


def test_boxes_are_drawn_in_the_colours_and_the_width_asked_for(
    workspace: Workspace, tmp_path: Path
) -> None:
    """In TAO the width is always 3, and a class without a colour has no box."""
    (tmp_path / "black").mkdir()
    Image.fromarray(np.zeros((100, 120, 3), np.uint8)).save(tmp_path / "black" / "a.png")

    def drawn(*more: str) -> NDArray[np.uint8]:
        results = infer(workspace, tmp_path / "black", more=("model.num_select=1", *more))
        (row,) = read(results / "predictions.json")
        classes.add(row["category_id"])
        return np.asarray(Image.open(results / "images_annotated" / "a.png"))

    classes: set[int] = set()
    assert (drawn() == class_colour(classes.pop())).all(-1).any()
    every = "{class_0: '#fa0102', class_1: '#fa0102', class_2: '#fa0102', class_3: '#fa0102'}"
    thin, thick = (
        (drawn(f"inference.color_map={every}", f"inference.outline_width={width}") == (250, 1, 2))
        for width in (1, 2)
    )
    assert 0 < thin.all(-1).sum() < thick.all(-1).sum()
    other = next(n for n in range(4) if n not in classes)
    left_out = drawn(f"inference.color_map={{class_{other}: red}}")
    assert (left_out == class_colour(classes.pop())).all(-1).any()


def test_exif_is_applied_and_boxes_stay_inside(workspace: Workspace, tmp_path: Path) -> None:
    pixels = np.zeros((40, 90, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "turned").mkdir()
    Image.fromarray(pixels).save(tmp_path / "turned" / "a.png", exif=exif)
    results = infer(workspace, tmp_path / "turned")
    (image,) = read(results / "images.json")["images"]
    assert (image["width"], image["height"]) == (40, 90)
    with Image.open(results / image["picture"]) as picture:
        assert picture.size == (40, 90)
        assert picture.getexif().get(0x0112, 1) == 1
    for row in read(results / "predictions.json"):
        x, y, width, height = row["bbox"]
        assert 0 <= x <= x + width <= 40.001
        assert 0 <= y <= y + height <= 90.001


def test_a_broken_image_is_named_and_the_others_go_on(
    workspace: Workspace, images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mixed").mkdir()
    for number, path in enumerate(sorted(images.iterdir())[:3]):
        (tmp_path / "mixed" / f"{number}.jpg").write_bytes(
            path.read_bytes()[: 400 if number == 1 else None]
        )
    os.mkfifo(tmp_path / "mixed" / "pipe.jpg")
    strict = workspace.session(*given(workspace, tmp_path / "mixed"), name="inference")
    with pytest.raises(ActionError, match=r"image .*1\.jpg cannot be decoded.*--bad-images skip"):
        inference(replace(strict, skip_bad_images=False))
    results = infer(workspace, tmp_path / "mixed")
    warnings = [
        line["message"] for line in workspace.status("inference") if line["verbosity"] == "WARNING"
    ]
    broken = tmp_path / "mixed" / "1.jpg"
    assert any(
        w.startswith(f"image {broken} cannot be decoded") and w.endswith("; skipped")
        for w in warnings
    )
    assert f"image {broken} cannot be decoded" in capfd.readouterr().err
    listed = read(results / "images.json")["images"]
    assert [bool(image.get("problem")) for image in listed] == [False, True, False, True]
    assert {row["image_id"] for row in read(results / "predictions.json")} == {1, 3}
    assert files(results) == {
        "labels/0.txt", "labels/2.txt", "images_annotated/0.jpg", "images_annotated/2.jpg",
    }  # fmt: skip


def test_who_asks_for_a_stop_at_a_broken_image_has_it(workspace: Workspace) -> None:
    loaded = workspace.load(
        "job.bad_images=stop", *given(workspace, workspace.data), action="inference"
    )
    assert skips_bad_images(loaded, None)
    assert not skips_bad_images(loaded, "stop")
    training = workspace.load()
    assert not skips_bad_images(training, None)
    assert skips_bad_images(training, "skip")
    assert skips_bad_images(workspace.load("job.bad_images=skip"), None)


def test_not_one_image_that_can_be_used_is_a_failure(workspace: Workspace, tmp_path: Path) -> None:
    written(tmp_path / "bad" / "a.jpg", "no image")
    with pytest.raises(ActionError, match=r"none of the 1 images could be used: .*bad/a\.jpg"):
        infer(workspace, tmp_path / "bad")
    assert not (workspace.results / "inference" / "predictions.json").exists()


def test_a_rerun_leaves_nothing_stale_and_takes_nothing_else(
    workspace: Workspace, images: Path
) -> None:
    results = infer(workspace, images, more=("inference.is_internal=true",))
    kept = written(results / "images" / "labels" / "mine.txt", "mine")
    before = files(results)
    for name in ("000001.jpg", "000002.jpg"):
        written(workspace.root / "fewer" / name, "")
        (workspace.root / "fewer" / name).write_bytes((images / name).read_bytes())
    session = workspace.session(*given(workspace, images), name="inference")
    with pytest.raises(Interrupted):
        inference(stopping_at(session, 1))
    assert not (results / "predictions.json").exists()
    assert kept.exists()
    infer(workspace, workspace.root / "fewer")
    assert files(results) == {
        "images/labels/mine.txt",
        *(f"labels/00000{n}.txt" for n in (1, 2)),
        *(f"images_annotated/00000{n}.jpg" for n in (1, 2)),
    }
    assert len(before) == 11
    assert not (results / "images" / "images_annotated").exists()


def test_a_start_that_is_not_the_latest_writes_nothing(workspace: Workspace, images: Path) -> None:
    session = workspace.session(*given(workspace, images), name="inference")
    written(session.results_dir / "claim.json", {
        "schema_version": 1, "id": "another", "user": "u", "host": "h", "time": "t",
    })  # fmt: skip
    with pytest.raises((Superseded, ActionError, RequestError)):
        inference(replace(session, start=Start("mine")))
    assert files(session.results_dir) == set()


def test_classes_are_checked_before_the_run(workspace: Workspace, images: Path) -> None:
    with pytest.raises(RequestError, match="has a colour for 'cat', which is no class"):
        infer(workspace, images, more=("inference.color_map={cat: red}",))


def test_nothing_found_is_said(workspace: Workspace, images: Path) -> None:
    results = infer(workspace, images, threshold=0.99)
    assert read(results / "predictions.json") == []
    assert {path.read_text() for path in results.glob("labels/*.txt")} == {""}
    assert "nothing was found in 5 images" in workspace.status("inference")[-1]["message"]
