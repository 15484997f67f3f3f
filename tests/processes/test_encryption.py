"""A key that is given on a command line: while programs run, and in all that they leave."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from local_support import VALIDATED, write_workspace

from rtdetr_slurm.cipher import decrypted
from rtdetr_slurm.engine.training.checkpoint import load_checkpoint
from rtdetr_slurm.runs.run import open_run
from rtdetr_slurm.runs.secrets import secrets_file

KEY = "hunter2-on-the-command-line"
MARK = "env:RTDETR_ENCRYPTION_KEY"
SMALL = ("train.num_epochs=1", "train.checkpoint_interval=1", "train.validation_interval=1")
SIZE = ("export.input_height=64", "export.input_width=64")


def shown() -> list[bytes]:
    """Command lines with the key in them, as `ps` shows them to everybody."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if KEY.encode() in line:
            found.append(line)
    return found


def holders(folder: Path) -> list[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return [path.name for path in files if KEY.encode() in path.read_bytes()]


def watched(folder: Path, begun: str, module: str, arguments: Sequence[str]) -> str:
    """Run a program to its end; what it prints.

    Args:
        begun: glob of a file that shows that the program has started itself anew.
    """
    env = {name: value for name, value in os.environ.items() if name != MARK.partition(":")[2]}
    env |= {"RTDETR_SLURM_SITE": "local", "RTDETR_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    log = folder / "program.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=folder,
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    deadline, private = time.monotonic() + 180, []
    try:
        while process.poll() is None:
            assert time.monotonic() < deadline
            if any(folder.glob(begun)):
                assert shown() == []
                private += [path.stat().st_mode for path in folder.glob("runs/.secrets-*/*.json")]
            time.sleep(0.05)
    finally:
        process.kill()
    text = log.read_text()
    assert process.returncode == 0, text
    assert {stat.S_IMODE(mode) for mode in private} <= {0o600}
    return text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_workspace(tmp_path)
    return tmp_path


def test_nobody_sees_it_and_nothing_holds_it(folder: Path) -> None:
    given = ("train.yaml", f"encryption_key={KEY}", VALIDATED, *SMALL)
    told = watched(folder, "runs/*/run.json", "rtdetr_slurm.cli.main", ["submit", *given, "--wait"])
    assert "checkpoints and ONNX files are encrypted" in told
    [run_dir] = (folder / "runs").glob("train-*")
    run = open_run(run_dir)
    assert run.spec["encryption_key"] == MARK
    assert not secrets_file(run_dir).exists()
    checkpoint = run_dir / "results" / "train" / "model_epoch_000.pth"
    assert load_checkpoint(checkpoint, KEY)["spec"]["encryption_key"] == MARK

    by_hand = ["export", "-e", "train.yaml", "-k", KEY, f"export.checkpoint={checkpoint}"]
    arguments = [*by_hand, "-r", "results", VALIDATED, *SIZE]
    told = watched(folder, "results/export", "rtdetr_slurm.engine.process.entry", arguments)
    assert f"encryption_key={MARK}" in told
    made = folder / "results" / "export"
    assert json.loads((made / "export.json").read_text())["encrypted"] is True
    assert MARK in (made / "experiment.yaml").read_text()

    assert holders(folder) == []
    for path in (checkpoint, made / "rtdetr.onnx"):
        with decrypted(path, KEY) as source:
            assert not isinstance(source, Path)
            assert KEY.encode() not in source.read()
