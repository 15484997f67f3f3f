"""The test cluster itself: what the project's own tests rely on is really there."""

from __future__ import annotations

import shlex
import time
from dataclasses import replace
from pathlib import Path

import pytest

from .harness import apptainer, jobs, processes, slurm
from .harness.image import Image
from .harness.machine import HarnessError
from .harness.slurm_conf import GPUS_PER_NODE, NODES

pytestmark = pytest.mark.cluster

ALL_REDUCE = """\
import os
import socket
import torch
import torch.distributed as dist

dist.init_process_group("gloo")
total = torch.tensor([float(dist.get_rank())])
dist.all_reduce(total)
line = (dist.get_rank(), os.environ["NODE"], int(total), os.path.exists("/.singularity.d"))
lines = [None] * dist.get_world_size()
dist.all_gather_object(lines, line)
if dist.get_rank() == 0:
    print("ranks", sorted(lines), flush=True)
dist.destroy_process_group()
"""


def test_all_nodes_are_idle(cluster: slurm.Slurm) -> None:
    assert slurm.node_states(cluster) == dict.fromkeys(NODES, "idle")
    partitions = cluster.command("sinfo", "--noheader", "--format=%R %N").split("\n")
    assert partitions[:-1] == ["train node[1-3]", "urgent node[1-3]", "tensorrt node4"]


def test_job_on_two_nodes_gets_its_gpus(cluster: slurm.Slurm, tmp_path: Path) -> None:
    script = "srun --export=ALL bash -c 'echo $SLURM_NODEID $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES'"
    job = jobs.submit(
        cluster, tmp_path, script, "--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=2"
    )
    assert jobs.wait(cluster, job) == "COMPLETED"
    assert sorted(jobs.output(tmp_path, job).splitlines()) == ["0 node1 0,1", "1 node2 0,1"]


def test_second_job_on_a_node_gets_the_other_gpu(cluster: slurm.Slurm, tmp_path: Path) -> None:
    # The first job holds its GPU until the second has ended: they share the node.
    flag = tmp_path / "second-is-done"
    options = ("--nodelist=node3", "--gpus-per-node=1")
    wait = f"echo $CUDA_VISIBLE_DEVICES; until [ -e {shlex.quote(str(flag))} ]; do sleep 0.1; done"
    first = jobs.submit(cluster, tmp_path, wait, *options)
    jobs.wait(cluster, first, until=frozenset({"RUNNING"}))
    second = jobs.submit(cluster, tmp_path, "echo $CUDA_VISIBLE_DEVICES", *options)
    third = jobs.submit(cluster, tmp_path, "true", "--nodelist=node3", "--gpus-per-node=2")
    assert jobs.wait(cluster, second) == "COMPLETED"
    assert jobs.state(cluster, third) == "PENDING"
    flag.touch()
    assert jobs.wait(cluster, first) == "COMPLETED"
    assert jobs.wait(cluster, third) == "COMPLETED"
    given = [jobs.output(tmp_path, job).strip() for job in (first, second)]
    assert given == [str(number) for number in range(GPUS_PER_NODE)]


def test_impossible_request_is_refused(cluster: slurm.Slurm, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="not available"):
        jobs.submit(cluster, tmp_path, "true", "--gpus-per-node=3")


def test_sacct_keeps_the_job(cluster: slurm.Slurm, tmp_path: Path) -> None:
    job = jobs.submit(cluster, tmp_path, "exit 7", "--gpus-per-node=2")
    assert jobs.wait(cluster, job) == "FAILED"
    records = jobs.accounted(cluster, job, "JobID,State,ExitCode,AllocTRES")
    assert records[0][:3] == [job, "FAILED", "7:0"]
    assert "gres/gpu=2" in records[0][3]


def test_requeued_job_starts_again(cluster: slurm.Slurm, tmp_path: Path) -> None:
    script = """
echo "start ${SLURM_RESTART_COUNT:-none}"
if [ -z "$SLURM_RESTART_COUNT" ]; then scontrol requeue $SLURM_JOB_ID; sleep 60; fi
"""
    job = jobs.submit(cluster, tmp_path, script, "--requeue", "--open-mode=append")
    assert jobs.wait(cluster, job, seconds=90) == "COMPLETED"
    lines = jobs.output(tmp_path, job).splitlines()
    assert [line for line in lines if line.startswith("start")] == ["start none", "start 1"]


def test_signal_before_the_time_limit_reaches_the_batch_shell(
    cluster: slurm.Slurm, tmp_path: Path
) -> None:
    # Slurm sends it at most a minute early: with one minute of time it comes right away.
    script = "trap 'echo got USR2; exit 0' USR2; sleep 50 & wait; echo no signal"
    job = jobs.submit(cluster, tmp_path, script, "--time=1", "--signal=B:USR2@50")
    assert jobs.wait(cluster, job, seconds=70) == "COMPLETED"
    lines = jobs.output(tmp_path, job).splitlines()
    assert "got USR2" in lines
    assert "no signal" not in lines


def test_four_ranks_in_the_image_on_two_nodes(
    cluster: slurm.Slurm, image: Image, tmp_path: Path
) -> None:
    (tmp_path / "all reduce.py").write_text(ALL_REDUCE)
    container = shlex.join(
        [
            *(str(apptainer.apptainer()), "exec", "--cleanenv", "--no-home"),
            *("--mount", f"type=bind,src={tmp_path},dst=/work space,ro", "--pwd", "/work space"),
        ]
    )
    (tmp_path / "node.sh").write_text(f"""
exec {container} --env "NODE=$SLURMD_NODENAME,OMP_NUM_THREADS=1" {image.path} \\
    python -m torch.distributed.run --nnodes=2 --nproc-per-node=2 --node-rank="$SLURM_NODEID" \\
    --master-addr=127.0.1.1 --master-port=$((20000 + SLURM_JOB_ID)) "all reduce.py"
""")
    script = "srun --export=ALL --kill-on-bad-exit=1 bash node.sh"
    options = ("--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=2", "--nodelist=node[1-2]")
    with_apptainer = replace(cluster, job_env=apptainer.environment())
    job = jobs.submit(with_apptainer, tmp_path, script, *options)
    ended = jobs.wait(cluster, job, seconds=120)
    assert ended == "COMPLETED", jobs.output(tmp_path, job)
    ranks = [(0, "node1"), (1, "node1"), (2, "node2"), (3, "node2")]
    expected = [(rank, node, 6, True) for rank, node in ranks]
    assert f"ranks {expected}" in jobs.output(tmp_path, job).splitlines()


def test_cancelled_job_leaves_no_process(cluster: slurm.Slurm, tmp_path: Path) -> None:
    # The program below has a name that only this test gives it.
    script = "exec -a rtdetr-test-sleeper sleep 300"
    job = jobs.submit(cluster, tmp_path, script)
    jobs.wait(cluster, job, until=frozenset({"RUNNING"}))
    deadline = time.monotonic() + 10
    while not processes.find("rtdetr-test-sleeper"):
        assert time.monotonic() < deadline, "the job's program did not start"
        time.sleep(0.1)
    cluster.command("scancel", job)
    assert jobs.wait(cluster, job) == "CANCELLED"
    while processes.find("rtdetr-test-sleeper"):
        assert time.monotonic() < deadline + 30, "the job's program still runs"
        time.sleep(0.1)
