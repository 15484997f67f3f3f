"""Roots of datasets fill the sources that actions need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.spec import LoadedSpec, load_spec

S3 = {
    "train": ["s3://b/data/train", "s3://b/data/more/"],
    "eval": "s3://b/data/eval",
    "inference": "s3://b/data/new",
    "calibration": "s3://b/data/cal",
}


DISTILLED = (
    "distill.pretrained_teacher_model_path=/t.pth",
    "distill.bindings=[{student_module_name: srcs, teacher_module_name: srcs, criterion: IOU}]",
)


def annotated(root: str) -> dict[str, str]:
    return {"image_dir": f"{root}/images.tar.gz", "json_file": f"{root}/annotations.json"}


TRAIN = [annotated("s3://b/data/train"), annotated("s3://b/data/more")]
EVAL, CAL = annotated("s3://b/data/eval"), annotated("s3://b/data/cal")
INFER = {
    "image_dir": ["s3://b/data/new/images.tar.gz"],
    "classmap": "s3://b/data/new/label_map.txt",
}


def load(folder: Path, action: str, text: str = "{}", *overrides: str, **roots: Any) -> LoadedSpec:
    path = folder / "spec.yaml"
    path.write_text(text)
    given = [f"job.datasets={roots}".replace("'", '"')] if roots else []
    return load_spec(path, [*given, *overrides], action)


def sources(loaded: LoadedSpec) -> dict[str, Any]:
    dataset = loaded.resolved()["dataset"]
    kinds = ("train", "val", "test", "infer", "quant_calibration")
    found = {kind: dataset.get(f"{kind}_data_sources") for kind in kinds}
    return {kind: value for kind, value in found.items() if value}


@pytest.mark.parametrize(
    ("action", "more", "expected"),
    [
        ("train", (), {"train": TRAIN, "val": EVAL}),
        (
            "distill",
            DISTILLED,
            {"train": TRAIN, "val": EVAL},
        ),
        ("evaluate", ("evaluate.checkpoint=/c.pth",), {"test": EVAL}),
        ("inference", ("inference.checkpoint=/c.pth",), {"infer": INFER}),
        (
            "quantize",
            ("quantize.model_path=/c.pth",),
            {"train": TRAIN, "val": EVAL, "quant_calibration": CAL},
        ),
        ("gen_trt_engine", ("gen_trt_engine.onnx_file=/c.onnx",), {"quant_calibration": CAL}),
        ("export", ("export.checkpoint=/c.pth",), {}),
    ],
)
def test_each_action_gets_what_it_needs(
    tmp_path: Path, action: str, more: tuple[str, ...], expected: dict[str, Any]
) -> None:
    assert sources(load(tmp_path, action, "{}", *more, **S3)) == expected


def test_a_chain_gets_what_all_of_it_needs(tmp_path: Path) -> None:
    found = sources(load(tmp_path, "train", "{}", "job.then=[evaluate, inference]", **S3))
    assert found == {"train": TRAIN, "val": EVAL, "test": EVAL, "infer": INFER}


def test_what_the_spec_says_wins_and_placeholders_do_not(tmp_path: Path) -> None:
    text = """
dataset:
  train_data_sources: [{image_dir: '???', json_file: '???'}]
  val_data_sources: {image_dir: /mine, json_file: /mine.json}
"""
    found = sources(
        load(tmp_path, "train", text, train="s3://b/data/train", eval="s3://b/data/eval")
    )
    assert found == {
        "train": [annotated("s3://b/data/train")],
        "val": {"image_dir": "/mine", "json_file": "/mine.json"},
    }


def test_a_folder_may_have_its_images_unpacked(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    found = sources(load(tmp_path, "train", train=[str(tmp_path), "/packed"]))
    assert found["train"] == [
        {"image_dir": f"{tmp_path}/images", "json_file": f"{tmp_path}/annotations.json"},
        annotated("/packed"),
    ]


def test_a_quantization_calibrates_on_what_was_trained_on(tmp_path: Path) -> None:
    loaded = load(tmp_path, "quantize", "{}", "quantize.model_path=/c.pth", train=S3["train"])
    assert sources(loaded)["quant_calibration"] == TRAIN[0]


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"dataset\.test_data_sources.*job\.datasets\.eval"):
        load(tmp_path, "evaluate", "{}", "evaluate.checkpoint=/c.pth", train=S3["train"])
    with pytest.raises(RequestError, match=r"job\.datasets\.evil.*unknown|job\.datasets.*evil"):
        load(tmp_path, "train", "job: {datasets: {evil: /x}}")


@pytest.mark.parametrize(("form", "images"), [("coco", "images.tar.gz"), ("coco_raw", "images")])
def test_a_format_says_how_images_lie(tmp_path: Path, form: str, images: str) -> None:
    (tmp_path / "images").mkdir()
    roots = [str(tmp_path), "s3://b/train"]
    found = sources(load(tmp_path, "train", train=roots, format=form))
    assert [one["image_dir"] for one in found["train"]] == [f"{root}/{images}" for root in roots]
