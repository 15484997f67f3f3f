"""What submitting costs beside bare sbatch and submitit, and what a job's start is made of.

    python benchmarks/submit.py [--rounds N] [--starts N]

Runs on the cluster of the tests (tests/cluster/README.md: root on a Debian; it is brought up and
taken down again, unless one is kept). The first table is the wall time until a held queue has the
job: the ways take turns, so that what else the machine does hits all. The second is where the
seconds from Slurm's start of a job to its first training step go.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rtdetr_slurm.contract import EFFICIENCY_JSON
from rtdetr_slurm.data.sample import write_sample
from rtdetr_slurm.runs.events import read_events
from tests.cluster.harness import apptainer, slurm
from tests.cluster.harness.cli import Cli, held_queue, submit, train_spec, write_spec
from tests.cluster.harness.data import Dataset
from tests.cluster.harness.image import image
from tests.cluster.harness.install import install_packages
from tests.cluster.harness.site import write_site

# Each says on stdout how long a submission took, the first one of a process and one more.
IN_PROCESS = """
import sys, time
begun = time.perf_counter()
{setup}
def once():
    {submit}
once()
first = time.perf_counter() - begun
begun = time.perf_counter()
once()
print(first, time.perf_counter() - begun)
"""
SUBMITIT = IN_PROCESS.format(
    setup="import submitit\nexecutor = submitit.SlurmExecutor(sys.argv[1])\n"
    "executor.update_parameters(time=5, mem='100M')",
    submit="executor.submit(time.sleep, 1)",
)
API = IN_PROCESS.format(
    setup="from rtdetr_slurm import submit", submit="submit(sys.argv[1], again=True)"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="submissions in each way")
    parser.add_argument("--starts", type=int, default=3, help="jobs that are run")
    args = parser.parse_args()
    install_packages()
    with tempfile.TemporaryDirectory() as name, slurm.session() as cluster:
        folder = Path(name)
        cli = Cli(environment(cluster, folder), folder)
        write_sample(folder / "data", train=64, val=16)
        dataset = Dataset(folder / "data", real=False)
        print_submissions(cli, cluster, dataset, args.rounds)
        print_starts(cli, cluster, dataset, args.starts)


def environment(cluster: slurm.Slurm, folder: Path) -> dict[str, str]:
    """Of a user of the cluster, with a site profile in `folder`."""
    site = write_site(folder / "site.yaml", image(), folder / "runs")
    env = {**slurm.clean_environment(), **cluster.environment(), **apptainer.environment()}
    here = str(Path(sys.executable).parent)
    return {
        **env,
        "PATH": os.pathsep.join((here, env["PATH"])),
        "RTDETR_SLURM_SITE": str(site),
    }


# --- submitting ------------------------------------------------------------------------------
def print_submissions(cli: Cli, cluster: slurm.Slurm, dataset: Dataset, rounds: int) -> None:
    spec = write_spec(cli.folder / "train.yaml", train_spec(dataset))
    with held_queue(cluster), cancelled(cluster):
        script = submit(cli, spec).folder / "jobs" / "train" / "job.sh"

        def ways() -> Iterator[tuple[str, float]]:
            yield "sbatch, the same script", seconds(cli, ["sbatch", str(script)])
            first, next_one = in_process(cli, SUBMITIT, str(cli.folder / "submitit"))
            yield "submitit, first of a process", first
            yield "submitit, the next", next_one
            first, next_one = in_process(cli, API, str(spec))
            yield "rtdetr_slurm.submit, first of a process", first
            yield "rtdetr_slurm.submit, the next", next_one
            again = ["rtdetr-slurm", "submit", str(spec), "--again"]
            yield "rtdetr-slurm submit, whole process", seconds(cli, again)

        turns = [dict(ways()) for _ in range(rounds + 1)][1:]  # the first one warms caches
    medians = {way: statistics.median(turn[way] for turn in turns) for way in turns[0]}
    base = medians["sbatch, the same script"]
    print(f"{'submitting':<42} median s  to sbatch   (of {rounds})")
    for way, median in medians.items():
        print(f"{way:<42} {median:8.3f}  {median / base:9.1f}")


def seconds(cli: Cli, command: Sequence[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, env=cli.env, cwd=cli.folder, check=True, capture_output=True)
    return time.perf_counter() - begun


def in_process(cli: Cli, code: str, argument: str) -> tuple[float, float]:
    done = subprocess.run(
        [sys.executable, "-c", code, argument],
        env=cli.env,
        cwd=cli.folder,
        check=True,
        capture_output=True,
        text=True,
    )
    first, next_one = map(float, done.stdout.split())
    return first, next_one


@contextmanager
def cancelled(cluster: slurm.Slurm) -> Iterator[None]:
    """What is queued in this block is cancelled at its end."""
    try:
        yield
    finally:
        cluster.command("scancel", "--me")


# --- starting --------------------------------------------------------------------------------
def print_starts(cli: Cli, cluster: slurm.Slurm, dataset: Dataset, starts: int) -> None:
    """One rank on one node, with 64 images, one job after another."""
    spec = write_spec(cli.folder / "start.yaml", train_spec(dataset, num_epochs=1))
    parts = [one_start(cli, cluster, spec) for _ in range(starts)]
    medians = {name: statistics.median(one[name] for one in parts) for name in parts[0]}
    print(f"\n{'from the start of a job to its first step':<42} median s  (of {starts})")
    for name, median in medians.items():
        print(f"{name:<42} {median:8.2f}")
    print(f"{'all of it':<42} {statistics.median(sum(one.values()) for one in parts):8.2f}")


def one_start(cli: Cli, cluster: slurm.Slurm, spec: Path) -> dict[str, float]:
    run = submit(cli, spec)
    run.wait(lambda stage: stage["state"] == "success", seconds=1800)
    efficiency: Mapping[str, Any] = json.loads((run.results / EFFICIENCY_JSON).read_text())
    starting: Mapping[str, float] = efficiency["starting_s"]
    shown = cluster.command("scontrol", "--oneliner", "show", "job", run.job)
    start_time = next(w for w in shown.split() if w.startswith("StartTime=")).partition("=")[2]
    started = next(e for e in read_events(run.folder / "events") if e["event"] == "started")
    # Slurm tells whole seconds.
    begun = datetime.fromisoformat(start_time).astimezone().timestamp() + 0.5
    controller = datetime.fromisoformat(started["timestamp"]).timestamp() - begun
    return {"batch script and launch": max(controller, 0.0), **starting}


if __name__ == "__main__":
    main()
