"""All that can be found out about data: every image, and what sources have in common."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from archive_support import pack
from coco_support import coco, written
from PIL import Image

from rtdetr_slurm.data import decoding
from rtdetr_slurm.data.everything import DataReport, check_everything
from rtdetr_slurm.data.findings import Finding, Findings
from rtdetr_slurm.spec import load_spec


def data(folder: Path) -> Path:
    """Two pictures each for training and validation, and a spec for them."""
    dataset = {"num_classes": 4}
    for number, split in enumerate(("train", "val")):
        sizes = [{"width": 40, "height": 30}, {"width": 30, "height": 40}]
        content = coco()
        content["images"] = [one | size for one, size in zip(content["images"], sizes, strict=True)]
        content["annotations"][1]["iscrowd"] = 0
        images = content["images"]
        path = written(folder / split / "annotations.json", content)
        for count, image in enumerate(images):
            picture = Image.new(
                "RGB", (image["width"], image["height"]), (120 * number, 120 * count, 0)
            )
            picture.save(path.parent / image["file_name"])
        source = {"image_dir": str(path.parent), "json_file": str(path)}
        dataset[f"{split}_data_sources"] = [source] if split == "train" else source
    return written(folder / "spec.yaml", {"dataset": dataset, "results_dir": str(folder / "r")})


def report(spec: Path, *overrides: str, **how: object) -> DataReport:
    loaded = load_spec(spec, ["dataset.batch_size=1", *overrides], action="train")
    arguments = {"workers": 1, "ranks_of": lambda _: 1} | how
    return check_everything(loaded.experiment, loaded.actions, **arguments)  # type: ignore[arg-type]


def said(found: DataReport, level: str) -> str:
    return "\n".join(one.message for one in found.findings if one.level == level)


def test_every_image_is_decoded(tmp_path: Path) -> None:
    spec = data(tmp_path)
    told: list[tuple[int, int]] = []
    good = report(spec, told=lambda _, done, of: told.append((done, of)))
    assert good.findings == []
    assert told == [(1, 2), (2, 2), (1, 2), (2, 2)]
    content = (tmp_path / "train" / "a.jpg").read_bytes()
    (tmp_path / "train" / "a.jpg").write_bytes(content[:-200])
    Image.new("RGB", (30, 41)).save(tmp_path / "train" / "b.jpg")
    wrong = said(report(spec), "error")
    assert "2 of 2 images looked into are wrong: 'a.jpg' cannot be decoded" in wrong
    assert wrong.endswith("(also wrong: 'b.jpg')")
    (tmp_path / "train" / "a.jpg").write_bytes(content)
    found = report(spec)
    assert [path for path, _ in found.bad_images] == [tmp_path / "train" / "b.jpg"]
    wrong = said(found, "error")
    assert "1 of 2 images looked into are wrong: 'b.jpg' is 30 x 41 pixels, but annotated" in wrong
    assert wrong.endswith("job.bad_images: skip")
    left_out = report(spec, skip_bad_images=True)
    assert said(left_out, "error") == ""
    assert "'b.jpg' is 30 x 41 pixels" in said(left_out, "warning")


def test_several_processes_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = data(tmp_path)
    (tmp_path / "val" / "b.jpg").write_bytes(b"no image")
    alone = report(spec).findings
    monkeypatch.setattr(decoding, "CHUNK", 1)
    assert report(spec, workers=2).findings == alone != []


def test_images_that_are_trained_on_and_scored(tmp_path: Path) -> None:
    spec = data(tmp_path)
    shutil.copy(tmp_path / "train" / "b.jpg", tmp_path / "val" / "b.jpg")
    leak = said(report(spec), "warning")
    assert leak.startswith(f"1 of 2 images of {tmp_path}/val/annotations.json are trained on, too")
    assert f"'b.jpg' is {tmp_path}/train/b.jpg" in leak
    val = f"{{image_dir: {tmp_path}/train, json_file: {tmp_path}/train/annotations.json}}"
    same = said(report(spec, f"dataset.val_data_sources={val}"), "warning")
    assert same.startswith(f"2 of 2 images of {tmp_path}/train/annotations.json are trained on")


def test_several_actions_are_checked_once(tmp_path: Path) -> None:
    spec = data(tmp_path)
    val = f"{{image_dir: {tmp_path}/val, json_file: {tmp_path}/val/annotations.json}}"
    (tmp_path / "val" / "a.jpg").unlink()
    both = report(spec, f"dataset.test_data_sources={val}", "job.then=[evaluate]")
    assert [kind for kind, _ in both.sources] == ["train", "val"]
    assert len([one for one in both.findings.errors if one.field[1] == "val_data_sources"]) == 1
    few = report(spec, ranks_of=lambda _: 3)
    assert "fewer than one batch on every rank" in said(few, "error")


def test_images_of_archives_are_decoded_where_they_are(tmp_path: Path) -> None:
    spec = data(tmp_path)
    picture = (tmp_path / "train" / "a.jpg").read_bytes()
    pack(tmp_path / "x.zip", {"a.jpg": picture, "b.jpg": b"no image"})
    overrides = [f"dataset.infer_data_sources.image_dir=[{tmp_path}/x.zip]"]
    written(tmp_path / "model.pth", "")
    overrides += [f"inference.checkpoint={tmp_path}/model.pth"]
    loaded = load_spec(spec, overrides, action="inference")
    found = check_everything(loaded.experiment, ["inference"], workers=1)
    assert "1 of 2 images of" in said(found, "warning")
    assert "'b.jpg' cannot be decoded: it is no image of a known format; such" in (
        said(found, "warning")
    )


def test_corrections_of_several_findings_are_one() -> None:
    found = Findings()
    for largest, ids in ((3, [1, 2]), (5, [2, 4])):
        right = {"dataset.num_classes": largest, "dataset.eval_class_ids": ids}
        found.append(Finding("error", ("dataset",), str(largest), right))
    assert DataReport(found, []).corrections == {
        "dataset.num_classes": 5,
        "dataset.eval_class_ids": [1, 2, 4],
    }
