"""The batch script, against golden files.

Delete a file under golden/ and run the tests once to write it anew; then read the difference.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from launch_support import STAGE

from rtdetr_slurm.plan.model import Array, Dependency, Origin, Plan, Stage
from rtdetr_slurm.submission.backends import scripts

GOLDEN = Path(__file__).parent / "golden"
RUN_DIR = Path("/runs/train-20260102-030405-abcd")

FULL = replace(
    STAGE,
    resources=replace(
        STAGE.resources,
        gpu_request="gres",
        gpu_type="a100",
        account="acc",
        qos="high",
        constraint="ib&nvlink",
        mem_gb=1.5,
    ),
    launch=replace(
        STAGE.launch,
        requeue=False,
        wckey="key",
        module_lines=("module load apptainer", "export X='a b'"),
    ),
)
PLAIN = replace(
    STAGE,
    resources=replace(
        STAGE.resources,
        gpu_request="none",
        cpus_per_task=None,
        mem_gb=None,
        time_min=None,
        partition=None,
    ),
)


NO_GPU = replace(STAGE, resources=replace(STAGE.resources, gpu_ids=()))
ARRAY = replace(
    STAGE,
    array=Array(12, throttle=3),
    depends_on=(
        Dependency(Origin("stage")),
        Dependency(Origin("other")),
        Dependency(Origin("train", "/runs/train-20260101-030405-0000"), "afterany"),
    ),
)


def script(stage: Stage, run_dir: Path = RUN_DIR, name: str | None = None) -> str:
    before = (replace(STAGE, name="stage"), replace(STAGE, name="other"))
    return scripts(Plan((*before, stage)), run_dir, name)["train"]


@pytest.mark.parametrize(
    ("file", "stage", "name"),
    [
        ("usual.sh", STAGE, None),
        ("full.sh", FULL, "my-name"),
        ("plain.sh", PLAIN, None),
        ("array.sh", ARRAY, None),
    ],
)
def test_scripts_are_as_they_were(file: str, stage: Stage, name: str | None) -> None:
    text = script(stage, name=name).replace(shlex.quote(sys.executable), "/venv/bin/python")
    golden = GOLDEN / file
    if not golden.exists():
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text()


def test_a_wckey_is_only_there_when_the_site_wants_one() -> None:
    assert "wckey" not in script(STAGE)
    assert "#SBATCH --wckey=key\n" in script(FULL)


def test_python_replaces_the_shell_so_that_the_signal_reaches_it() -> None:
    text = script(STAGE)
    assert "#SBATCH --signal=B:USR2@120\n" in text
    [last] = [line for line in text.splitlines() if "rtdetr_slurm.launch" in line]
    assert last.startswith(f"exec {sys.executable} ")
    assert "srun" not in text


@pytest.mark.parametrize("folder", ["with space", "it's", 'a "quote"', "a,b:c;d", "$HOME", "ü"])
def test_any_folder_name_survives_the_shell(tmp_path: Path, folder: str) -> None:
    run_dir = tmp_path / folder / "train-1"
    text = script(STAGE, run_dir)
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    [command] = [line for line in text.splitlines() if line.startswith("exec ")]
    assert shlex.split(command)[-2:] == [str(run_dir), "train"]
    [chdir] = [line for line in text.splitlines() if line.startswith("#SBATCH --chdir=")]
    assert shlex.split(chdir, comments=False)[1] == f"--chdir={run_dir}"


def test_a_stage_without_gpus_asks_for_none() -> None:
    assert "gpu" not in script(NO_GPU).replace("--partition=gpu", "")


def test_a_chain_is_slurms_own_affair() -> None:
    text = script(ARRAY)
    after = "<stage>:<other>,afterany:<train of train-20260101-030405-0000>"
    assert f"#SBATCH --dependency='afterok:{after}'\n" in text
    assert "#SBATCH --kill-on-invalid-dep=yes\n" in text
    assert "#SBATCH --array=0-11%3\n" in text
    assert "/jobs/train/%A_%a_0_log.out\n" in text
    assert "dependency" not in script(STAGE)
    assert "kill-on-invalid-dep" not in script(STAGE)


def test_looking_at_a_script_touches_nothing(tmp_path: Path) -> None:
    script(STAGE, tmp_path / "runs" / "train-1")
    assert list(tmp_path.iterdir()) == []
