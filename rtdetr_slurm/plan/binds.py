"""What a container must see, without what is seen already. Pure."""

from __future__ import annotations

from pathlib import Path

from rtdetr_slurm.plan.model import Bind


def needed_binds(binds: list[Bind]) -> tuple[Bind, ...]:
    """`binds` from the outermost to the innermost, without those an outer one already provides."""
    kept: list[Bind] = []
    for bind in sorted(
        set(binds), key=lambda b: (len(Path(b.target).parts), b.target, b.read_only)
    ):
        outer = [b for b in kept if Path(bind.target).is_relative_to(b.target)]
        if not (outer and _provides(outer[-1], bind)):
            kept.append(bind)
    return tuple(kept)


def _provides(outer: Bind, inner: Bind) -> bool:
    inside = Path(inner.target).relative_to(outer.target)
    same_source = Path(outer.source) / inside == Path(inner.source)
    return same_source and (inner.read_only or not outer.read_only)
