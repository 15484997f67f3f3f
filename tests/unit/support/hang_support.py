"""Ranks that stand somewhere, for what is said of a hang."""

from __future__ import annotations

from dataclasses import replace

from rtdetr_slurm.engine.process.phases import Phase
from rtdetr_slurm.engine.process.standing import Standing

RANK = Standing(
    rank=2,
    node="node2",
    node_rank=1,
    phase=Phase.STEPPING,
    steps_done=10,
    epoch=0,
    step=9,
    quiet=70.0,
    limit=60.0,
    state="S",
    place="loop.py:131 (train_steps)",
    waits=False,
)
WAITS = replace(RANK, rank=0, node="node1", node_rank=0, waits=True)
