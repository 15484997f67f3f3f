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
from rtdetr_slurm.runs.checkpoint_record import read_weights_record

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
    assert read_weights_record(write(tmp_path / "c.pth", pickle.dumps(content, 2))).spec == SPEC
    assert not harm.exists()


@pytest.mark.parametrize(
    "content",
    [{"model": {}}, {"tao_model": "other", "spec": SPEC}, {"tao_model": "rtdetr"}, [SPEC]],
    ids=str,
)
def test_weights_from_elsewhere_have_none(tmp_path: Path, content: object) -> None:
    assert read_weights_record(write(tmp_path / "w.pth", pickle.dumps(content, 2))).spec is None


def test_files_of_other_kinds_have_none(tmp_path: Path) -> None:
    assert read_weights_record(write(tmp_path / "z.zip", b"", "readme.txt")).spec is None


def test_shapes_of_the_tensors_that_would_be_used(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    model = torch.nn.Linear(3, 2)
    averaged = {"weight": torch.zeros(5, 3), "bias": torch.zeros(5)}
    shapes = {"weight": (2, 3), "bias": (2,)}
    contents = {
        "plain": (model.state_dict(), shapes),
        "parameters": (dict(model.named_parameters()), shapes),
        "official": (
            {"ema": {"module": averaged}, "model": model.state_dict()},
            {
                "weight": (5, 3),
                "bias": (5,),
            },
        ),
        "without average": ({"ema": None, "model": model.state_dict(), "epoch": 3}, shapes),
        "nothing": ({"epoch": 3}, {}),
    }
    for name, (content, expected) in contents.items():
        torch.save(content, tmp_path / "w.pth")
        record = read_weights_record(tmp_path / "w.pth")
        assert (record.shapes, record.spec, record.resumable) == (expected, None, False), name
    torch.save(model.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert read_weights_record(tmp_path / "old.pth").shapes == {}
    save_file(model.state_dict(), tmp_path / "w.safetensors", metadata={"format": "pt"})
    assert read_weights_record(tmp_path / "w.safetensors").shapes == shapes


def test_only_a_whole_training_can_be_resumed(tmp_path: Path) -> None:
    own = {"tao_model": "rtdetr", "spec": SPEC}
    path = write(tmp_path / "c.pth", pickle.dumps(own, 2))
    assert not read_weights_record(path).resumable
    write(path, pickle.dumps({**own, "optimizer": {}}, 2))
    assert read_weights_record(path).resumable


def test_what_lies_beside_hugging_faces_weights(tmp_path: Path) -> None:
    path = write(tmp_path / "pytorch_model.bin", pickle.dumps({}, 2))
    assert read_weights_record(path).config is None
    (tmp_path / "config.json").write_text('{"model_type": "rt_detr"}')
    assert read_weights_record(path).config == {"model_type": "rt_detr"}
    assert read_weights_record(write(tmp_path / "w.pth", pickle.dumps({}, 2))).config is None
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(BadRecord, match=r"config\.json: this is not JSON"):
        read_weights_record(path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadRecord, match="cannot be read as a checkpoint"):
        read_weights_record(
            write(tmp_path / "c.pth", pickle.dumps({"tao_model": "rtdetr"}, 2)[:-9])
        )
    (tmp_path / "w.safetensors").write_bytes(b"\x10" + bytes(31))
    with pytest.raises(BadRecord, match="cannot be read as a checkpoint"):
        read_weights_record(tmp_path / "w.safetensors")
    with pytest.raises(FileNotFoundError):
        read_weights_record(tmp_path / "gone.pth")
