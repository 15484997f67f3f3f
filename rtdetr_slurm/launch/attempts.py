"""What to try when ranks do not find one another, in order: settings of NCCL and Gloo. Pure.

Each is slower than the default or no faster, so the first that works is the one to keep. None is
tried while the profile's own settings work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rtdetr_slurm.runs.probe import Trial

Settings = Mapping[str, str]


def attempts(
    nodes: int, accelerator: str | None, interfaces: Sequence[str | None]
) -> list[Settings]:
    """Settings for one attempt after the other; the first are the profile's own alone.

    Args:
        nodes: that the ranks are on.
        accelerator: `cpu` has Gloo, all else NCCL.
        interfaces: of each node, that its default route leads through.
    """
    names = {name for name in interfaces if name}
    # One name for all: interfaces that are called otherwise elsewhere cannot be set in a profile.
    [interface] = names if len(names) == 1 and all(interfaces) else [None]
    gloo = {"GLOO_SOCKET_IFNAME": interface} if interface else {}
    if accelerator == "cpu":
        return _distinct([{}, gloo])
    if nodes == 1:
        p2p, shm = {"NCCL_P2P_DISABLE": "1"}, {"NCCL_SHM_DISABLE": "1"}
        return _distinct([{}, p2p, shm, p2p | shm])
    socket = {"NCCL_SOCKET_IFNAME": interface, **gloo} if interface else {}
    no_infiniband = {"NCCL_IB_DISABLE": "1"}
    return _distinct([{}, socket, no_infiniband, socket | no_infiniband])


def all_trials(
    nodes: int,
    tried: Sequence[Settings],
    found: list[Trial],
    reduce: Callable[[int, Settings], Trial],
    is_late: Callable[[], bool],
) -> bool:
    """Try one setting after the other until ranks find one another.

    Where the image had been entered and is not the next time, a second time tells chance from
    fault.

    Args:
        tried: of `attempts`; each is added to what has worked before.
        found: what came of earlier attempts, on fewer nodes; these are appended.
        reduce: makes an attempt.
        is_late: whether there is no time for another one.

    Returns:
        Whether it makes sense to go on with more nodes.
    """
    done = (trial for trial in reversed(found) if trial["reduced"] is not None)
    works = next((trial["settings"] for trial in done), {})
    for settings in tried:
        found.append(reduce(nodes, {**works, **settings}))
        if not found[-1]["met"] and any(trial["met"] for trial in found):
            found.append(reduce(nodes, {**works, **settings}))
        if found[-1]["reduced"] is not None:
            return True
        if not found[-1]["met"] or is_late():
            return False
    return True


def _distinct(settings: Sequence[Settings]) -> list[Settings]:
    found: list[Settings] = []
    for one in settings:
        if one not in found:
            found.append(one)
    return found
