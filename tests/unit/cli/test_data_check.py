"""`rtdetr-slurm data check`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rtdetr_slurm.cli.main import main
from rtdetr_slurm.data.sample import write_sample

Capture = pytest.CaptureFixture[str]

SPEC = """\
# shapes
dataset:
  num_classes: 3   # too few
  batch_size: 1
  train_data_sources:
    - image_dir: data/train/images
      json_file: data/train/annotations.json   # made
  val_data_sources: {image_dir: data/val/images, json_file: data/val/annotations.json}
  eval_class_ids: [1, 3]  # some
results_dir: results
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_sample(tmp_path / "data", 4, 2, 40, 0)
    path = tmp_path / "train.yaml"
    path.write_text(SPEC)
    return path


def check(*arguments: object) -> int:
    return main(["data", "check", *map(str, arguments), "--site", "local"])


def test_tables_findings_and_their_places(spec: Path, capsys: Capture) -> None:
    assert check(spec) == 2
    out, err = capsys.readouterr()
    assert err == ""
    head, train, val, *_ = out.splitlines()
    assert head.split()[:3] == ["SOURCE", "IMAGES", "BOXES"]
    assert (train.split()[:2], val.split()[:2]) == (["train", "4"], ["val", "2"])
    assert f"error: {spec}:3:16: dataset.num_classes: " in out
    assert "set dataset.num_classes to 4, and dataset.eval_class_ids to [1, 2, 3], or to" in out
    assert f"error: {spec}:9:19: dataset.eval_class_ids: found 3; allowed: 0..2" in out
    assert out.endswith(f"{spec}: data of train: 2 errors, 0 warnings\n")


def test_what_is_known_to_be_right_is_written(spec: Path, capsys: Capture) -> None:
    assert check(spec, "--fix") == 0
    assert f"fixed: {spec}: dataset.num_classes: 4\n" in capsys.readouterr().out
    fixed = SPEC.replace("num_classes: 3", "num_classes: 4").replace("[1, 3]", "[1, 2, 3]")
    assert spec.read_text() == fixed
    assert check(spec, "--fix") == 0
    assert spec.read_text() == fixed
    assert main(["validate", str(spec)]) == 0


def test_what_is_wrong_with_the_data_themselves_is_not_fixed(spec: Path, capsys: Capture) -> None:
    next((spec.parent / "data" / "val" / "images").iterdir()).unlink()
    assert check(spec, "--fix") == 2
    out, _ = capsys.readouterr()
    assert "fixed: " in out
    assert f"error: {spec}:8:33: dataset.val_data_sources.image_dir: " in out


def test_as_a_document(spec: Path, capsys: Capture) -> None:
    assert check(spec, "--json", "dataset.eval_class_ids=[1]") == 2
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    (finding,) = [one for one in document["findings"] if one["level"] == "error"]
    assert (finding["field"], finding["line"]) == ("dataset.num_classes", 3)
    assert document["corrections"] == {"dataset.num_classes": 4}
    train, val = document["sources"]
    assert (train["kind"], train["images"], val["images"]) == ("train", 4, 2)
    assert [one["id"] for one in train["classes"]] == [1, 2, 3]


def test_a_wrong_spec_is_refused_as_elsewhere(spec: Path, capsys: Capture) -> None:
    assert check(spec, "dataset.batch_size=0") == 2
    assert "dataset.batch_size: found 0" in capsys.readouterr().err
    assert check(spec, "--html", "nowhere/page.html") == 2
    assert "there is no folder nowhere" in capsys.readouterr().err


def test_several_sources_to_train_on_are_told_apart(spec: Path, capsys: Capture) -> None:
    sources = ", ".join(
        f"{{image_dir: data/{split}/images, json_file: data/{split}/annotations.json}}"
        for split in ("train", "val")
    )
    given = ["dataset.num_classes=4", f"dataset.train_data_sources=[{sources}]"]
    page = spec.parent / "page.html"
    assert check(spec, *given, "--html", page) == 0
    out, _ = capsys.readouterr()
    assert [line.split()[:2] for line in out.splitlines()[1:3]] == [["train", "1"], ["train", "2"]]
    assert "2 of 2 images of" in out
    assert b"boxes by class, train 2" in page.read_bytes()
