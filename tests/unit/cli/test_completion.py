"""What the last word of a line may become, and that a shell gets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from launch_support import local_stage, make_run

from rtdetr_slurm.cli.completion import candidates
from rtdetr_slurm.cli.main import COMMANDS, main
from rtdetr_slurm.resources import schemas_dir

RUN = "train-20260102-030405-abcd"


@pytest.fixture(autouse=True)
def _runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site.yaml"
    site.write_text(f"scheduler: local\nrun_root: {tmp_path}/runs\n")
    monkeypatch.setenv("RTDETR_SLURM_SITE", str(site))
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "runs", local_stage(tmp_path / "results"), run_id=RUN)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("rtdetr-slurm ", {name.split()[0] for name in COMMANDS}),
        ("rtdetr-slurm automl st", ["status", "stop"]),
        ("rtdetr-slurm automl extend --tr", ["--trials"]),
        ("rtdetr-slurm automl extend tr", [RUN]),
        ("rtdetr-slurm st", ["status"]),
        ("rtdetr-slurm nothing ", []),
        ("rtdetr-slurm status ", [RUN]),
        ("rtdetr-slurm logs --follow trai", [RUN]),
        ("rtdetr-slurm status /runs/t", []),
        ("rtdetr-slurm status --j", ["--json"]),
        ("rtdetr-slurm status --site lo", ["local"]),
        ("rtdetr-slurm submit --parent t", [RUN]),
        ("rtdetr-slurm submit ", []),
        ("rtdetr-slurm submit train.yaml train.num_ep", ["train.num_epochs="]),
        ("rtdetr-slurm submit train.yaml train.opt", ["train.optim."]),
        ("rtdetr-slurm submit train.yaml --name x train.optim.lr_b", ["train.optim.lr_backbone="]),
        ("rtdetr-slurm submit train.yaml train.precision=fp3", ["train.precision=fp32"]),
        ("rtdetr-slurm submit train.yaml train.enable_ema=t", ["train.enable_ema=true"]),
        ("rtdetr-slurm submit train.yaml nothing.of.the.kind=", []),
        ("rtdetr-slurm submit train.yaml --action ev", ["evaluate"]),
        ("rtdetr-slurm submit train.yaml --then evaluate,expo", ["evaluate,export"]),
        ("rtdetr-slurm submit 'my spec.yaml' 'job.na", ["job.name="]),
        ("rtdetr-slurm completion z", ["zsh"]),
        ("rtdetr-slurm completion w", []),
    ],
)
def test_the_last_word(line: str, expected: list[str]) -> None:
    assert sorted(candidates(line)) == sorted(expected)


def test_a_shell_in_the_middle_of_a_line_gets_no_message(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["completion", "words", "rtdetr-slurm status --site none.yaml t"]) == 0
    assert capsys.readouterr() == ("", "")


def test_every_section_of_every_action_is_known() -> None:
    known = json.loads((schemas_dir() / "train.schema.json").read_text())["properties"]
    for path in schemas_dir().glob("*.schema.json"):
        schema = json.loads(path.read_text())
        assert {k for k, v in schema["properties"].items() if "$ref" in v} <= {*known}, path


def test_bash_gets_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a value it is given what stands after the `=`, at which it breaks words."""
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    program = (
        'COMP_POINT=${#COMP_LINE}; _rtdetr_slurm 2>/dev/null; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    line = "rtdetr-slurm submit a.yaml train.precision=b"
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", f"{script}\n{program}"],
        env=env | {"COMP_LINE": line},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "bf16\n", done.stderr
