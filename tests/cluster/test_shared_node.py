"""Two jobs on one node at once: each has its own GPUs and its own port."""

from __future__ import annotations

import socket
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from rtdetr_slurm.launch.rendezvous import master_port

from .harness import jobs, slurm
from .harness.cli import Cli, Submitted, held_queue, submit, train_spec, write_spec
from .harness.data import Dataset
from .harness.processes import ranks_of
from .harness.slurm_conf import GPU_TYPE, TENSORRT

pytestmark = pytest.mark.cluster


def met(run: Submitted, _stage: dict[str, Any]) -> bool:
    """Whether all its ranks have, which then say so."""
    return "on 2 x cpu" in run.log()


def test_two_jobs_share_a_node(
    cli_env: dict[str, str], cluster: slurm.Slurm, dataset: Dataset, tmp_path: Path, site: Path
) -> None:
    """Slurm does not number the second one's GPUs from 0 here. They are asked for in both ways by
    type; the port that the second would have is taken; a third one wants the node for itself."""
    runs = []
    asked = train_spec(dataset, num_gpus=2, gpu_ids=[0, 1], num_epochs=500, validation_interval=500)
    spec = write_spec(tmp_path / "train.yaml", asked)
    changes = (
        {"gpu": {"request": "gpus-per-node", "type": GPU_TYPE}},
        {"gpu": {"request": "gres", "type": GPU_TYPE}},
        {"exclusive": True},
    )
    with held_queue(cluster, TENSORRT):
        for number, change in enumerate(changes):
            profile = yaml.safe_load(site.read_text()) | {"partition": TENSORRT} | change
            path = tmp_path / f"site-{number}.yaml"
            path.write_text(yaml.safe_dump(profile))
            cli = Cli({**cli_env, "RTDETR_SLURM_SITE": str(path)}, tmp_path)
            runs.append(submit(cli, spec, f"dataset.workers={number + 1}"))
        first, second, alone = runs
        holder = socket.socket()
        holder.bind(("", master_port(second.job, 0)))
        holder.listen()
    with holder:
        for run in (first, second):
            run.wait(partial(met, run))
        assert jobs.state(cluster, alone.job) == "PENDING"
        alone.cli("cancel", alone.folder)
        seen = [ranks_of(f"{run.folder.name}:train") for run in (first, second)]
    devices = [{env["CUDA_VISIBLE_DEVICES"] for env in ranks} for ranks in seen]
    ports = [{env["MASTER_PORT"] for env in ranks} for ranks in seen]
    for run in (first, second):
        run.cli("cancel", run.folder)
    for run in (first, second):
        jobs.wait(cluster, run.job, seconds=120)
    assert [{env["LOCAL_RANK"] for env in ranks} for ranks in seen] == [{"0", "1"}] * 2
    assert sorted(map(sorted, devices)) == [["0,1"], ["2,3"]]
    assert ports == [
        {str(master_port(first.job, 0))},
        {str(master_port(second.job, 0, attempt=1))},
    ]
    assert "in use by another process, so the ranks meet at" in second.log()
