"""ONNX files as a `Predict`, and files that are none."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx_support import METADATA, exported, tiny_detector

from rtdetr_slurm.errors import NewerVersion, RequestError
from rtdetr_slurm.vision.onnx_metadata import OnnxMetadata, read_metadata
from rtdetr_slurm.vision.onnx_runtime import open_onnx


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector that takes two images at once."""
    return exported(tmp_path_factory.mktemp("fixed"), tiny_detector(), (64, 64), batch=2)


def test_any_number_of_images_where_the_file_takes_two(fixed: Path) -> None:
    detector = open_onnx(fixed)
    images = torch.rand(5, 3, 64, 64)
    alone = [detector(one[None]) for one in images]
    found = detector(images)
    for name in ("pred_logits", "pred_boxes"):
        assert torch.allclose(found[name], torch.cat([one[name] for one in alone]), atol=1e-5)
    assert detector(images[:0])["pred_logits"].shape == (0, 10, 3)
    with pytest.raises(RequestError, match="takes images of 3x64x64, got 3x64x96"):
        detector(torch.rand(1, 3, 64, 96))


def test_what_the_file_says_of_itself(fixed: Path) -> None:
    assert open_onnx(fixed).metadata == METADATA
    model = onnx.load(fixed)
    assert (model.producer_name, model.graph.name) == ("rtdetr-slurm", "rtdetr")


def write(
    path: Path, output: str = "pred_logits", properties: dict[str, str] | None = None
) -> Path:
    """A graph that is none of a detector's."""
    one = helper.make_tensor_value_info("inputs", TensorProto.FLOAT, [None, 3, 64, 64])
    other = helper.make_tensor_value_info(output, TensorProto.FLOAT, [None, 3, 64, 64])
    graph = helper.make_graph([helper.make_node("Relu", ["inputs"], [output])], "g", [one], [other])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, properties or {})
    onnx.save(model, path)
    return path


def test_files_that_are_no_detectors(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    with pytest.raises(RequestError, match="does not exist"):
        open_onnx(path)
    path.write_bytes(b"no model")
    with pytest.raises(RequestError, match=r"a\.onnx is no model that ONNX Runtime can run: "):
        open_onnx(path)
    with pytest.raises(RequestError, match=r"has no rtdetr\.schema_version in its metadata"):
        open_onnx(write(path))
    with pytest.raises(RequestError, match="nothing open but the batch"):
        open_onnx(write(path, properties=METADATA.properties()))


class TestMetadata:
    def test_there_and_back(self) -> None:
        bare = OnnxMetadata("1", "w.pth", "ab", None, None, {}, 300, True)
        for one in (METADATA, bare):
            assert read_metadata(one.properties(), "a.onnx") == one

    @pytest.mark.parametrize(
        ("key", "value", "said"),
        [
            ("rtdetr.num_select", None, "has no rtdetr.num_select in its metadata"),
            ("rtdetr.num_select", "many", "rtdetr.num_select in its metadata is no JSON"),
            ("rtdetr.num_select", "-1.5", "rtdetr.num_select in its metadata: found -1.5"),
            ("rtdetr.classes", '{"a": "b"}', "has what is no class id"),
            ("rtdetr.classes", "[1]", "rtdetr.classes in its metadata: found"),
            ("rtdetr.thresholds", '{"a": "b"}', "rtdetr.thresholds in its metadata: a"),
            ("rtdetr.preprocessing", '{"mean": [1]}', "images are prepared as"),
        ],
    )
    def test_what_is_wrong_is_named(self, key: str, value: str | None, said: str) -> None:
        properties = METADATA.properties() | {key: value or ""}
        if value is None:
            del properties[key]
        with pytest.raises(RequestError, match=r"a\.onnx") as error:
            read_metadata(properties, "a.onnx")
        assert said in str(error.value)

    def test_a_newer_version(self) -> None:
        properties = METADATA.properties() | {"rtdetr.schema_version": "99"}
        with pytest.raises(NewerVersion, match="99"):
            read_metadata(properties, "a.onnx")
