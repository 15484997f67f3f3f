"""A table once in the memory of each node, for all its ranks and their loading processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from rtdetr_slurm.engine.process.distributed import (
    Context,
    barrier,
    gather_objects,
    on_main,
    spread_bytes,
)
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.vision.mapped import Layout, MappedArrays
from rtdetr_slurm.vision.table import Table, mapped_table


def share_table(context: Context, build: Callable[[], Table]) -> Table:
    """What `build` makes on rank 0, for every rank. Where there are several, it cannot be written.

    The first rank of each node has the arrays in memory, and the others map that.

    Raises:
        UserError: of `build`, on every rank.
        SiteError: this rank cannot map what the first one has.
    """
    if context.world_size == 1:
        return build()
    had: list[MappedArrays] = []

    def describe() -> tuple[Layout, dict[str, Any]]:
        table = build()
        had.append(table.mapped)
        return table.mapped.layout, table.others

    layout, others = on_main(describe)
    if context.local_rank == 0 and not context.is_main:
        had.append(MappedArrays.empty(layout))
    if context.world_size > context.local_world_size:
        spread_bytes(had[0].memory() if had else None, context.device)
    places = gather_objects((os.getpid(), had[0].file) if had else None)
    process, number = on_main(lambda: places)[context.rank - context.local_rank] or (0, 0)
    mapped = had[0] if had else _mapped(process, number, layout)
    barrier()  # no rank lets go of what others have yet to open
    return mapped_table(mapped, others)


def _mapped(process: int, number: int, layout: Layout) -> MappedArrays:
    """The arrays that a process of this node has, by the number of its descriptor."""
    place = f"/proc/{process}/fd/{number}"
    try:
        return MappedArrays(os.open(place, os.O_RDONLY), layout)
    except OSError as error:
        raise SiteError(
            f"{place}, the annotations in the memory of this node's first rank, cannot be opened: "
            f"{error.strerror}. The ranks of a node must run in one container, and see each other "
            "in /proc"
        ) from None
