"""open_detector: every file that does not fit is refused by name before anything loads it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from deploy_support import RECORD
from onnx_support import METADATA, exported, outputs, tiny_detector

from rtdetr_slurm.deploy import targets
from rtdetr_slurm.deploy.detector import open_detector
from rtdetr_slurm.deploy.targets import capability_to_build_for
from rtdetr_slurm.deploy.tensorrt import TensorRt, open_tensorrt
from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.files import sha256_of
from rtdetr_slurm.runs.artefacts import engine_record

CPU = torch.device("cpu")
ENGINE = b"an engine"


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("onnx"), tiny_detector(), (64, 96))


@pytest.fixture
def engine(tmp_path: Path, onnx: Path) -> Path:
    """An engine file as RTX leaves it, with its record and the ONNX file that it was built from."""
    path = tmp_path / "rtdetr.engine"
    path.write_bytes(ENGINE)
    (tmp_path / RECORD.onnx).symlink_to(onnx)
    record = replace(
        RECORD,
        engine_sha256=sha256_of(path),
        onnx_sha256=sha256_of(onnx),
        runtime="tensorrt_rtx",
        runtime_version=open_tensorrt("tensorrt_rtx").version,
    )
    engine_record(path).write_text(record.text())
    return path


def changed(engine: Path, old: str, new: str) -> Path:
    path = engine_record(engine)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return engine


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch would say on a machine with an L4."""
    monkeypatch.setattr(targets, "capability_here", lambda device: "8.9")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA L4")


def test_an_onnx_file(onnx: Path) -> None:
    found = open_detector(onnx, None, CPU)
    assert (found.metadata, found.size, found.num_queries, found.num_classes) == (
        *(METADATA, (64, 96), 10, 3),
    )
    assert (found.precision, found.max_batch, found.record) == ("FP32", None, None)
    assert str(found.runtime).startswith("onnxruntime 1.")
    images = torch.rand(3, 3, 64, 96)
    expected = outputs(tiny_detector(), images)
    torch.testing.assert_close(
        found(images)["pred_boxes"], expected["pred_boxes"], atol=1e-4, rtol=0
    )


def test_onnx_runtime_runs_what_an_engine_was_built_from(engine: Path) -> None:
    found = open_detector(engine, "onnxruntime", CPU)
    assert found.record is not None
    assert (found.precision, found.runtime.name) == ("INT8", "onnxruntime")
    assert found(torch.zeros(1, 3, 64, 96))["pred_logits"].shape == (1, 10, 3)
    (engine.with_name(RECORD.onnx)).unlink()
    (engine.with_name(RECORD.onnx)).write_bytes(b"another")
    with pytest.raises(RequestError, match="is damaged, or is not the file"):
        open_detector(engine, "onnxruntime", CPU)


def test_without_a_gpu_it_is_said_what_runs_anywhere(engine: Path) -> None:
    with pytest.raises(
        SiteError, match=r"8\.9, and this process has none; .*--runtime onnxruntime"
    ):
        open_detector(engine, None, CPU)


@pytest.mark.parametrize(
    ("runtime", "said"),
    [
        ("tensorrt", "was built by tensorrt_rtx; found --runtime tensorrt"),
        ("onnxruntime", ""),
        (None, "this process has none"),
    ],
)
def test_the_runtime_is_the_engines(engine: Path, runtime: str | None, said: str) -> None:
    if said:
        with pytest.raises((RequestError, SiteError), match=said):
            open_detector(engine, runtime, CPU)
    else:
        open_detector(engine, runtime, CPU)


def test_an_onnx_file_is_no_engine(onnx: Path) -> None:
    with pytest.raises(RequestError, match=r"is an ONNX file, and tensorrt runs engines: build"):
        open_detector(onnx, "tensorrt", CPU)


def test_an_engine_of_another_version(engine: Path, gpu: None) -> None:
    changed(engine, open_tensorrt("tensorrt_rtx").version, "1.0.0.1")
    with pytest.raises(RequestError, match=r"by tensorrt_rtx 1\.0\.0\.1 and runs in that version"):
        open_detector(engine, None, CPU)


def test_an_engine_for_another_gpu(engine: Path, gpu: None) -> None:
    changed(engine, '"8.9"', '"8.6"')
    said = (
        r"for GPUs of compute capability 8\.6 \(NVIDIA L4\); here is 8\.9 \(NVIDIA L4\): build it"
    )
    with pytest.raises(RequestError, match=said):
        open_detector(engine, None, CPU)


def test_a_damaged_engine_is_not_loaded(engine: Path, gpu: None) -> None:
    engine.write_bytes(ENGINE[:-1])
    with pytest.raises(RequestError, match="is damaged, or is not the file that"):
        open_detector(engine, None, CPU)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="does not exist"):
        open_detector(tmp_path / "rtdetr.engine", None, CPU)


def test_an_engine_of_somebody_else(tmp_path: Path) -> None:
    path = tmp_path / "model.plan"
    path.write_bytes(ENGINE)
    with pytest.raises(RequestError, match=r"model\.plan\.json is missing"):
        open_detector(path, None, CPU)


def test_a_library_that_is_not_installed() -> None:
    with pytest.raises(SiteError, match=r"no module tensorrt \(.*TensorRT image"):
        open_tensorrt("tensorrt")
    assert open_tensorrt(None).name == "tensorrt_rtx"


class TestTarget:
    RTX = open_tensorrt("tensorrt_rtx")
    PROPER = TensorRt("tensorrt", "10.13.3.9", None)

    def test_rtx_builds_for_a_gpu_that_is_elsewhere(self) -> None:
        assert capability_to_build_for(self.RTX, "8.6", CPU) == "8.6"
        assert capability_to_build_for(self.RTX, "12.0", CPU) == "12.0"

    def test_for_the_one_that_is_here(self, gpu: None) -> None:
        assert capability_to_build_for(self.RTX, None, CPU) == "8.9"
        assert capability_to_build_for(self.PROPER, None, CPU) == "8.9"
        assert capability_to_build_for(self.PROPER, "8.9", CPU) == "8.9"

    def test_nobody_says_which(self) -> None:
        with pytest.raises(RequestError, match=r"--compute-capability N\.N .*allowed: 7\.5, 8\.0"):
            capability_to_build_for(self.RTX, None, CPU)

    @pytest.mark.parametrize("asked", ["9.0", "sm_89", "89"])
    def test_one_that_rtx_does_not_build_for(self, asked: str) -> None:
        with pytest.raises(RequestError, match=rf"found {asked}; tensorrt_rtx .* for 7\.5, 8\.0"):
            capability_to_build_for(self.RTX, asked, CPU)

    def test_a_gpu_that_rtx_does_not_build_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(targets, "capability_here", lambda device: "9.0")
        with pytest.raises(RequestError, match=r"the GPU here has compute capability 9\.0; tens"):
            capability_to_build_for(self.RTX, None, CPU)

    def test_tensorrt_needs_the_gpu_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(SiteError, match="this process has none; submit gen_trt_engine to"):
            capability_to_build_for(self.PROPER, "8.9", CPU)
        monkeypatch.setattr(targets, "capability_here", lambda device: "9.0")
        with pytest.raises(RequestError, match=r"found 8\.9; tensorrt 10.* builds here for 9\.0"):
            capability_to_build_for(self.PROPER, "8.9", CPU)
