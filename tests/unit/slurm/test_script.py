"""The batch script, against golden files.

Delete a file under golden/ and run the tests once to write it anew; then read the difference.
"""

from __future__ import annotations

import ast
import os
import shlex
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from launch_support import STAGE

from rtdetr_slurm.contract import END_SIGNALS
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
        exclusive=True,
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


# A controller that is slow to start, as from a file system that many nodes read at once; what it
# has heard when it is ready, and how it goes on when it hears more, is written down.
CONTROLLER = """#!/bin/bash
touch {folder}/begun
sleep 0.4
exec {python} -c "
import os, sys, time; from pathlib import Path
from rtdetr_slurm.launch.step import StopRequest
stop = StopRequest(os.environ)
Path('{folder}/ready').touch()
deadline = time.monotonic() + 5
while stop.signum is None and time.monotonic() < deadline: time.sleep(0.02)
print('heard', stop.signum, os.environ.get('SLURM_JWT'), *sys.argv[1:])
sys.exit(75)
" "$@"
"""


@pytest.mark.parametrize("signum", END_SIGNALS)
@pytest.mark.parametrize("moment", ["module", "begun", "ready"])
def test_no_signal_is_lost_from_the_first_line_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, signum: signal.Signals
) -> None:
    """While module lines run, while Python starts, and after that; the exit code is kept."""
    controller = tmp_path / "controller"
    controller.write_text(CONTROLLER.format(folder=tmp_path, python=sys.executable))
    controller.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(controller))
    modules = ("set -eu", f"touch {tmp_path}/module", "sleep 0.3")
    stage = replace(STAGE, launch=replace(STAGE.launch, module_lines=modules))
    (tmp_path / "run" / "jobs" / "train").mkdir(parents=True)
    env = os.environ | {"SLURM_JOB_ID": "8", "SLURM_JWT": "secret"}
    script_text = script(stage, tmp_path / "run")
    with subprocess.Popen(
        ["bash", "-c", script_text], env=env, stdout=subprocess.PIPE, text=True
    ) as shell:
        while not (tmp_path / moment).exists():
            time.sleep(0.01)
        shell.send_signal(signum)
        out, _ = shell.communicate(timeout=20)
    arguments = f"-I -S -u {tmp_path}/run/jobs/controller.zip stage {tmp_path}/run train"
    assert out == f"heard {signum.value} None {arguments}\n"
    assert shell.returncode == 75
    noted = (tmp_path / "run" / "jobs" / "train" / "warned-8-0").read_text()
    assert noted == f"{signum.name.removeprefix('SIG')}\n"


def test_a_controller_that_is_killed_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = tmp_path / "controller"
    controller.write_text("#!/bin/bash\nkill -9 $$\n")
    controller.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(controller))
    done = subprocess.run(["bash", "-c", script(STAGE, tmp_path)], check=False)
    assert done.returncode == 137


ODD_NAMES = (
    *(
        "with space",
        " lead",
        "trail ",
        "it's",
        'a "quote"',
        "a'\"b",
        "a,b:c;d",
        "-dash",
        "=x",
        "#x",
    ),
    *("$HOME `pwd` $(id)", "${x}", "!x", "*?[a]", "{a,b}", "~x", "&|<>()", "ü", "\udcff"),
)


@pytest.mark.parametrize("folder", ODD_NAMES)
def test_any_folder_name_survives_the_script(tmp_path: Path, folder: str) -> None:
    """Executed, with an archive in the controller's place that says what it is told."""
    run_dir = tmp_path / folder / "train-1"
    (run_dir / "jobs" / "train").mkdir(parents=True)
    with zipfile.ZipFile(run_dir / "jobs" / "controller.zip", "w") as archive:
        told = "import os, sys\nprint(ascii([*sys.argv, os.environ['RTDETR_SLURM_WARNED']]))"
        archive.writestr("__main__.py", told)
    text = script(STAGE, run_dir)
    path = tmp_path / "job.sh"
    path.write_bytes(os.fsencode(text))
    env = {"PATH": os.environ["PATH"], "SLURM_JOB_ID": "8"}
    done = subprocess.run(["bash", path], env=env, cwd=tmp_path, capture_output=True, check=True)
    zip_path, note = f"{run_dir}/jobs/controller.zip", f"{run_dir}/jobs/train/warned-8-0"
    assert ast.literal_eval(done.stdout.decode()) == [
        zip_path, "stage", str(run_dir), "train", note
    ]  # fmt: skip
    assert done.stderr == b""
    # sbatch reads its lines much as a shell does.
    lines = [shlex.split(line)[1] for line in text.splitlines() if line.startswith("#SBATCH")]
    assert f"--chdir={run_dir}" in lines
    assert f"--output={run_dir}/jobs/train/%j_0_log.out" in lines


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
