"""A search as an array of workers on the real cluster: one is preempted, one loses its node, one is
killed, and a trial hangs; every trial is trained once, and the chain goes on with the best."""

from __future__ import annotations

import csv
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from rtdetr_slurm.automl.history import TrialState
from rtdetr_slurm.automl.study import open_study
from rtdetr_slurm.plan.model import StageTask
from rtdetr_slurm.runs.best import best_of
from rtdetr_slurm.runs.checkpoints import kpi_by_epoch
from rtdetr_slurm.runs.events import Event
from rtdetr_slurm.runs.run import Run, open_run
from rtdetr_slurm.runs.state import restart_of, task_history
from rtdetr_slurm.runs.status import read_status

from .harness import jobs, slurm
from .harness.cli import JOB_LIMIT_S, Cli, train_spec, write_spec
from .harness.data import Dataset
from .harness.processes import ranks_of
from .harness.slurm_conf import URGENT

pytestmark = pytest.mark.cluster

T = TypeVar("T")
TRIALS, WORKERS, EPOCHS = 12, 3, 2
PREEMPTED, LOST, KILLED = range(WORKERS)


@dataclass(frozen=True)
class Search:
    """A search under way.

    Attributes:
        array: the job of its workers.
    """

    cli: Cli
    cluster: slurm.Slurm
    run: Run
    array: str

    def events(self, kind: str, **facts: Any) -> list[Event]:
        """Those of a kind that say just that."""
        return [
            event
            for event in self.run.events()
            if event["event"] == kind and facts.items() <= event.items()
        ]

    def log(self) -> str:
        files = sorted((self.run.path / "jobs" / "train").glob("*_log.out"))
        return "\n".join(path.read_text(errors="replace") for path in files)

    def until(self, find: Callable[[], T | None]) -> T:
        deadline = time.monotonic() + 6 * JOB_LIMIT_S  # of a busy machine
        while (found := find()) is None:
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.3)
        return found

    def steps(self, worker: int, start: int) -> dict[str, str]:
        """Wait until start number `start` of a worker has made a step of a trial; returns the
        environment of the rank that has."""

        def rank() -> dict[str, str] | None:
            if not self.events("started", stage="train", task=worker, restart=start):
                return None
            log = self.run.log_path("train", f"{self.array}_{worker}")
            *_, trial, said = "", *re.split(r"rtdetr-slurm: trial (\d+)", log.read_text())
            ranks = ranks_of(f"{self.run.id}:train.trial.{trial}")
            return ranks[0] if ranks and re.search(r"epoch \d+/\d+ step ", said) else None

        return self.until(rank)

    def task(self, trial: int) -> StageTask:
        return StageTask(self.run.plan.stage("train"), trial=trial)

    def node(self, worker: int) -> str:
        return self.cluster.command(
            "squeue", "--noheader", f"--jobs={self.array}_{worker}", "--format=%N"
        ).strip()

    def controller(self, worker: int) -> int:
        """The process that a worker is."""
        return int(self.events("started", stage="train", task=worker)[-1]["pid"])


@pytest.fixture
def search(
    cli_env: dict[str, str], cluster: slurm.Slurm, few: Dataset, tmp_path: Path, site: Path
) -> Iterator[Search]:
    """Three workers, each on a node of its own, for they ask for more than half of its memory."""
    profile = yaml.safe_load(site.read_text()) | {"mem_gb": 9, "cpus_per_task": 1}
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(profile))
    cli = Cli({**cli_env, "RTDETR_SLURM_SITE": str(tmp_path / "site.yaml")}, tmp_path)
    spec = train_spec(few, num_epochs=EPOCHS)
    del spec["automl_policy"]
    spec["dataset"]["batch_size"] = 2
    spec["dataset"]["test_data_sources"] = spec["dataset"]["val_data_sources"]
    spec["export"] = {"input_height": 64, "input_width": 64}
    spec["job"] = {"then": ["export"], "hang_minutes": 1, "time": 120}
    spec["automl"] = {
        "policy": "on",
        "algorithm": "random",
        "metric": "val_loss",  # after so few steps mAP is 0 in all trials
        "trials": TRIALS,
        "parallel": WORKERS,
        "parameters": ["train.optim.lr", "train.optim.weight_decay"],
    }
    made = cli.json("submit", write_spec(tmp_path / "train.yaml", spec))
    ids = {stage["name"]: stage["job_id"] for stage in made["stages"]}
    assert [*ids] == ["train", "best", "evaluate_best", "export"]
    yield Search(cli, cluster, open_run(Path(made["run_dir"])), ids["train"])
    cluster.command("scancel", *ids.values())


def test_a_search_survives_what_clusters_do(
    search: Search, cluster: slurm.Slurm, tmp_path: Path
) -> None:
    for worker in range(WORKERS):
        search.steps(worker, 0)
    urgent = jobs.submit(
        cluster, tmp_path, "true\n",
        f"--partition={URGENT}", f"--nodelist={search.node(PREEMPTED)}", "--exclusive",
    )  # fmt: skip
    with slurm.failed_node(cluster, search.node(LOST)):
        os.kill(search.controller(KILLED), signal.SIGKILL)
        assert jobs.wait(cluster, urgent, seconds=JOB_LIMIT_S) == "COMPLETED"
    os.kill(int(search.steps(PREEMPTED, 1)["pid"]), signal.SIGSTOP)

    stages = until_it_ends(search)
    states = {name: stage["state"] for name, stage in stages.items()}
    follow = dict.fromkeys(["best", "evaluate_best", "export"], "success")
    workers = {f"train.{one}": "success" for one in (PREEMPTED, LOST)}
    assert states == {**workers, f"train.{KILLED}": "failed", **follow}, search.log()

    check_trials(search)
    put_back = search.events("requeued", search="train")
    assert [one["failure_class"] for one in put_back][:2] == ["preempted", "infra"], search.log()
    assert {one["worker"] for one in cut_off(search)} == {LOST, KILLED}
    check_best(search, stages)


def until_it_ends(search: Search) -> dict[str, Any]:
    """The reports of all stages and workers, by name."""

    def ended() -> dict[str, Any] | None:
        stages = search.cli.report(search.run.path)["stages"]
        open_ones = [one for one in stages if one["state"] in ("queued", "running", "unknown")]
        return None if open_ones else {one["name"]: one for one in stages}

    return search.until(ended)


def starts_of(search: Search, trial: int) -> list[Event]:
    own = task_history(search.run.events(), search.task(trial))
    return sorted((event for event in own if event["event"] == "started"), key=restart_of)


def cut_off(search: Search) -> list[Event]:
    """The starts of trials of which no end is on record."""
    ends = [*search.events("requeued", search="train"), *search.events("finished", search="train")]
    ended = {(one["trial"], restart_of(one)) for one in ends}
    starts = search.events("started", search="train")
    return [one for one in starts if (one["trial"], restart_of(one)) not in ended]


def check_trials(search: Search) -> None:
    """As many as were asked for, each trained once, each of its epochs once."""
    plan = search.run.plan.stage("train").search
    assert plan is not None
    trials = open_study(plan).trials()
    assert [one.number for one in trials] == [*range(TRIALS)]
    assert {one.state for one in trials} == {TrialState.COMPLETE}, search.log()
    ends = Counter(event["trial"] for event in search.events("finished", search="train"))
    assert ends == dict.fromkeys(range(TRIALS), 1)
    for trial in range(TRIALS):
        starts = starts_of(search, trial)
        assert [restart_of(event) for event in starts] == [*range(len(starts))]
        lines = read_status(search.task(trial).results_dir / "status.json")
        told = [line["epoch"] for line in lines if "epoch" in line]
        assert told == [*range(EPOCHS)], f"trial {trial}: {told}"
        assert sorted(trials[trial].curve) == told
    assert len({tuple(sorted(one.values.items())) for one in trials}) == TRIALS


def check_best(search: Search, stages: dict[str, Any]) -> None:
    """It is the best of all, scored once more on the same images, and exported."""
    plan = search.run.plan.stage("train").search
    assert plan is not None
    folder, best = best_of(search.run, search.run.plan.stage("best"))
    values = {
        (one.number, epoch): value
        for one in open_study(plan).trials()
        for epoch, value in one.curve.items()
    }
    assert best.value == min(values.values()) == values[best.trial, best.epoch]
    scored = stages["evaluate_best"]["metrics"]["test_mAP"]
    validated = kpi_by_epoch(folder)["val_mAP"][best.epoch]
    assert scored == pytest.approx(validated, abs=1e-6)
    assert (search.run.path / "results" / "export" / "rtdetr.onnx").is_file()
    with (plan.path / "leaderboard.csv").open() as stream:
        assert len([*csv.DictReader(stream)]) == TRIALS
    assert [*plan.trials_folder.glob("*/train/model_epoch_*.pth")] == [folder / best.checkpoint]
