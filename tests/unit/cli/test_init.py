"""`rtdetr-slurm init`."""

from __future__ import annotations

from pathlib import Path

import pytest
from coco_support import coco, written

from rtdetr_slurm.cli.main import main
from rtdetr_slurm.spec import load_spec


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        written(tmp_path / "data" / split / "annotations.json", coco())
        for name in ("a.jpg", "b.jpg"):
            written(tmp_path / "data" / split / "images" / name, "")
    return tmp_path / "data"


def init(data: Path, *more: str) -> int:
    return main(["init", str(data), "--site", "local", *more])


def test_what_is_printed_is_what_is_written(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init(data, "num_epochs=5") == 0
    printed = capsys.readouterr().out
    path = tmp_path / "spec.yaml"
    assert init(data, "train.num_epochs=5", "-o", str(path)) == 0
    assert path.read_text() == printed
    experiment = load_spec(path, action="train").experiment
    assert experiment.train.num_epochs == 5
    assert experiment.train.optim.lr_steps == [5]
    assert experiment.dataset.num_classes == 4
    assert experiment.dataset.val_data_sources.image_dir == str(data / "val" / "images")


def test_a_file_that_is_there_stays(data: Path, tmp_path: Path, capsys) -> None:
    path = written(tmp_path / "spec.yaml", "mine")
    assert init(data, "-o", str(path)) == 2
    assert "exists already" in capsys.readouterr().err
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["train.num_epoch=5"], "did you mean 'num_epochs'"),
        (["train.num_epochs=0"], "train.num_epochs"),
        (["train.num_gpus=many"], "train.num_gpus"),
        (["train.num_epochs=3", "train.validation_interval=4"], "train.validation_interval"),
        (["num_epochs"], "num_epochs"),
        (["--gpu-memory", "0"], "allowed is 1 GiB and more"),
    ],
)
def test_what_is_given_wrongly_is_refused(
    data: Path, more: list[str], message: str, capsys
) -> None:
    assert init(data, *more) == 2
    assert message in capsys.readouterr().err


def test_what_is_no_data_set_is_refused(tmp_path: Path, capsys) -> None:
    assert init(tmp_path / "nowhere") == 2
    assert "is not a folder" in capsys.readouterr().err
    assert init(tmp_path) == 2
    assert "data convert" in capsys.readouterr().err


def test_what_trains_decides_on_what_can_be_asked_for(data: Path, tmp_path: Path, capsys) -> None:
    site = written(tmp_path / "site.yaml", "engine: tao\nimage: /images/tao.sif\n")
    assert main(["init", str(data), "--site", str(site)]) == 0
    printed = capsys.readouterr().out
    assert "dec_layers: 3" in printed
    assert "expansion" not in printed


def test_the_memory_of_the_gpus_decides_on_the_batch(data: Path, capsys) -> None:
    assert init(data, "--gpu-memory", "80") == 0
    assert "A GPU of 80 GiB (--gpu-memory)" in capsys.readouterr().out
