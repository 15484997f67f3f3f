"""Where GPUs have too little memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rtdetr_slurm.plan.hardware import gpu_memory_gb
from rtdetr_slurm.plan.make import frozen_spec, make_plan
from rtdetr_slurm.site.profile import Gpu, Site
from rtdetr_slurm.spec import load_spec

SPEC = """\
dataset:
  train_data_sources: [{image_dir: /d/train, json_file: /d/train.json}]
  val_data_sources: {image_dir: /d/val, json_file: /d/val.json}
  batch_size: 8
"""


def notes(folder: Path, gpu: dict[str, Any], *overrides: str, **profile: Any) -> str:
    path = folder / "train.yaml"
    path.write_text(SPEC)
    at = Site.model_validate({"accelerator": "cuda", "image": "/i.sif", "gpu": gpu} | profile)
    loaded = load_spec(path, overrides)
    spec = frozen_spec(loaded, run_dir=Path("/runs/x"), cwd=folder)
    found = make_plan(loaded, spec, at, run_dir=Path("/runs/x")).notes
    return "\n".join(note for note in found if "GiB" in note)


def test_less_than_16_gib_is_little(tmp_path: Path) -> None:
    note = notes(tmp_path, {"memory_gb": 12}, "dataset.batch_size=2")
    assert note.startswith("the GPUs of stage train have 12 GiB")
    assert "at least 16" in note


def test_eight_images_of_640_fit_16_gib_and_nine_may_not(tmp_path: Path) -> None:
    assert notes(tmp_path, {"memory_gb": 16}) == ""
    assert notes(tmp_path, {"memory_gb": 16}, "dataset.batch_size=9") == (
        "dataset.batch_size: 9 images of 640×640 may not fit a GPU of 16 GiB; about 8 do: lower "
        "it, or set train.precision to bf16, or train at a smaller size"
    )


@pytest.mark.parametrize(
    ("gpu", "overrides", "fits"),
    [
        ({"memory_gb": 80}, ["dataset.batch_size=32"], True),
        ({"memory_gb": 16}, ["dataset.batch_size=12", "train.precision=bf16"], True),
        ({"memory_gb": 16}, ["train.activation_checkpoint=false"], False),
        ({"memory_gb": 16}, ["dataset.augmentation.train_spatial_size=[960,960]"], False),
        ({"memory_gb": 16}, ["dataset.augmentation.multi_scales=[640,1280]"], False),
        ({"memory_gb": 16}, ["dataset.augmentation.multi_scales=[]"], True),
    ],
)
def test_what_else_takes_memory(
    tmp_path: Path, gpu: dict[str, Any], overrides: list[str], fits: bool
) -> None:
    assert (notes(tmp_path, gpu, *overrides) == "") is fits


def test_nothing_is_said_where_nothing_is_known_or_needed(tmp_path: Path) -> None:
    assert notes(tmp_path, {}, "dataset.batch_size=99") == ""
    assert notes(tmp_path, {"memory_gb": 4}, accelerator="cpu") == ""


@pytest.mark.parametrize(
    ("kind", "gib"),
    [("t4", 16), ("Tesla_T4", 16), ("nvidia_rtx_a4000", 16), ("a100", None), ("gtx_1080_ti", 11)],
)
def test_some_types_say_how_much_they_have(kind: str, gib: float | None) -> None:
    assert gpu_memory_gb(Gpu(type=kind)) == gib
    assert gpu_memory_gb(Gpu(type=kind, memory_gb=7)) == 7
