"""Engines of real detectors, built by TensorRT-RTX for GPUs that are elsewhere.

TensorRT reads every graph that `rtdetr export` leaves, in every precision, with a dynamic batch.
Running an engine takes a GPU: tests/gpu.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import ModelProto
from onnx_support import exported, tiny_detector
from precision_support import calibration

from rtdetr_slurm.deploy.precision import typed
from rtdetr_slurm.deploy.record import Profile
from rtdetr_slurm.deploy.tensorrt import Log, Request, TensorRt, open_tensorrt
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.spec.gen_trt_engine import TensorRtConfig

SIZE = (64, 96)
CAPABILITIES = ("8.6", "8.9")
LEVELS = {
    "return_interm_indices": [1, 2, 3],
    "feat_strides": [8, 16, 32],
    "feat_channels": [32, 32, 32],
    "num_feature_levels": 3,
    "use_encoder_idx": [2],
}
"""Those of a whole detector; the engine's small tests leave the last stages away."""


@pytest.fixture(scope="module")
def library() -> TensorRt:
    return open_tensorrt("tensorrt_rtx")


@pytest.fixture(scope="module", params=["resnet_18_vd", "resnet_50_vd"])
def graph(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelProto:
    folder = tmp_path_factory.mktemp(request.param)
    return onnx.load(exported(folder, tiny_detector(backbone=request.param, **LEVELS), SIZE))


def built(library: TensorRt, model: ModelProto, capability: str) -> bytes:
    log = Log()
    request = Request(Profile(1, 2, 4), SIZE, workspace_mb=512, capability=capability)
    found = library.build(model.SerializeToString(), request, log)
    assert log.errors == []
    assert "Engine generation completed" in found.log
    return bytes(found.plan)


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_a_detector_in_every_precision(
    library: TensorRt, graph: ModelProto, capability: str
) -> None:
    sizes = {}
    for precision in ("FP32", "FP16", "INT8"):
        config = TensorRtConfig(data_type=precision)
        model = typed(graph, config, lambda: calibration(size=SIZE)).model
        sizes[precision] = len(built(library, model, capability))
    assert sizes["FP32"] > 1_000_000
    assert max(sizes["FP16"], sizes["INT8"]) < 0.75 * sizes["FP32"], sizes


def test_what_tensorrt_does_not_know_is_named(library: TensorRt, tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 4])
    made = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 4])
    node = onnx.helper.make_node("Multinomial", ["x"], ["y"], name="odd", domain="somebody")
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [value], [made]))
    path = tmp_path / "odd.onnx"
    onnx.save_model(model, str(path))
    request = Request(None, SIZE, workspace_mb=1, capability="8.9")
    for source in (path, path.read_bytes(), b"no graph"):
        with pytest.raises(RequestError, match="cannot read the ONNX graph: ") as error:
            library.build(source, request, Log())
        assert source == b"no graph" or "operator Multinomial" in str(error.value)
