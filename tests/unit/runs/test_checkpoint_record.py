"""What a checkpoint says of itself, read without torch and without running anything in it."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

from rtdetr_slurm.records import BadRecord
from rtdetr_slurm.runs.checkpoint_record import stored_spec

SPEC = {"model": {"backbone": "resnet_18"}, "dataset": {"num_classes": 4}}


class Harmful:
    """What a file of plain weights would not hold."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def write(path: Path, content: bytes, name: str = "archive/data.pkl") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, content)
    return path


def test_the_spec_is_read_and_nothing_is_run(tmp_path: Path) -> None:
    harm = tmp_path / "harm"
    content = {
        "tao_model": "rtdetr",
        "model": OrderedDict(weight=Harmful(harm)),
        "spec": SPEC,
    }
    assert stored_spec(write(tmp_path / "c.pth", pickle.dumps(content, 2))) == SPEC
    assert not harm.exists()


@pytest.mark.parametrize(
    "content",
    [{"model": {}}, {"tao_model": "other", "spec": SPEC}, {"tao_model": "rtdetr"}, [SPEC]],
    ids=str,
)
def test_weights_from_elsewhere_have_none(tmp_path: Path, content: object) -> None:
    assert stored_spec(write(tmp_path / "w.pth", pickle.dumps(content, 2))) is None


def test_files_of_other_kinds_have_none(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"\x10" + bytes(31))
    assert stored_spec(tmp_path / "w.safetensors") is None
    assert stored_spec(write(tmp_path / "z.zip", b"", "readme.txt")) is None


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadRecord, match="cannot be read as a checkpoint"):
        stored_spec(write(tmp_path / "c.pth", pickle.dumps({"tao_model": "rtdetr"}, 2)[:-9]))
    with pytest.raises(FileNotFoundError):
        stored_spec(tmp_path / "gone.pth")
