"""What is generated from the models is fresh."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rtdetr_slurm.actions import ACTIONS
from rtdetr_slurm.spec.generate import generated, main


def test_generated_files_are_fresh() -> None:
    """The command that CI and the README name."""
    done = subprocess.run(
        [sys.executable, "-m", "rtdetr_slurm.spec.generate", "--check"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_check_names_what_is_stale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(tmp_path)]) == 0
    assert main(["--root", str(tmp_path), "--check"]) == 0
    capsys.readouterr()
    (tmp_path / "specs" / "train.yaml").write_text("old", encoding="utf-8")
    (tmp_path / "schemas" / "manifest.json").unlink()
    assert main(["--root", str(tmp_path), "--check"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert sorted(line.split()[0] for line in lines) == [
        "schemas/manifest.json",
        "specs/train.yaml",
    ]
    assert (tmp_path / "specs" / "train.yaml").read_text(encoding="utf-8") == "old"


def test_all_is_generated() -> None:
    names = {f"schemas/{a}.schema.json" for a in ACTIONS} | {f"specs/{a}.yaml" for a in ACTIONS}
    assert set(generated()) == names | {"schemas/manifest.json", "docs/spec.md"}
