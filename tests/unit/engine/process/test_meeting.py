"""Ranks that do not find one another."""

from __future__ import annotations

from datetime import timedelta

import pytest

from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.engine.process.explain import explain
from rtdetr_slurm.engine.process.meeting import NotAllMet, _by_node, meet
from rtdetr_slurm.engine.process.rendezvous import free_port

SOON = timedelta(seconds=0.3)


def environment(rank: int) -> dict[str, str]:
    """Of two nodes with two ranks each."""
    return {
        "RANK": str(rank),
        "WORLD_SIZE": "4",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }


def test_who_has_not_come_is_named() -> None:
    environ = environment(0)
    with pytest.raises(NotAllMet) as caught:
        meet(environ, SOON)
    where = f"127.0.0.1:{environ['MASTER_PORT']} within 0.005 min"
    assert str(caught.value) == (
        f"3 of 4 ranks have not come to {where}: node 0 (rank 1), node 1 (rank 2, 3)"
    )
    assert caught.value.node_rank is None
    failure = explain(NotAllMet("…", 1), rank=0, world_size=4)
    assert (failure.failure_class, failure.node_rank) == (FailureClass.INFRA, 1)
    assert (failure.expected, failure.by_peer) == (True, False)


def test_where_rank_0_is_nobody_answers() -> None:
    with pytest.raises(NotAllMet, match=r"nobody answers at 127\.0\.0\.1:\d+ within 0\.005 min"):
        meet(environment(3), SOON)


def test_of_many_nodes_the_first_are_named() -> None:
    assert _by_node(range(2, 8), 1).endswith("node 5 (rank 5) and 2 more nodes")
