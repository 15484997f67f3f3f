"""Engines on the GPU that is here: what they compute, whatever the batch, and what they refuse.

With TensorRT's own module where it is installed, else with TensorRT-RTX.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engine_support import Workspace, open_workspace
from onnx_support import exported, tiny_detector
from torch import Tensor

from rtdetr_slurm.deploy.actions.gen_trt_engine import gen_trt_engine
from rtdetr_slurm.deploy.detector import Detector, open_detector
from rtdetr_slurm.deploy.record import read_record
from rtdetr_slurm.engine.process.distributed import Context
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.runs.artefacts import engine_record

SIZE = (64, 96)
WITHIN = {"FP32": 1e-3, "FP16": 0.05}
"""How far scores and coordinates may be from ONNX Runtime's on the CPU."""
GPU = torch.device("cuda", 0)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with open_workspace(tmp_path_factory.mktemp("work")) as opened:
        yield opened


@pytest.fixture(scope="module", params=WITHIN)
def engine(request: pytest.FixtureRequest, workspace: Workspace) -> Path:
    """Built here for batches of 2 to 4."""
    folder = workspace.root / request.param
    folder.mkdir()
    source = exported(folder, tiny_detector(num_classes=4), SIZE)
    session = workspace.session(
        f"gen_trt_engine.onnx_file={source}",
        f"gen_trt_engine.results_dir={folder}/made",
        f"gen_trt_engine.timing_cache={folder}/timing.cache",
        f"gen_trt_engine.tensorrt={{data_type: {request.param}, min_batch_size: 2, "
        "opt_batch_size: 3, max_batch_size: 4}",
        name="gen_trt_engine",
    )
    gen_trt_engine(replace(session, context=Context(0, 1, 0, 1, GPU)))
    return folder / "made" / "rtdetr.engine"


@pytest.fixture(scope="module")
def detector(engine: Path) -> Detector:
    return open_detector(engine, None, GPU)


def images(count: int) -> Tensor:
    return torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9])
def test_any_number_of_images_as_onnx_runtime_has_it(
    engine: Path, detector: Detector, count: int
) -> None:
    expected = open_detector(engine, "onnxruntime", GPU)(images(count))
    found = detector(images(count).to(GPU))
    within = WITHIN[detector.precision]
    for name, tensor in found.items():
        assert tensor.device == GPU
        assert tensor.shape == expected[name].shape
        torch.testing.assert_close(tensor.cpu(), expected[name], atol=within, rtol=within)


def test_calls_do_not_disturb_each_other(detector: Detector) -> None:
    """Outputs of one call stay what they are while the next ones run."""
    batches = [images(count).to(GPU) for count in (4, 2, 3, 4)]
    alone = [{name: one.clone() for name, one in detector(batch).items()} for batch in batches]
    torch.cuda.synchronize()
    together = [detector(batch) for batch in batches]
    torch.cuda.synchronize()
    for one, other in zip(alone, together, strict=True):
        for name, tensor in one.items():
            torch.testing.assert_close(tensor, other[name], atol=1e-5, rtol=1e-5)


def test_images_of_another_size(detector: Detector) -> None:
    with pytest.raises(RequestError, match="the engine takes images of 3x64x96, got 3x64x64"):
        detector(torch.zeros(2, 3, 64, 64, device=GPU))


def test_the_record_says_where_it_was_built(engine: Path, detector: Detector) -> None:
    record = read_record(engine)
    major, minor = torch.cuda.get_device_capability(GPU)
    assert record.compute_capability == f"{major}.{minor}"
    assert record.gpu == torch.cuda.get_device_name(GPU)
    assert detector.max_batch == 4


def test_a_record_of_another_engine(engine: Path, tmp_path: Path) -> None:
    """What the engine itself says of its inputs and outputs is compared, too."""
    copy = tmp_path / engine.name
    copy.write_bytes(engine.read_bytes())
    wrong = replace(read_record(engine), num_queries=11)
    engine_record(copy).write_text(wrong.text())
    with pytest.raises(RequestError, match="the engine's inputs and outputs are"):
        open_detector(copy, None, GPU)
