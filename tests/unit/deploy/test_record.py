"""The record beside an engine: written, read back, and refused where it does not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from deploy_support import RECORD

from rtdetr_slurm.contract import ENGINE_VERSION
from rtdetr_slurm.deploy.record import read_record, verified
from rtdetr_slurm.errors import NewerVersion, RequestError
from rtdetr_slurm.files import sha256_of
from rtdetr_slurm.runs.artefacts import engine_record


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    engine = tmp_path / "rtdetr.engine"
    engine_record(engine).write_text(RECORD.text())
    return engine


def test_what_is_written_is_read(engine: Path) -> None:
    assert read_record(engine) == RECORD
    assert RECORD.size == (640, 480)
    assert RECORD.metadata.classes == {0: "face", 2: "person"}
    assert replace(RECORD, classes=None).metadata.classes is None


def test_an_engine_without_a_record_is_not_guessed_at(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"rtdetr\.engine\.json is missing.*gen_trt_engine"):
        read_record(tmp_path / "rtdetr.engine")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"onnx": "../../etc/passwd"}, "name of a file beside"),
        ({"onnx": ".."}, "name of a file beside"),
        ({"build_log": ""}, "name of a file beside"),
        ({"engine_sha256": "0"}, "engine_sha256: found '0'; expected a SHA-256"),
        ({"compute_capability": "sm_89"}, "expected one like 8.9"),
        ({"classes": {"cat": "0"}}, "no class id"),
        ({"profile": {"min": 2, "opt": 1, "max": 4}}, r"profile: found batches 2/1/4"),
        ({"runtime": "os"}, "expected one of tensorrt, tensorrt_rtx"),
        ({"precision": "FP4"}, "expected one of FP32, FP16, INT8"),
        ({"height": "640"}, "height: found '640'; expected a whole number"),
        ({"int8_share": 2}, "int8_share: found 2"),
        ({"further": 1}, "further"),
    ],
)
def test_a_record_that_says_something_else_is_refused(
    engine: Path, change: dict[str, object], said: str
) -> None:
    path = engine_record(engine)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(RequestError, match=said):
        read_record(engine)


@pytest.mark.parametrize("text", ["", "[]", "{", "\0", '{"schema_version": "1"}'])
def test_a_damaged_record_is_refused(engine: Path, text: str) -> None:
    engine_record(engine).write_text(text)
    with pytest.raises(RequestError, match=r"rtdetr\.engine\.json"):
        read_record(engine)


def test_a_newer_record_says_so(engine: Path) -> None:
    engine_record(engine).write_text(json.dumps({"schema_version": ENGINE_VERSION + 1}))
    with pytest.raises(NewerVersion):
        read_record(engine)


def test_a_file_is_the_one_that_was_recorded(engine: Path) -> None:
    path = engine_record(engine)
    engine.write_bytes(b"engine")
    assert verified(engine, sha256_of(engine), path) == engine
    with pytest.raises(RequestError, match="damaged, or is not the file"):
        verified(engine, "f" * 64, path)
    engine.unlink()
    with pytest.raises(RequestError, match="No such file"):
        verified(engine, "f" * 64, path)
