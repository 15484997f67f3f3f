"""`rtdetr evaluate` as the launcher starts it on two nodes, which are this machine here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from engine_support import LAUNCH, Workspace, fresh_weights, workspace  # noqa: F401

from rtdetr_slurm.engine.process.rendezvous import free_port

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)


def evaluate(workspace: Workspace, weights: Path, nodes: int) -> bytes:
    """metrics.json of so many nodes with a rank each."""
    results = workspace.root / f"on-{nodes}"
    command = ["rtdetr", "evaluate", "-e", str(workspace.spec_file()), f"results_dir={results}",
               f"evaluate.checkpoint={weights}", f"evaluate.num_nodes={nodes}",
               "evaluate.batch_size=2"]  # fmt: skip
    environment = os.environ | {
        **LAUNCH,
        "WORLD_SIZE": str(nodes),
        "NUM_GPU_PER_NODE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "RTDETR_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    processes = [
        subprocess.Popen(
            command,
            env=environment | {"NODE_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(nodes)
    ]
    said = [process.communicate(timeout=180)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * nodes, said
    assert "mAP" in said[0]
    assert not any("mAP" in text for text in said[1:])
    return (results / "evaluate" / "metrics.json").read_bytes()


def test_two_nodes_find_what_one_does(workspace: Workspace) -> None:
    """Five images in batches of two: the nodes have two of these and one. To the last bit."""
    weights = fresh_weights(workspace)
    one, two = (evaluate(workspace, weights, nodes) for nodes in (1, 2))
    assert one == two
    assert b'"detections": 0' not in one
