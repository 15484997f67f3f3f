"""The graph of an export: what is in it, and that it computes what the detector does."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from onnx_support import METADATA, exported, outputs, tiny_detector

from rtdetr_slurm.engine import onnx_graph
from rtdetr_slurm.spec.export import OPSETS
from rtdetr_slurm.vision.onnx_runtime import open_onnx
from rtdetr_slurm.vision.parity import differences_of


@pytest.mark.parametrize(
    ("size", "batch", "opset"),
    [((64, 96), None, OPSETS[0]), ((96, 64), 2, OPSETS[-1]), ((64, 64), 1, OPSETS[1])],
)
def test_it_computes_what_the_detector_does(
    tmp_path: Path, size: tuple[int, int], batch: int | None, opset: int
) -> None:
    """Position code and anchors are those of the size that is asked for, whatever that is, and any
    number of images goes through."""
    model = tiny_detector()
    path = exported(tmp_path, model, size, batch, opset)
    detector = open_onnx(path)
    assert (detector.size, detector.batch) == (size, batch)
    assert onnx.load(path).opset_import[0].version == opset
    for images in (torch.rand(n, 3, *size) for n in (1, 3)):
        expected, found = outputs(model, images), detector(images)
        assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in expected.items()}
        assert differences_of(expected, found).max() < 1e-4


def test_what_is_in_it(tmp_path: Path) -> None:
    """What TensorRT, or any other runtime, has to know: ONNX's own operators, layer normalization
    among them, batch norms folded, no arithmetic on shapes, nothing open but the batch."""
    model = tiny_detector()
    graph = onnx.load(exported(tmp_path, model, (64, 96))).graph
    kinds = {node.op_type for node in graph.node}
    assert {node.domain for node in graph.node} == {""}
    assert {"LayerNormalization", "GridSample", "TopK"} <= kinds
    assert not kinds & {"BatchNormalization", "Shape", "Identity", "Loop", "If", "NonZero"}
    assert not any("64-bit" in node.doc_string or node.doc_string for node in graph.node)
    shapes = {
        value.name: [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {
        "inputs": ["batch", 3, 64, 96],
        "pred_logits": ["batch", 10, 3],
        "pred_boxes": ["batch", 10, 4],
    }
    weights = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    folded = sum(array.ndim == 4 for array in weights.values())
    assert folded < sum(isinstance(m, torch.nn.Conv2d) for m in model.modules())  # RepVGG merged
    limit = 2**31 - 1
    integers = [array for array in weights.values() if array.dtype == "int64"]
    assert all(abs(array).max() <= limit for array in integers if array.size)
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules()), "left as it was"


def test_weights_beyond_what_one_file_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They go into a file beside it, and the ONNX file names that one without its folder."""
    monkeypatch.setattr(onnx_graph, "MAX_BYTES", 1000)
    model = tiny_detector()
    graph = onnx_graph.trace(model, (64, 64), batch=None, opset=17, metadata=METADATA.properties())
    onnx_graph.save(graph, tmp_path / "a.onnx")
    made = sorted(tmp_path.iterdir(), reverse=True)
    assert [path.name for path in made] == ["a.onnx.data", "a.onnx"]
    assert made[0].stat().st_size > 10 * made[1].stat().st_size
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in made:
        path.rename(moved / path.name)
    images = torch.rand(2, 3, 64, 64)
    found = open_onnx(moved / "a.onnx")(images)
    assert differences_of(outputs(model, images), found).max() < 1e-4
