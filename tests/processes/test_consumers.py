"""What docs/deploy.md shows of using a detector elsewhere finds what this program finds."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx_support import METADATA, exported, tiny_detector
from PIL import Image

from rtdetr_slurm.data.pixels import BadImage, load_image
from rtdetr_slurm.deploy.record import EngineRecord
from rtdetr_slurm.runs.artefacts import engine_record
from rtdetr_slurm.vision import deepstream
from rtdetr_slurm.vision.onnx_runtime import open_onnx
from rtdetr_slurm.vision.postprocess import postprocess
from rtdetr_slurm.vision.preprocess import Resize, preprocess

DEPLOY_MD = Path(__file__).parents[2] / "docs" / "deploy.md"
STAND_INS = Path(__file__).with_name("consumers")
"""For what is not here: DeepStream's header, and a TensorRT that needs no GPU."""
SIZE = (64, 96)


def code_of(heading: str, language: str) -> str:
    """The first block of code below a heading of docs/deploy.md."""
    section = DEPLOY_MD.read_text().partition(f"### {heading}\n")[2].partition("\n### ")[0]
    [block] = re.findall(rf"^```{language}\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)[:1]
    return str(block)


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("model"), tiny_detector(), SIZE)


@pytest.fixture(scope="module")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an odd size, and taken with the camera on its side."""
    path = tmp_path_factory.mktemp("image") / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (117, 203, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def detections(
    onnx_file: Path, photograph: Path, *, keeps: bool = False
) -> list[tuple[int, list[float]]]:
    """Class id, and score and corners, of this program's own way."""
    image = load_image(photograph)
    assert not isinstance(image, BadImage)
    assert image.shape == (203, 117, 3)
    resize = Resize(SIZE, preserve_aspect_ratio=keeps)
    outputs = open_onnx(onnx_file)(preprocess(image, resize))
    extent = resize.extents(torch.tensor([[image.shape[1], image.shape[0]]]))
    found = postprocess(outputs["pred_logits"], outputs["pred_boxes"], extent, METADATA.num_select)
    numbers = torch.cat([found.scores[0, :, None], found.boxes[0]], 1).tolist()
    return list(zip(found.labels[0].tolist(), numbers, strict=True))


def test_onnx_runtime_alone(onnx_file: Path, photograph: Path, tmp_path: Path) -> None:
    program = tmp_path / "detect.py"
    program.write_text(code_of("ONNX Runtime", "python"))
    assert_same(run(program, onnx_file, photograph), detections(onnx_file, photograph))


def test_images_that_keep_their_shape(onnx_file: Path, photograph: Path, tmp_path: Path) -> None:
    code = code_of("ONNX Runtime", "python")
    for plain, padded in (
        ("image.resize((width, height), Image.Resampling.BILINEAR)", "padded"),
        ("[image.width, image.height]", "extent"),
        ("pixels = ", f"{code_of('Images that keep their shape', 'python')}pixels = "),
    ):
        assert code.count(plain) == 1
        code = code.replace(plain, padded)
    program = tmp_path / "detect.py"
    program.write_text(code)
    assert_same(run(program, onnx_file, photograph), detections(onnx_file, photograph, keeps=True))


def test_tensorrt(onnx_file: Path, photograph: Path, tmp_path: Path) -> None:
    """All but the execution, which is ONNX Runtime's here; the names are the real module's."""
    import tensorrt_rtx

    code = code_of("TensorRT", "python")
    for owner in (tensorrt_rtx, tensorrt_rtx.Logger):
        names = re.findall(rf"\b{'trt' if owner is tensorrt_rtx else 'trt.Logger'}\.(\w+)", code)
        assert names
        assert [name for name in names if not hasattr(owner, name)] == []
    for variable, kind in (("context", "IExecutionContext"), ("engine", "ICudaEngine")):
        names = re.findall(rf"\b{variable}\.(\w+)", code)
        assert names
        assert [name for name in names if not hasattr(getattr(tensorrt_rtx, kind), name)] == []

    program, engine = tmp_path / "detect.py", tmp_path / "rtdetr.engine"
    program.write_text(code.replace('device = "cuda"', 'device = "cpu"'))
    shutil.copy(STAND_INS / "tensorrt.py", tmp_path)
    shutil.copy(onnx_file, engine)
    queries, classes = open_onnx(onnx_file).num_queries, open_onnx(onnx_file).num_classes
    facts = {"height": SIZE[0], "width": SIZE[1], "num_queries": queries, "num_classes": classes}
    facts |= {"num_select": METADATA.num_select, "classes": METADATA.classes}
    engine_record(engine).write_text(json.dumps(facts))
    assert {field.name for field in fields(EngineRecord)} >= {*facts}
    assert_same(run(program, engine, photograph), detections(onnx_file, photograph))


def run(program: Path, *arguments: Path) -> list[list[str]]:
    """Name and numbers of each line that a program of the page prints."""
    done = subprocess.run(
        [sys.executable, program, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [line.rsplit(" ", 5) for line in done.stdout.splitlines()]


def assert_same(lines: list[list[str]], expected: list[tuple[int, list[float]]]) -> None:
    assert METADATA.classes is not None
    assert [name for name, *_ in lines] == [
        METADATA.classes.get(label, str(label)) for label, _ in expected
    ]
    for (_, *printed), (_, numbers) in zip(lines, expected, strict=True):
        assert [float(word) for word in printed] == pytest.approx(numbers, rel=1e-4, abs=1e-2)


def test_deepstreams_parser(onnx_file: Path, tmp_path: Path) -> None:
    """It keeps class 0, a query's second class, and detections whose scores are equal."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no g++ to compile DeepStream's parser with")
    source, program = tmp_path / deepstream.NVDSINFER_PARSER, tmp_path / "parse"
    source.write_text(deepstream.parser_source())
    flags = ["-std=c++14", "-Wall", "-Wextra", "-Werror", f"-I{STAND_INS}"]
    subprocess.run(
        [compiler, *flags, source, STAND_INS / "main.cpp", "-o", program], check=True, timeout=120
    )
    outputs = open_onnx(onnx_file)(torch.rand(1, 3, *SIZE, generator=torch.manual_seed(0)))
    logits, boxes = outputs["pred_logits"], outputs["pred_boxes"]
    logits[0, 1], boxes[0, 1] = logits[0, 0], boxes[0, 0] / 2
    queries, classes = logits.shape[1:]
    thresholds = logits[0].sigmoid().quantile(0.5, dim=0).tolist()
    words = [queries, classes, SIZE[1], SIZE[0], *thresholds]

    def parse(words: list[float]) -> subprocess.CompletedProcess[bytes]:
        tensors = logits.numpy().tobytes() + boxes.numpy().tobytes()
        return subprocess.run(
            [program, *map(str, words)], input=tensors, capture_output=True, check=False
        )

    size = torch.tensor([[SIZE[1], SIZE[0]]])
    found = postprocess(logits, boxes, size, queries * classes)
    expected = sorted(
        [float(label), score, *corners]
        for label, score, corners in zip(
            found.labels[0].tolist(), found.scores[0].tolist(), found.boxes[0].tolist(), strict=True
        )
        if score >= thresholds[label]
    )
    done = parse(words)
    assert done.returncode == 0
    parsed = sorted([float(word) for word in line.split()] for line in done.stdout.splitlines())
    assert {row[0] for row in parsed} == {0, 1, 2}
    assert len(parsed) == len(expected)
    assert np.asarray(parsed) == pytest.approx(np.asarray(expected), rel=1e-5, abs=1e-5)
    assert parse(words[:-1]).returncode == 1, "thresholds for another number of classes"
