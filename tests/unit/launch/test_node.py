"""What a node wrapper becomes."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import get_type_hints

import pytest
from launch_support import STAGE

from rtdetr_slurm.launch.node import become_program, deaf_fuse_programs, deployed_from
from rtdetr_slurm.plan.model import EngineName, Stage
from rtdetr_slurm.runs.lineage import _Engine, _Exported


def ignored_by_fuse(stage: Stage, folder: Path, monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Signals that the program ignores that apptainer serves an image with."""
    programs = {
        "apptainer": "exec squashfuse_ll 'a b'",
        "squashfuse_ll": "echo $1; exec grep SigIgn /proc/self/status",
    }
    for name, script in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    said = os.open(folder / "said", os.O_CREAT | os.O_WRONLY)
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(said, 1)
            become_program(stage, os.environ, {}, workdir=folder, binds=(), scratch=None)
        finally:
            os._exit(9)
    assert os.waitpid(pid, 0)[1] == 0
    given, status = (folder / "said").read_text().splitlines()
    assert given == "a b"
    mask = int(status.split()[1], 16)
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}


@pytest.mark.parametrize(("engine", "deaf"), [("rtdetr", True), ("tao", False)])
def test_what_serves_the_images_files_outlives_term(
    engine: EngineName, deaf: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm sends it to every process of a job that it ends; TAO's program does nothing with it."""
    assert STAGE.container is not None
    container = replace(STAGE.container, apptainer="apptainer")
    stage = replace(STAGE, container=container, launch=replace(STAGE.launch, engine=engine))
    assert (signal.SIGTERM in ignored_by_fuse(stage, tmp_path, monkeypatch)) is deaf


def test_a_folder_that_cannot_be_on_path_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "squashfuse").write_text("#!/bin/sh\n")
    (tmp_path / "squashfuse").chmod(0o755)
    assert deaf_fuse_programs(tmp_path / "a:b", str(tmp_path)) == str(tmp_path)
    assert "a:b has a ':'" in capsys.readouterr().err
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).parent == tmp_path)
    assert deaf_fuse_programs(tmp_path / "fuse", str(tmp_path)) == str(tmp_path)
    assert "may be executed (noexec?)" in capsys.readouterr().err


def test_what_belongs_to_a_model_is_seen_wherever_it_lies(tmp_path: Path) -> None:
    """Of an engine of another run: what lies beside it, its ONNX file, and the checkpoint."""
    engine, onnx, checkpoint = (
        tmp_path / name for name in ("built/e.engine", "exported/m.onnx", "trained/c.pth")
    )
    for path in (engine, onnx, checkpoint):
        path.parent.mkdir()
        path.write_text("model")
    told = dict.fromkeys(get_type_hints(_Engine), "0") | {"source_onnx": str(onnx)}
    engine.with_name("e.engine.json").write_text(json.dumps(told))
    told = dict.fromkeys(get_type_hints(_Exported), "0") | {
        "files": {},
        "checkpoint": str(checkpoint),
    }
    onnx.with_name("export.json").write_text(json.dumps(told))
    inputs = [str(tmp_path / "results"), str(engine)]
    deploys = replace(STAGE, action="trt_evaluate")
    seen = {*deployed_from({}, deploys, inputs)}
    assert seen == {str(one) for one in (engine.parent, onnx, onnx.parent, checkpoint)}
    named = {"evaluate": {"trt_engine": str(onnx)}}
    assert {*deployed_from(named, deploys, [])} == {str(onnx.parent), str(checkpoint)}
    assert deployed_from(named, STAGE, inputs) == []
