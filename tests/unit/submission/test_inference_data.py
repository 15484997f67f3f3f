"""Images without annotations, looked at before anything is queued."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from archive_support import pack
from launch_support import write_checkpoint, write_dataset

from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.submission.prepare import Prepared, prepare


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Prepared]:
    """`prepare` of a training on this machine whose follow-up is inference, or of one alone."""
    monkeypatch.chdir(tmp_path)
    spec = write_dataset(tmp_path / "data")
    write_checkpoint(tmp_path / "model.pth")

    def ask(image_dir: str, *overrides: str, action: str = "train") -> Prepared:
        given = [f"dataset.infer_data_sources.image_dir=[{image_dir}]", *overrides]
        then = ["inference"] if action == "train" else []
        return prepare(spec, given, action=action, site="local", then=then)

    return ask


def test_every_kind_of_source_passes(ask: Callable[..., Prepared], tmp_path: Path) -> None:
    pack(tmp_path / "x.tar.gz")
    (tmp_path / "of.txt").write_text("data/images/1.jpg\nnone.jpg\n")
    prepared = ask("data/images, x.tar.gz, of.txt")
    assert [stage.action for stage in prepared.plan.stages] == ["train", "inference"]
    assert any("not there, and left out: image 'none.jpg'" in note for note in prepared.plan.notes)


def test_what_cannot_be_used_is_refused(ask: Callable[..., Prepared], tmp_path: Path) -> None:
    pack(tmp_path / "x.zip", {"../a.jpg": b""})
    (tmp_path / "torn.tgz").write_bytes(pack(tmp_path / "y.tgz").read_bytes()[:-20])
    (tmp_path / "empty").mkdir()
    for entry, problem in {
        "none": "none (dataset.infer_data_sources, image_dir) does not exist",
        "x.zip": "has an entry '../a.jpg', which leads out of it",
        "torn.tgz": "torn.tgz cannot be read",
        "empty": "holds no image",
        "data/coco.json": "is neither a folder, nor an archive",
    }.items():
        with pytest.raises(RequestError) as error:
            ask(entry)
        assert problem in str(error.value)


def test_classes_are_those_of_the_training_before(
    ask: Callable[..., Prepared], tmp_path: Path
) -> None:
    classmap = "dataset.infer_data_sources.classmap=map.txt"
    (tmp_path / "map.txt").write_text("thing\n")
    with pytest.raises(RequestError, match="all names would be wrong"):
        ask("data/images", classmap)
    (tmp_path / "map.txt").write_text("background\nDing\n")
    assert any(
        "'thing' in training and is 'Ding'" in n for n in ask("data/images", classmap).plan.notes
    )
    with pytest.raises(RequestError, match="colour for 'thong', which is no class"):
        ask("data/images", "inference.color_map={thong: red}")
    ask("data/images", "inference.color_map={thing: red}")


def test_of_a_checkpoint_by_its_path_only_the_size_is_known(
    ask: Callable[..., Prepared], tmp_path: Path
) -> None:
    """Its classes are not those of a training that happens to come before it."""
    classmap = "dataset.infer_data_sources.classmap=map.txt"
    other = ["inference.checkpoint=model.pth", classmap]
    (tmp_path / "map.txt").write_text("thing\nother\n")
    for action in ("train", "inference"):
        ask("data/images", *other, action=action)
    (tmp_path / "map.txt").write_text("a\nb\nc\n")
    with pytest.raises(RequestError, match=r"has 3 names, and dataset\.num_classes is 2"):
        ask("data/images", *other, action="inference")
