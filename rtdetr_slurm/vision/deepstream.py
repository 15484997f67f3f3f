"""What NVIDIA DeepStream's nvinfer plugin wants beside an ONNX file: labels, a configuration, and a
parser of the outputs.

nvinfer's own scaling takes the place of `preprocess` there, and the parser that of `postprocess`.
NVIDIA's parser for TAO's detectors (NvDsInferParseCustomDDETRTAO) takes class 0 for a background,
and drops it; of detections with one score it keeps one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rtdetr_slurm.vision.onnx_metadata import BOXES, LOGITS, OnnxMetadata

LABELS_TXT = "labels.txt"
NVDSINFER_CONFIG = "nvdsinfer_config.yaml"
NVDSINFER_PARSER = "nvdsinfer_rtdetr.cpp"
"""Source of the library that the configuration names; its head says how it is compiled."""
DEEPSTREAM_FILES = (LABELS_TXT, NVDSINFER_PARSER, NVDSINFER_CONFIG)

BACKGROUND = "background"
"""What stands for class 0 where the annotations begin with 1, as TAO writes it."""

_BILINEAR = 1
"""A value of NvBufSurfTransform_Inter."""


def parser_source() -> str:
    """What NVDSINFER_PARSER holds."""
    return Path(__file__).with_name(NVDSINFER_PARSER).read_text(encoding="utf-8")


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
            "maintain-aspect-ratio": int(metadata.preserve_aspect_ratio),
            "symmetric-padding": 0,  # right and bottom, as `preprocess` does
            "scaling-filter": _BILINEAR,
            "network-type": 0,  # a detector
            "network-mode": 2,  # FP16
            "cluster-mode": 4,  # no clustering: RT-DETR needs no suppression
            "output-blob-names": f"{BOXES};{LOGITS}",
            "parse-bbox-func-name": "NvDsInferParseRtDetr",
            "custom-lib-path": "libnvdsinfer_rtdetr.so",
        },
        "class-attrs-all": {"topk": metadata.num_select},
        **dict(_thresholds(metadata)),
    }


def _thresholds(metadata: OnnxMetadata) -> Iterator[tuple[str, dict[str, float]]]:
    for number, name in (metadata.classes or {}).items():
        if name in metadata.thresholds:
            score = metadata.thresholds[name]
            yield (
                f"class-attrs-{number}",
                {"topk": metadata.num_select, "pre-cluster-threshold": score},
            )
