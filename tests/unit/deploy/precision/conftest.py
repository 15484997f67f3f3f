"""One exported detector for all tests of its precision, which leave it as it is."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import ModelProto
from onnx_support import exported, tiny_detector


@pytest.fixture(scope="package")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("onnx"), tiny_detector(), (64, 64))


@pytest.fixture(scope="package")
def model(file: Path) -> ModelProto:
    return onnx.load(file)
