"""The launch code that is frozen with a run."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from launch_support import STAGE, local_stage, make_run

from rtdetr_slurm import __version__
from rtdetr_slurm.launch.checks import check_engine
from rtdetr_slurm.runs.run import python_archive, stage_command
from rtdetr_slurm.submission import controller
from rtdetr_slurm.submission.backends import SlurmBackend
from rtdetr_slurm.submission.controller import controller_archive, write_controller
from rtdetr_slurm.submission.sending import Sending

# All modules of ours that are loaded once the entry point is, and where they come from.
LOADED = """
import sys; sys.path.insert(0, sys.argv[1])
import importlib; [importlib.import_module(name) for name in sys.argv[2:]]
for name, module in sorted(sys.modules.items()):
    if name.split(".")[0] == "rtdetr_slurm":
        print(module.__file__)
    elif name.split(".")[0] not in sys.stdlib_module_names | {"__main__"}:
        print("foreign", name)
"""


LATER = {
    "automl",
    "data",
    "model_check.py",
    "runs",
    "slurm",
    "spec",
    "staging",
    "storage",
    "yaml_source.py",
    "weights.py",
}
"""Parts of which modules are loaded when there is use for them."""


def test_it_runs_alone_and_holds_nothing_else(tmp_path: Path) -> None:
    """But for what a search and the bringing of data need, which is loaded where one begins."""
    path = tmp_path / "controller.zip"
    path.write_bytes(controller_archive())
    argv = [sys.executable, "-I", "-S", "-c", LOADED, str(path), "rtdetr_slurm.controller"]
    loaded = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    held = [f"{path}/{name}" for name in zipfile.ZipFile(path).namelist() if name != "__main__.py"]
    more = {*held} - {*loaded}
    assert sorted(loaded) == sorted({*held} - more)
    parts = {name.removeprefix(f"{path}/rtdetr_slurm/").split("/")[0] for name in more}
    assert parts <= LATER

    names = [name.removeprefix(f"{path}/").removesuffix("/__init__.py") for name in more]
    found = [name.removesuffix(".py").replace("/", ".") for name in names]
    argv = [sys.executable, "-I", "-c", LOADED, str(path), "rtdetr_slurm.controller", *found]
    done = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    assert sorted(line for line in done if not line.startswith("foreign")) == sorted(held)


def test_files_without_a_date_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reproducible installations date all files 1970; a zip's calendar begins in 1980."""
    package = tmp_path / "rtdetr_slurm"
    shutil.copytree(controller._PACKAGE, package, ignore=shutil.ignore_patterns("engine", "*.pyc"))
    for path in package.rglob("*"):
        os.utime(path, (0, 0))
    monkeypatch.setattr(controller, "_PACKAGE", package)
    archive = tmp_path / "controller.zip"
    archive.write_bytes(controller_archive.__wrapped__())
    assert zipfile.ZipFile(archive).testzip() is None


def test_a_job_runs_the_code_it_was_submitted_with(tmp_path: Path) -> None:
    """Whatever PYTHONPATH, or an upgrade, has put in its place since."""
    run = make_run(tmp_path, local_stage(tmp_path / "results"))
    write_controller(run)
    for part in ("rtdetr_slurm", "zipfile"):
        (tmp_path / "new" / part).mkdir(parents=True)
        (tmp_path / "new" / part / "__init__.py").write_text("raise SystemExit('the wrong one')")
    env = os.environ | {
        "PYTHONPATH": str(tmp_path / "new"),
        "RTDETR_SLURM_LOCAL_JOB_ID": "77",
        "CUDA_VISIBLE_DEVICES": "",
    }
    argv = stage_command(run.path, run.plan.stage("train"))
    done = subprocess.run(argv, env=env, cwd=tmp_path / "new", capture_output=True, text=True)
    assert done.returncode == 1
    node = " ".join([*python_archive(run.path / "jobs" / "controller.zip"), "node"])
    assert f"starts {node} {run.path} train" in done.stderr
    assert run.events()[-1]["event"] == "finished"
    # The engine, without a container, is that of the environment; it is the wrong one here.
    assert "cannot load rtdetr_slurm on this node: the wrong one" in run.events()[-1]["reason"]


def test_another_version_of_the_engine_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check_engine(sys.executable, os.environ)
    assert capfd.readouterr().err == ""
    (tmp_path / "new" / "rtdetr_slurm").mkdir(parents=True)
    (tmp_path / "new" / "rtdetr_slurm" / "__init__.py").write_text("__version__ = '9.9'")
    check_engine(sys.executable, os.environ | {"PYTHONPATH": str(tmp_path / "new")})
    told = capfd.readouterr().err
    assert f"runs the engine of rtdetr-slurm 9.9 ({sys.executable})" in told
    assert f"submitted with {__version__}" in told


def test_a_loose_umask_does_not_let_others_write_what_is_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sbatch").write_text("#!/bin/sh\necho 1\n")
    (tmp_path / "bin" / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    before = os.umask(0)
    try:
        run = make_run(tmp_path / "runs", STAGE)
        (run.path / "jobs" / "train").rmdir()
        write_controller(run)
        SlurmBackend().submit(run, Sending(STAGE), [], None)
    finally:
        os.umask(before)
    jobs = run.path / "jobs"
    executed = [run.path, jobs, jobs / "train", run.path / "run.json"]
    assert [oct(stat.S_IMODE(p.stat().st_mode)) for p in executed] == ["0o755"] * 3 + ["0o644"]
    private = [jobs / "controller.zip", jobs / "train" / "job.sh"]
    assert [oct(stat.S_IMODE(p.stat().st_mode)) for p in private] == ["0o600"] * 2
