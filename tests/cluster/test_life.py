"""What a job goes through on a cluster: it is preempted, loses its node, runs out of time, is put
back, hangs; it goes on from where it was, in the same run, and nobody does anything about it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from rtdetr_slurm.runs.events import Event, read_events
from rtdetr_slurm.slurm.times import parse_clock

from .harness import jobs, slurm
from .harness.cli import JOB_LIMIT_S, Cli, train_spec, write_spec
from .harness.data import Dataset
from .harness.processes import ranks_of
from .harness.slurm_conf import URGENT

pytestmark = pytest.mark.cluster


@dataclass(frozen=True)
class Chain:
    """A training with an evaluation behind it."""

    cli: Cli
    cluster: slurm.Slurm
    folder: Path
    job: str
    child: str

    def stages(self) -> list[dict[str, Any]]:
        stages: list[dict[str, Any]] = self.cli.report(self.folder)["stages"]
        return stages

    def log(self) -> str:
        [path] = (self.folder / "jobs" / "train").glob("*_log.out")
        return path.read_text()

    def events(self, kind: str) -> list[Event]:
        events = read_events(self.folder / "events")
        return [one for one in events if one["event"] == kind and one.get("stage") == "train"]

    def until(self, true: Callable[[], Any]) -> None:
        deadline = time.monotonic() + JOB_LIMIT_S
        while not true():
            assert time.monotonic() < deadline, self.log()
            assert not self.events("finished"), self.log()
            time.sleep(0.3)

    def trains(self, start: int) -> None:
        """Wait until start number `start` has made a step."""

        def steps() -> bool:
            starts = self.log().split("rtdetr-slurm: starts ")
            # srun has words of steps, too, while it waits for its nodes.
            return len(starts) == start + 2 and bool(re.search(r"epoch \d+/\d+ step ", starts[-1]))

        self.until(lambda: self.events("started"))  # before that there is no log
        self.until(steps)

    def is_back(self, start: int) -> None:
        """Wait until the job is in the queue again after start number `start`."""
        restarts = f"Restarts={start + 1} "
        show = ("scontrol", "--oneliner", "show", "job", self.job)
        self.until(lambda: restarts in self.cluster.command(*show))


def submit_chain(cli: Cli, cluster: slurm.Slurm, spec: dict[str, Any], *overrides: str) -> Chain:
    spec["dataset"]["test_data_sources"] = spec["dataset"]["val_data_sources"]
    spec["dataset"]["batch_size"] = 1
    path = write_spec(cli.folder / "train.yaml", spec)
    document = cli.json("submit", path, "--then", "evaluate", *overrides)
    first, second = document["stages"]
    return Chain(cli, cluster, Path(document["run_dir"]), first["job_id"], second["job_id"])


@pytest.fixture
def endless(cli: Cli, cluster: slurm.Slurm, few: Dataset) -> Iterator[Chain]:
    spec = train_spec(few, num_epochs=1000, validation_interval=1000, checkpoint_interval=2)
    chain = submit_chain(cli, cluster, spec)
    yield chain
    cluster.command("scancel", chain.job, chain.child)


def test_a_training_survives_what_clusters_do(
    endless: Chain, cluster: slurm.Slurm, tmp_path: Path
) -> None:
    chain, update = endless, ("scontrol", "update", f"JobId={endless.job}")
    follow = subprocess.Popen(
        ["rtdetr-slurm", "logs", chain.folder, "--follow"],
        env=chain.cli.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        # Where the tests run in the background, ctrl-C is ignored, and so it would be there.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    chain.trains(0)
    os.killpg(follow.pid, signal.SIGINT)  # as a terminal's ctrl-C: it only detaches
    assert follow.wait(timeout=60) == 130

    options = (f"--partition={URGENT}", "--nodes=3", "--gpus-per-node=2")
    urgent = jobs.submit(cluster, tmp_path, "true\n", *options)
    chain.is_back(0)
    assert jobs.wait(cluster, urgent, seconds=120) == "COMPLETED"
    chain.trains(1)

    shown = cluster.command("scontrol", "--oneliner", "show", "job", chain.job)
    [batch_host] = re.findall(r" BatchHost=(\S+)", shown)
    with slurm.failed_node(cluster, batch_host):
        chain.is_back(1)
    chain.trains(2)

    shown = cluster.command("scontrol", "--oneliner", "show", "job", chain.job)
    [ran] = re.findall(r" RunTime=(\S+)", shown)
    minutes = int((parse_clock(ran) or 0) // 60)
    cluster.command(*update, f"TimeLimit={minutes + 1}")  # less than the lead is left
    chain.is_back(2)
    cluster.command(*update, "TimeLimit=15")
    chain.trains(3)

    cluster.command("scontrol", "requeue", chain.job)
    chain.is_back(3)
    assert jobs.state(cluster, chain.child) == "PENDING"
    chain.cli("cancel", chain.folder)
    for job in (chain.job, chain.child):
        assert jobs.wait(cluster, job, seconds=120) == "CANCELLED"
    assert [one["state"] for one in chain.stages()] == ["cancelled", "cancelled"]

    why = [(event["restart"], event["failure_class"]) for event in chain.events("requeued")]
    assert why[0] == (0, "preempted")
    assert (2, "timeout") in why
    went_on = re.findall(r"goes on from \S+_(\d+)\.pth: .*, (\d+) steps", chain.log())
    steps = [int(one[1]) for one in went_on]
    assert len(steps) == 3
    assert steps == sorted(steps)
    # The one that lost its node has lost the steps since its last checkpoint, and no other has.
    saved = re.findall(r"interrupted_epoch_(\d+)_step_(\d+)\.pth", chain.log())
    assert [24 * int(epoch) + int(step) for epoch, step in saved[:1]] == steps[:1]


def test_a_node_that_refuses_and_a_rank_that_hangs(
    cli_env: dict[str, str], cluster: slurm.Slurm, few: Dataset, tmp_path: Path, site: Path
) -> None:
    """The first node lacks the scratch folder, and gets it when it is too late; then a rank of the
    last one is stopped. Of three nodes one may be left out at a time."""
    for node in ("node2", "node3"):
        (tmp_path / node).mkdir()
    profile = yaml.safe_load(site.read_text()) | {"scratch": f"{tmp_path}/$SLURMD_NODENAME"}
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(profile))
    cli = Cli({**cli_env, "RTDETR_SLURM_SITE": str(tmp_path / "site.yaml")}, tmp_path)
    spec = train_spec(few, num_nodes=2, num_gpus=2, gpu_ids=[0, 1], num_epochs=10)
    spec["train"] |= {"validation_interval": 10, "checkpoint_interval": 10}
    chain = submit_chain(cli, cluster, spec, "job.hang_minutes=0.5")
    chain.is_back(0)
    (tmp_path / "node1").mkdir()
    chain.trains(1)
    rank_2 = ranks_of(f"{chain.folder.name}:train")[2]
    os.kill(int(rank_2["pid"]), signal.SIGSTOP)
    chain.is_back(1)
    refused, hung = chain.events("requeued")
    assert re.match(r"node 0 \(node1\): scratch folder \S+/node1 is missing", refused["reason"])
    assert (refused["failure_class"], refused["excluded"]) == ("infra", ["node1"])
    message = r"rank 2 on node3 stands in \S+:\d+ \(\w+\).*, stopped by a signal; no step for \d+ s"
    assert re.match(message, hung["reason"]), hung["reason"]
    assert (hung["failure_class"], hung["excluded"]) == ("infra", ["node3"])
    stacks = sorted((chain.folder / "results" / "train" / "stacks").iterdir())
    assert [path.name for path in stacks] == [f"start-1-rank-00{rank}.txt" for rank in range(4)]
    assert all("in train_steps" in path.read_text() for path in stacks)
    deadline = time.monotonic() + 3 * JOB_LIMIT_S  # four ranks, and the evaluation
    while any(one["state"] in ("queued", "running") for one in chain.stages()):
        assert time.monotonic() < deadline, chain.log()
        time.sleep(1)
    assert [one["state"] for one in chain.stages()] == ["success", "success"]
    shown = cluster.command("scontrol", "--oneliner", "show", "job", chain.job)
    assert " NodeList=node[1-2] " in shown
