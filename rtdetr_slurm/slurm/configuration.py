"""How a cluster is set up: text of scontrol and sacctmgr → values. Pure. Standard library only."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil

from rtdetr_slurm.slurm.times import parse_clock

_SETTING = re.compile(r"^(\w+(?:\[\d+\])?)\s*=\s?(.*)$")
_OUT_OF_USE = frozenset({"DOWN", "DRAIN", "FAIL", "MAINT", "NOT_RESPONDING", "POWERED_OFF"})


@dataclass(frozen=True)
class Partition:
    """A partition as `scontrol show partition` has it; None is "no limit", or not said.

    Attributes:
        accounts, qos: that may use it; None: all.
        max_min, default_min: time limits in minutes.
    """

    name: str
    default: bool = False
    state: str = "UP"
    max_nodes: int | None = None
    max_min: int | None = None
    default_min: int | None = None
    grace_s: int = 0
    preempt_mode: str = "OFF"
    accounts: tuple[str, ...] | None = None
    qos: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Node:
    """A node as `scontrol show node` has it.

    Attributes:
        gpus: how many of each type; the type is empty where Slurm names none.
        usable: whether jobs can be started on it, now or when others have ended.
    """

    name: str
    partitions: tuple[str, ...]
    cpus: int
    memory_mb: int
    gpus: Mapping[str, int]
    usable: bool

    @property
    def gpu_count(self) -> int:
        return sum(self.gpus.values())


@dataclass(frozen=True)
class Association:
    """What accounting lets a user do: an account, in one partition or (empty) in all, with qos."""

    account: str
    partition: str
    qos: tuple[str, ...]


@dataclass(frozen=True)
class Cluster:
    """All that the login node's questions about a cluster's set-up bring to light.

    Attributes:
        config: `scontrol show config`, by name.
        associations: the user's; None where nobody answers.
        default_account: the user's; None where nobody says.
    """

    config: Mapping[str, str]
    partitions: tuple[Partition, ...]
    nodes: tuple[Node, ...]
    associations: tuple[Association, ...] | None = None
    default_account: str | None = None

    def setting(self, name: str) -> str:
        """A setting; empty where it has no value."""
        value = self.config.get(name, "")
        return "" if value in ("(null)", "N/A") else value

    def words(self, name: str) -> frozenset[str]:
        """A setting that is a list, in lower case."""
        return frozenset(word for word in self.setting(name).lower().split(",") if word)

    def partition(self, name: str | None) -> Partition | None:
        """The one called `name`, or with None the cluster's default."""
        named = (one for one in self.partitions if one.name == name or (not name and one.default))
        return next(named, None)

    def nodes_of(self, partition: str) -> list[Node]:
        return [node for node in self.nodes if partition in node.partitions]

    @property
    def version(self) -> tuple[int, ...]:
        """`(22, 5, 8)`; empty where it is not said."""
        numbers = re.match(r"[\d.]+", self.setting("SLURM_VERSION"))
        return tuple(int(part) for part in numbers[0].split(".") if part) if numbers else ()


def parse_config(text: str) -> dict[str, str]:
    """Name → value from `scontrol show config`, its section on cgroups included."""
    found = (_SETTING.match(line.strip()) for line in text.splitlines())
    return {match[1]: match[2].strip() for match in found if match}


def parse_partitions(text: str) -> tuple[Partition, ...]:
    """From `scontrol --oneliner show partition`."""
    return tuple(
        Partition(
            name=values["PartitionName"],
            default=values.get("Default") == "YES",
            state=values.get("State", "UP"),
            max_nodes=_number(values.get("MaxNodes", "")),
            max_min=_minutes(values.get("MaxTime", "")),
            default_min=_minutes(values.get("DefaultTime", "")),
            grace_s=_number(values.get("GraceTime", "")) or 0,
            preempt_mode=values.get("PreemptMode", "OFF"),
            accounts=_names(values.get("AllowAccounts", "ALL")),
            qos=_names(values.get("AllowQos", "ALL")),
        )
        for values in _records(text, "PartitionName")
    )


def parse_nodes(text: str) -> tuple[Node, ...]:
    """From `scontrol --oneliner show node`."""
    return tuple(
        Node(
            name=values["NodeName"],
            partitions=tuple(filter(None, values.get("Partitions", "").split(","))),
            cpus=_number(values.get("CPUEfctv") or values.get("CPUTot", "")) or 0,
            memory_mb=_number(values.get("RealMemory", "")) or 0,
            gpus=parse_gpus(values.get("Gres", "")),
            usable=_is_usable(values.get("State", "")),
        )
        for values in _records(text, "NodeName")
    )


def parse_gpus(gres: str) -> dict[str, int]:
    """GPUs of each type in `gpu:a100:4(S:0-1),nvme:1`; the type is empty where none is named."""
    found: Counter[str] = Counter()
    for match in re.finditer(r"(?:^|,)gpu(?::([^:,()]+))??(?::(\d+))?(?=[,(]|$)", gres):
        found[match[1] or ""] += int(match[2] or 1)
    return dict(found)


def parse_associations(text: str) -> tuple[Association, ...]:
    """From `sacctmgr -nP show assoc format=account,partition,qos`."""
    lines = (line.split("|") for line in text.splitlines())
    return tuple(
        Association(fields[0], fields[1], tuple(filter(None, fields[2].split(","))))
        for fields in lines
        if len(fields) == 3 and fields[0]
    )


def _records(text: str, first: str) -> Iterator[dict[str, str]]:
    for line in text.splitlines():
        values = dict(re.findall(r"(\w+)=(\S*)", line))
        if first in values:
            yield values


def _is_usable(state: str) -> bool:
    """`IDLE+DRAIN`, `DOWN*`: jobs do not get there."""
    words = set(re.findall(r"[A-Z_]+", state))
    return bool(words) and not words & _OUT_OF_USE and not state.endswith("*")


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _minutes(text: str) -> int | None:
    seconds = parse_clock(text)
    return None if seconds is None else max(1, ceil(seconds / 60))


def _names(text: str) -> tuple[str, ...] | None:
    return None if text in ("ALL", "", "(null)", "N/A") else tuple(text.split(","))
