"""The ONNX file that an engine is built from: what it may be, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper
from onnx_support import METADATA

from rtdetr_slurm.deploy.source import read_graph, with_batch
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.spec import ExperimentConfig

EXPERIMENT = ExperimentConfig.model_validate({"dataset": {"num_classes": 3}})
PLUGIN = "MultiscaleDeformableAttnPlugin_TRT"


def written(
    folder: Path,
    image: Any = ("batch", 3, 64, 96),
    logits: Any = ("batch", 10, 3),
    boxes: Any = ("batch", 10, 4),
    operator: tuple[str, str] = ("Identity", ""),
    metadata: dict[str, str] | None = None,
) -> Path:
    """A file with the inputs and outputs of a detector; what is between them does not matter."""
    name, domain = operator
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("inputs", image), ("pred_logits", logits), ("pred_boxes", boxes))
    ]
    nodes = [
        helper.make_node(name, ["inputs"], [output], domain=domain)
        for output in ("pred_logits", "pred_boxes")
    ]
    graph = helper.make_graph(nodes, "detector", values[:1], values[1:])
    domains = [helper.make_opsetid(one, 17) for one in dict.fromkeys(("", domain))]
    model = helper.make_model(graph, opset_imports=domains)
    helper.set_model_props(model, METADATA.properties() if metadata is None else metadata)
    path = folder / "a.onnx"
    onnx.save_model(model, str(path))
    return path


def test_a_file_says_what_it_is(tmp_path: Path) -> None:
    found = read_graph(written(tmp_path), None, EXPERIMENT)
    assert (found.size, found.batch, found.num_queries, found.num_classes) == (
        (64, 96),
        None,
        10,
        3,
    )
    assert (found.metadata, found.stated) == (METADATA, False)
    assert read_graph(written(tmp_path, (2, 3, 64, 96)), None, EXPERIMENT).batch == 2


def test_of_a_file_that_says_nothing_the_spec_does(tmp_path: Path) -> None:
    path = written(tmp_path, metadata={"producer": "somebody"})
    experiment = EXPERIMENT.model_copy(
        update={"model": EXPERIMENT.model.model_copy(update={"num_select": 20})}
    )
    found = read_graph(path, None, experiment)
    assert found.stated
    assert (found.metadata.num_select, found.metadata.classes) == (20, None)
    kept = {one.key: one.value for one in found.model.metadata_props}
    assert kept == {"producer": "somebody", **found.metadata.properties()}


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({}, r"dataset.num_classes: found 80; .* so the spec has to, and it has 3"),
        (
            {"dataset": {"num_classes": 3}, "model": {"num_select": 31}},
            "model.num_select: found 31",
        ),
    ],
)
def test_what_the_spec_says_has_to_fit(tmp_path: Path, sections: dict[str, Any], said: str) -> None:
    experiment = ExperimentConfig.model_validate(sections)
    with pytest.raises(RequestError, match=said):
        read_graph(written(tmp_path, metadata={}), None, experiment)


@pytest.mark.parametrize("operator", [(PLUGIN, ""), (PLUGIN, "nvidia"), ("Own", "somebody")])
def test_plugins_are_named(tmp_path: Path, operator: tuple[str, str]) -> None:
    said = rf"operators that are not ONNX's own: {operator[0]}\. .*action export"
    with pytest.raises(RequestError, match=said):
        read_graph(written(tmp_path, operator=operator), None, EXPERIMENT)


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({"image": ("batch", 3, "height", "width")}, r"size of its images open \(height x width\)"),
        ({"image": ("batch", 3, 64, None)}, r"open \(64 x \?\)"),
        ({"image": ("batch", 1, 64, 64)}, r"has inputs \['batch', 1, 64, 64\], .*; a detector has"),
        ({"boxes": ("batch", 11, 4)}, "a detector has"),
        ({"boxes": ("batch", 10, 5)}, "a detector has"),
        ({"logits": ("batch", "queries", 3)}, "nothing open but the batch"),
    ],
)
def test_what_is_no_detector(tmp_path: Path, shapes: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        read_graph(written(tmp_path, **shapes), None, EXPERIMENT)


@pytest.mark.parametrize("content", [b"", b"\x00garbage", b'{"a": 1}'])
def test_a_damaged_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(content)
    with pytest.raises(RequestError, match=r"a\.onnx"):
        read_graph(path, None, EXPERIMENT)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="does not exist"):
        read_graph(tmp_path / "a.onnx", None, EXPERIMENT)


def test_a_batch_is_fixed_in_a_copy(tmp_path: Path) -> None:
    model = read_graph(written(tmp_path), None, EXPERIMENT).model
    fixed = with_batch(model, 4)
    shapes = [
        one.type.tensor_type.shape.dim[0] for one in (*fixed.graph.input, *fixed.graph.output)
    ]
    assert [one.dim_value for one in shapes] == [4, 4, 4]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
