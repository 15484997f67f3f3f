"""`rtdetr probe`, for `rtdetr-slurm doctor` alone: starts ranks that add up a tensor.

It reads the launch as an action does, so what works here works there. No torch in this process.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.engine.process.environment import rank_environment
from rtdetr_slurm.engine.process.ranks import Cancelled, run_ranks
from rtdetr_slurm.engine.process.rendezvous import read_rendezvous
from rtdetr_slurm.errors import ActionError
from rtdetr_slurm.runs.probe import MEETING
from rtdetr_slurm.spec import Topology

PROBE = "probe"
_RANK_MODULE = "rtdetr_slurm.engine.process.allreduce"


def run_probe(arguments: Sequence[str]) -> int:
    """Start this node's ranks; returns the exit code.

    Args:
        arguments: the file that rank 0 is to write, nodes, ranks on each, and the seconds that the
            ranks have to meet.

    Raises:
        UserError: the launch is not what it should be.
    """
    record, nodes, ranks, limit_s = arguments
    asked = Topology(int(nodes), int(ranks), tuple(range(int(ranks))))
    rendezvous = read_rendezvous(os.environ, get_action("train"), asked)
    environment = rank_environment(os.environ, asked, rendezvous)
    print(MEETING, flush=True)
    try:
        return run_ranks(rendezvous, [record, limit_s], environment, module=_RANK_MODULE).exit_code
    except Cancelled as error:
        raise ActionError(str(error)) from None
