"""What NVIDIA DeepStream's nvinfer plugin wants beside an ONNX file: labels and a configuration.

Its own scaling and parsing take the place of `preprocess` and `postprocess` there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rtdetr_slurm.vision.onnx_metadata import BOXES, LOGITS, OnnxMetadata

LABELS_TXT = "labels.txt"
NVDSINFER_CONFIG = "nvdsinfer_config.yaml"

BACKGROUND = "background"
"""What stands for class 0 where the annotations begin with 1, as TAO writes it."""

_OF_EVERY_CLASS = {"topk": 20}


def labels_text(classes: Mapping[int, str], num_classes: int) -> str:
    """One line for each class index; nvinfer counts lines, and ends a name at a semicolon."""
    names = (
        classes.get(index) or (f"unused_{index}" if index else BACKGROUND)
        for index in range(num_classes)
    )
    return "".join(f"{' '.join(name.replace(';', ',').split())}\n" for name in names)


def nvdsinfer_config(
    metadata: OnnxMetadata,
    onnx_file: str,
    size: tuple[int, int],
    batch: int | None,
    num_classes: int,
) -> dict[str, Any]:
    """The configuration as plain data.

    Args:
        onnx_file: its name, in the folder of the configuration.
        size: (height, width).
        batch: images at once; None: any number, and one is asked for.
    """
    height, width = size
    return {
        "property": {
            "onnx-file": onnx_file,
            "labelfile-path": LABELS_TXT,
            "batch-size": batch or 1,
            "infer-dims": f"3;{height};{width}",
            "num-detected-classes": num_classes,
            "model-color-format": 0,  # RGB
            "net-scale-factor": 1 / 255,
            "offsets": "0;0;0",
            "maintain-aspect-ratio": 0,
            "network-type": 0,  # a detector
            "network-mode": 2,  # FP16
            "cluster-mode": 4,  # no clustering: RT-DETR needs no suppression
            "output-blob-names": f"{BOXES};{LOGITS}",
            "parse-bbox-func-name": "NvDsInferParseCustomDDETRTAO",
        },
        "class-attrs-all": dict(_OF_EVERY_CLASS),
        **dict(_thresholds(metadata)),
    }


def _thresholds(metadata: OnnxMetadata) -> Iterator[tuple[str, dict[str, float]]]:
    for number, name in (metadata.classes or {}).items():
        if name in metadata.thresholds:
            score = metadata.thresholds[name]
            yield f"class-attrs-{number}", {**_OF_EVERY_CLASS, "pre-cluster-threshold": score}
