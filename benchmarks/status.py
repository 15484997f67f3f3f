"""Wall time of `rtdetr-slurm status` with many queued runs, and how often it calls Slurm.

    python benchmarks/status.py [--runs N] [--times N] [--slurm]

Makes N run folders as `submit` does, and asks for their state. A program in squeue's place counts
the calls and answers for it; with --slurm it passes them on to the real one, which has N held jobs
then (they are cancelled at the end).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rtdetr_slurm.contract import RUN_JSON, Env
from rtdetr_slurm.runs.run import Run, open_run
from rtdetr_slurm.submission.prepare import freeze, prepare
from rtdetr_slurm.submission.sending import token

PROGRAMS = ("squeue", "sacct", "scontrol")
SPEC = """
dataset:
  num_classes: 2
  train_data_sources: [{{image_dir: {0}/images, json_file: {0}/coco.json}}]
train: {{num_epochs: 1}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--times", type=int, default=5, help="how often status is called")
    parser.add_argument("--slurm", action="store_true", help="ask the real Slurm")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        jobs: list[str] = []
        try:
            runs = make_runs(folder, args.runs)
            print(f"{len(runs)} run folders made", file=sys.stderr)
            if args.slurm:
                queue(runs, jobs)
                answer = f'exec {shutil.which("squeue")} "$@"'
            else:
                jobs += [str(1000 + number) for number in range(len(runs))]
                answer = f"cat {folder}/queue"
                lines = map(queue_line, runs, jobs)
                (folder / "queue").write_text("\n".join(lines) + "\n")
            for run, job in zip(runs, jobs, strict=True):
                run.record("submitting", stage="train", token=token(run.id, "train"))
                run.record("submitted", stage="train", job_id=job)
            measure(folder, answer, args.times)
        finally:
            if args.slurm and jobs:
                subprocess.run(["scancel", *jobs], check=True)


def make_runs(folder: Path, count: int) -> list[Run]:
    """One run as `submit` freezes it, and copies under other names."""
    (folder / "images").mkdir()
    numbers = range(1, 65)
    for number in numbers:
        (folder / "images" / f"{number}.jpg").touch()
    coco = {
        "images": [{"id": n, "file_name": f"{n}.jpg", "width": 8, "height": 8} for n in numbers],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4]}],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (folder / "coco.json").write_text(json.dumps(coco))
    (folder / "train.yaml").write_text(SPEC.format(folder))
    site = folder / "site.yaml"
    site.write_text(f"container: none\npartition: gpu\nrun_root: {folder}/runs\n")
    first = freeze(prepare(folder / "train.yaml", [], site=str(site)), print)
    runs = [first]
    for number in range(1, count):
        copy = first.path.with_name(f"train-20260101-000000-{number:04x}")
        shutil.copytree(first.path, copy, ignore=shutil.ignore_patterns("*.zip"))
        for record in copy.rglob("*.json"):
            record.write_text(record.read_text().replace(first.id, copy.name))
        runs.append(open_run(copy))
    return runs


def queue(runs: list[Run], jobs: list[str]) -> None:
    """A held job for each run; their ids are in `jobs` as soon as they exist."""
    for run in runs:
        comment = f"--comment={token(run.id, 'train')}"
        argv = ["sbatch", "--parsable", "--hold", "--output=/dev/null", comment, "--wrap=true"]
        done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True)
        jobs.append(done.stdout.strip())


def queue_line(run: Run, job: str) -> str:
    return f"{job}|PENDING|Priority|N/A||{token(run.id, 'train')}|"


def measure(folder: Path, answer: str, times: int) -> None:
    programs = folder / "bin"
    programs.mkdir()
    for program in PROGRAMS:
        path = programs / program
        body = answer if program == "squeue" else "exit 1"
        path.write_text(f"#!/bin/sh\necho >> {folder}/{program}.calls\n{body}\n")
        path.chmod(0o755)
    env = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        Env.SITE: str(folder / "site.yaml"),
    }
    tool = str(Path(sys.executable).with_name("rtdetr-slurm"))
    found = []
    for _ in range(times + 1):  # the first warms the page cache
        began = time.perf_counter()
        done = subprocess.run([tool, "status"], env=env, check=True, capture_output=True, text=True)
        found.append(time.perf_counter() - began)
        assert done.stdout.count(" queued ") == len([*(folder / "runs").glob(f"*/{RUN_JSON}")])
    calls = {
        program: len(path.read_text().splitlines()) / len(found) if path.exists() else 0
        for program in PROGRAMS
        for path in [folder / f"{program}.calls"]
    }
    print(f"wall time, median of {times}: {statistics.median(found[1:]):.2f} s")
    print("calls each time: " + ", ".join(f"{name} {count:g}" for name, count in calls.items()))


if __name__ == "__main__":
    main()
