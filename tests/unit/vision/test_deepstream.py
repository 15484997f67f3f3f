"""DeepStream's files."""

from __future__ import annotations

from dataclasses import replace

from onnx_support import METADATA

from rtdetr_slurm.vision.deepstream import labels_text, nvdsinfer_config


def test_a_line_for_each_index() -> None:
    """Class ids are indices: what has no name keeps its line, and no name takes two."""
    classes = {1: "red blood cell", 3: "a;b\nc", 4: "Bär"}
    assert labels_text(classes, 6).splitlines() == [
        *("background", "red blood cell", "unused_2", "a,b c", "Bär", "unused_5")
    ]
    assert labels_text({0: "cat"}, 1) == "cat\n"


def test_the_values_that_fit_our_preprocessing() -> None:
    config = nvdsinfer_config(METADATA, "m.onnx", (480, 800), None, 3)
    wanted = {
        "onnx-file": "m.onnx",
        "labelfile-path": "labels.txt",
        "infer-dims": "3;480;800",
        "num-detected-classes": 3,
        "net-scale-factor": 1 / 255,
        "offsets": "0;0;0",
        "model-color-format": 0,
        "maintain-aspect-ratio": 0,
        "symmetric-padding": 0,
        "scaling-filter": 1,
        "network-type": 0,
        "network-mode": 2,
        "cluster-mode": 4,
        "output-blob-names": "pred_boxes;pred_logits",
        "parse-bbox-func-name": "NvDsInferParseRtDetr",
        "custom-lib-path": "libnvdsinfer_rtdetr.so",
        "batch-size": 1,
    }
    assert config["property"] == wanted
    assert config["class-attrs-all"] == {"topk": 10}
    assert config["class-attrs-1"] == {"topk": 10, "pre-cluster-threshold": 0.25}
    assert "class-attrs-2" not in config, "nobody has measured it"
    without = nvdsinfer_config(replace(METADATA, thresholds={}), "m.onnx", (64, 64), 8, 3)
    assert (without["property"]["batch-size"], len(without)) == (8, 2)
