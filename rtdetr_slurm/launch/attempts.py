"""What to try when ranks do not find one another, in order: settings of NCCL and Gloo. Pure.

Each is slower than the default or no faster, so the first that works is the one to keep. None is
tried while the profile's own settings work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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


def _distinct(settings: Sequence[Settings]) -> list[Settings]:
    found: list[Settings] = []
    for one in settings:
        if one not in found:
            found.append(one)
    return found
