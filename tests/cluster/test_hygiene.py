"""What gets into a job and what does not: secrets, the environment of an enclosing job, modes."""

from __future__ import annotations

import json
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from rtdetr_slurm.runs.secrets import secrets_file

from .harness import jobs, slurm
from .harness.cli import JOB_LIMIT_S, Cli, Submitted, submit, train_spec, write_spec
from .harness.data import Dataset

pytestmark = pytest.mark.cluster

CANARY = "canary-c2a9f1e7"
WORKER = "rtdetr_slurm.engine.process.worker"


def processes_with(text: str, file: str) -> dict[int, str]:
    """Command lines of the processes whose /proc file of this name holds `text`."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if text.encode() in (process / file).read_bytes():
                words = (process / "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(process.name)] = words.decode(errors="replace")
        except OSError:
            continue
    return found


def environment_of(pid: int) -> set[str]:
    return {*Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")}


def files_with(text: str, folder: Path) -> list[Path]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return [path for path in files if text.encode() in path.read_bytes()]


@contextmanager
def command_lines_watched() -> Iterator[list[str]]:
    """Collects the command lines that hold the canary while the block runs, as `ps` shows them."""
    seen: list[str] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.3):
            seen.extend(processes_with(CANARY, "cmdline").values())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def until_it_trains(run: Submitted) -> None:
    """Wait until a rank of the run has the secret; none of the processes around it has."""
    deadline = time.monotonic() + JOB_LIMIT_S
    while not (ranks := [p for p in processes_with(CANARY, "environ").values() if WORKER in p]):
        assert time.monotonic() < deadline, f"no rank has the secret\n{run.log()}"
        time.sleep(0.5)
    assert len(ranks) == 1
    launch = f"{run.folder}/jobs/controller.zip"
    assert processes_with(launch, "cmdline").keys().isdisjoint(processes_with(CANARY, "environ"))


def test_a_secret_is_the_programs_alone(
    cli_env: dict[str, str], cluster: slurm.Slurm, dataset: Dataset, tmp_path: Path, site: Path
) -> None:
    """Through a preemption, to the end: in no record, script, command line or log, nor in Slurm."""
    profile = yaml.safe_load(site.read_text()) | {"secrets": ["WANDB_API_KEY", "MY_LOGIN"]}
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(profile))
    env = {"WANDB_API_KEY": CANARY, "MY_LOGIN": f"{CANARY}, 'x'", "OTHER_TOKEN": CANARY}
    cli = Cli(cli_env | env | {"RTDETR_SLURM_SITE": str(tmp_path / "site.yaml")}, tmp_path)
    spec = write_spec(tmp_path / "train.yaml", train_spec(dataset, num_epochs=6))
    with command_lines_watched() as seen:
        run = submit(cli, spec)
        secret = secrets_file(run.folder)
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
        until_it_trains(run)
        assert files_with(CANARY, run.folder) == []
        assert CANARY in secret.read_text()
        assert files_with(CANARY, cluster.state / "ctld") == []
        cluster.command("scancel", "--signal=USR2", "--batch", run.job)
        run.wait(lambda stage: stage["restarts"] == 1)
        until_it_trains(run)
        run.wait(lambda stage: stage["state"] == "success")
    assert seen == []
    assert files_with(CANARY, run.folder) == []
    assert not secret.exists()
    assert CANARY not in run.log() + cli("status", run.folder).stdout


INNER = """\
umask 0
export SLURM_EXPORT_ENV=NONE SBATCH_PARTITION=tensorrt SRUN_CPUS_PER_TASK=1
export TMPDIR=/of/this/job RANK=3 MASTER_PORT=1 TORCHELASTIC_RUN_ID=x CUDA_VISIBLE_DEVICES=7
rtdetr-slurm submit {spec} --json
"""


def test_a_job_that_is_submitted_from_inside_another_gets_what_its_spec_says(
    cli: Cli, cluster: slurm.Slurm, dataset: Dataset, tmp_path: Path
) -> None:
    """From a step of an array's task, with another memory, CPUs and GPUs, and without an umask."""
    spec = write_spec(tmp_path / "train.yaml", train_spec(dataset, num_epochs=9))
    (tmp_path / "inner.sh").write_text(INNER.format(spec=spec))
    (tmp_path / "outer.sh").write_text("#!/bin/bash\nsrun --mpi=none bash inner.sh > answer\n")
    options = ["--array=7", "--mem-per-cpu=300", "--cpus-per-task=3", "--gpus-per-node=2"]
    outer = subprocess.run(
        ["sbatch", "--parsable", "--output=outer.log", *options, "outer.sh"],
        env=cli.env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    said = f"{outer}_7: {tmp_path}/outer.log"
    assert jobs.wait(cluster, f"{outer}_7", seconds=JOB_LIMIT_S) == "COMPLETED", said
    answer = json.loads((tmp_path / "answer").read_text())
    [stage] = answer["stages"]
    run = Submitted(cli, Path(answer["run_dir"]), stage["job_id"], "train")
    shown = cluster.command("scontrol", "--oneliner", "show", "job", run.job)
    for fact in ("Partition=train ", "MinMemoryNode=4G ", "CPUs/Task=2 ", "TresPerNode=gres"):
        assert fact in shown, shown
    run.wait(lambda _: "starts its ranks like torchrun" in run.log())
    launch = f"{run.folder}/jobs/controller.zip"
    [controller] = [p for p, line in processes_with(launch, "cmdline").items() if " stage " in line]
    hostile = {"TMPDIR=/of/this/job", "RANK=3", "TORCHELASTIC_RUN_ID=x", "CUDA_VISIBLE_DEVICES=7"}
    assert environment_of(controller).isdisjoint(hostile)
    writable = {
        p.relative_to(run.folder) for p in run.folder.rglob("*") if p.stat().st_mode & 0o022
    }
    mine = {path for path in writable if path.parts[0] not in ("events", "results")}
    assert mine == {Path(f"jobs/train/{run.job}_0_log.out")}
    cli("cancel", run.folder)
