"""Which files and folders a spec names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spec_files import EVALUATE, NEEDED, TRAIN, load

from rtdetr_slurm.spec.experiment import ExperimentConfig
from rtdetr_slurm.spec.fields import walk
from rtdetr_slurm.spec.paths import absolute_paths, read_paths
from rtdetr_slurm.yaml_source import dotted

CWD = Path("/home/someone")
ALL = {
    "read": {
        "dataset.train_data_sources[].image_dir", "dataset.train_data_sources[].json_file",
        "dataset.val_data_sources.image_dir", "dataset.val_data_sources.json_file",
        "dataset.test_data_sources.image_dir", "dataset.test_data_sources.json_file",
        "dataset.infer_data_sources.image_dir", "dataset.infer_data_sources.classmap",
        "dataset.quant_calibration_data_sources.image_dir",
        "dataset.quant_calibration_data_sources.json_file",
        "model.pretrained_backbone_path", "model.frozen_fm.checkpoint",
        "train.pretrained_model_path", "train.resume_training_checkpoint_path",
        "evaluate.checkpoint", "evaluate.trt_engine",
        "inference.checkpoint", "inference.trt_engine", "export.checkpoint",
        "distill.pretrained_teacher_model_path", "distill.teacher.pretrained_backbone_path",
        "distill.teacher.frozen_fm.checkpoint", "quantize.model_path", "gen_trt_engine.onnx_file",
        "gen_trt_engine.tensorrt.calibration.cal_image_dir",
    },
    "write": {
        "results_dir", "train.results_dir", "train.checkpointer.dirpath", "evaluate.results_dir",
        "inference.results_dir", "export.results_dir", "distill.results_dir",
        "quantize.results_dir", "gen_trt_engine.results_dir",
    },
    "new": {"export.onnx_file", "gen_trt_engine.trt_engine"},
    "update": {
        "gen_trt_engine.timing_cache", "gen_trt_engine.tensorrt.calibration.cal_cache_file",
    },
}  # fmt: skip


def value_at(data: Any, path: str) -> Any:
    for part in path.replace("[]", ".0").split("."):
        data = data[int(part)] if isinstance(data, list) else data[part]
    return data


def whole_spec(value: str) -> dict[str, Any]:
    """Every section, with `value` wherever a path can stand."""
    source = {"image_dir": "x", "json_file": "x"}
    experiment = ExperimentConfig.model_validate(
        {
            "dataset": {
                "train_data_sources": [source],
                "val_data_sources": source,
                "test_data_sources": source,
                "infer_data_sources": {"image_dir": ["x"]},
                "quant_calibration_data_sources": source,
            }
        }
    )
    spec = experiment.model_dump()
    for path in set().union(*ALL.values()):
        *above, name = path.replace("[]", ".0").split(".")
        node = value_at(spec, ".".join(above)) if above else spec
        node[name] = [value, value] if isinstance(node[name], list) else value
    return spec


def test_every_path_is_declared_and_nothing_else() -> None:
    for kind, expected in ALL.items():
        declared = {
            dotted(ref.path) for ref in walk(ExperimentConfig) if ref.extra("x-path") == kind
        }
        assert declared == expected
    words = ("path", "dir", "dirpath", "file", "checkpoint", "engine", "cache", "classmap")
    for ref in walk(ExperimentConfig):
        looks_like_one = str(ref.path[-1]).split("_")[-1] in words and ref.nested is None
        assert looks_like_one <= (ref.extra("x-path") is not None) or ref.path == (
            "train",
            "activation_checkpoint",
        )


def test_all_of_them_become_absolute() -> None:
    spec = whole_spec("data/x")
    result = absolute_paths(spec, CWD)
    for path in set().union(*ALL.values()):
        value = value_at(result, path)
        for each in value if isinstance(value, list) else [value]:
            assert each == "/home/someone/data/x", path
    assert result["dataset"]["infer_data_sources"]["image_dir"] == ["/home/someone/data/x"] * 2
    assert spec == whole_spec("data/x")  # the original is left alone


def test_what_is_left_as_it_is() -> None:
    for text in ("", "???", "s3://bucket/images.tar.gz", "/absolute"):
        assert absolute_paths(whole_spec(text), CWD) == whole_spec(text)
    result = absolute_paths({"results_dir": "../out", "train": {"results_dir": "~/x/"}}, CWD)
    assert result == {"results_dir": "/home/out", "train": {"results_dir": str(Path.home() / "x")}}


def test_what_train_reads(tmp_path: Path) -> None:
    overrides = [
        "dataset.val_data_sources={image_dir: /v, json_file: /v.json}",
        "dataset.train_data_sources[1]={image_dir: /data/images, json_file: /b.json}",
        "dataset.test_data_sources={image_dir: /t, json_file: /t.json}",
        "model.pretrained_backbone_path=/b.pth",
        "train.resume_training_checkpoint_path=/r.pth",
        "distill.teacher.pretrained_backbone_path=/teacher.pth",
        "evaluate.checkpoint=/e.pth",
    ]
    resolved = load(tmp_path, TRAIN, *overrides, action="train").resolved()
    assert read_paths(resolved, "train") == [
        "/b.pth", "/data/images", "/data/train.json", "/b.json", "/v", "/v.json", "/r.pth",
    ]  # fmt: skip


def test_what_the_others_read(tmp_path: Path) -> None:
    weights = ["model.pretrained_backbone_path=/b.pth"]
    resolved = load(tmp_path, EVALUATE, *weights, action="evaluate").resolved()
    assert read_paths(resolved, "evaluate") == [
        "/data/images", "/data/test.json", "/runs/model_epoch_009.pth",
    ]  # fmt: skip
    more = ["distill.teacher.pretrained_backbone_path=/teacher.pth"]
    resolved = load(tmp_path, "", *NEEDED["distill"], *weights, *more, action="distill").resolved()
    assert read_paths(resolved, "distill") == ["/b.pth", "/i", "/j", "/t", "/teacher.pth"]
    more = [f"dataset.infer_data_sources.image_dir.{n}=/k{n}" for n in (1, 2)]
    more += ["dataset.infer_data_sources.image_dir.3=/lists/a.txt"]  # its images are beside it
    more += ["dataset.infer_data_sources.classmap=/m.txt"]
    resolved = load(tmp_path, "", *NEEDED["inference"], *more, action="inference").resolved()
    assert read_paths(resolved, "inference") == ["/i", "/k1", "/k2", "/lists", "/m.txt", "/c"]
    resolved = load(tmp_path, "", *NEEDED["gen_trt_engine"]).resolved()
    assert read_paths(resolved, "gen_trt_engine") == ["/o"]


def test_of_hugging_faces_weights_the_folder_is_read() -> None:
    """It has config.json beside them."""
    resolved = {"evaluate": {"checkpoint": "/hub/r50/model.safetensors"}}
    assert read_paths(resolved, "evaluate") == ["/hub/r50"]
    assert read_paths({"evaluate": {"checkpoint": "/w/a.safetensors"}}, "evaluate") == [
        "/w/a.safetensors"
    ]
