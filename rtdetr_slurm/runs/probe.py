"""The folder of a probe job of `doctor`: what is asked, and what the job answers. Standard library
only.

It lies in the run root, as run folders do, so that what holds for it holds for them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from rtdetr_slurm.files import write_atomic
from rtdetr_slurm.plan.model import Stage
from rtdetr_slurm.records import Prose, checked, names_in, read_json
from rtdetr_slurm.runs.images import ImageRecord

REQUEST, HELLO, ANSWER, END = "request.json", "hello.json", "answer.json", "end.json"

MEETING = "rtdetr: the ranks of this node are to meet the others"
"""What the engine says before it starts them: what fails then is how they are joined."""

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """What a probe job is to find out.

    Attributes:
        stage: nodes, GPUs, container and environment, as a job of the role would have them.
        token: of the job, in its comment.
        image: as the login node sees it; None without a container.
        enters: whether the engine is started in the container (or on the host, where there is
            none), and all ranks add up a tensor there.
        limit_s: for the ranks to meet, and for one all-reduce.
        s3: the address of an S3 service.
    """

    stage: Stage
    token: str
    image: ImageRecord | None
    enters: bool
    limit_s: float
    s3: str | None = None


class Hello(TypedDict):
    """The job's first words, on node 0.

    Attributes:
        time: seconds since 1970, by the node's clock.
        requeue: whether Slurm lets the job go back to the queue; None where it does not say.
        comment: of the job, as Slurm has it.
    """

    time: float
    host: Prose
    python: Prose
    requeue: bool | None
    comment: Prose


class Answer(TypedDict):
    """The login node's, as soon as it has seen the job's first words."""

    time: float


class NodeFacts(TypedDict):
    """What one node says about itself.

    Attributes:
        shm_free: bytes.
        scratch: the folder for temporary files.
        devices: CUDA_VISIBLE_DEVICES as Slurm has set it.
        physical: the numbers that Slurm itself has for those.
        present, usable: NVIDIA devices that there are, and that the job can open.
        apptainer: what it says about its version.
        setuid: whether it starts containers with root's rights; None where it does not say.
        userns: what keeps users from having namespaces of their own; empty: nothing known.
        interface: that the default route leads through.
        problems: what would keep a job from starting here, by check.
    """

    rank: int
    host: Prose
    umask: Prose
    shm_free: int
    scratch: Prose
    scratch_free: int
    devices: Prose | None
    physical: Prose | None
    present: int
    usable: int
    driver: Prose | None
    apptainer: Prose | None
    setuid: bool | None
    userns: Prose
    interface: Prose | None
    s3_problem: Prose | None
    problems: Mapping[str, Prose]


class _Reduced(TypedDict):
    """What the ranks found when they added up a tensor.

    Attributes:
        join_s: from the first rank's start to all of them having met.
        bus_gb_s: 1e9 bytes per second and rank over the slowest link, as nccl-tests has it; None
            for one rank alone.
        devices: names, in the order of ranks.
    """

    version: Prose
    torch: Prose
    backend: Prose
    ranks: int
    join_s: float
    bus_gb_s: float | None
    latency_us: float | None
    devices: list[Prose]


class Reduced(_Reduced, total=False):
    tensorrt: list[Prose]
    """Which of TensorRT's packages are there, with their versions; images of before do not say."""


class Trial(TypedDict):
    """One attempt at an all-reduce.

    Attributes:
        settings: environment variables besides those of the profile.
        met: whether the ranks came so far as to look for one another.
        evidence: why it failed; empty where it did not.
    """

    nodes: int
    settings: Mapping[str, Prose]
    met: bool
    seconds: float
    evidence: Prose
    reduced: Reduced | None


class End(TypedDict):
    """The job's last words.

    Attributes:
        seen_after_s: from the login node's writing a file to the job's seeing it, by the clocks
            of both, so less than nothing where the node's is behind; None: it never did.
        problem: why the examination is not complete; empty where it is.
    """

    seen_after_s: float | None
    trials: list[Trial]
    problem: Prose


def read_request(folder: Path) -> Request:
    """What this job is to find out.

    Raises:
        FileNotFoundError, BadRecord: the folder does not say.
    """
    path = folder / REQUEST
    return checked(Request, read_json(path), path)


def write_request(folder: Path, request: Request) -> None:
    _write(folder / REQUEST, asdict(request))


def write_record(folder: Path, name: str, record: Mapping[str, Any]) -> None:
    """Leave one of the records above."""
    _write(folder / name, record)


def read_record(kind: type[T], folder: Path, name: str) -> T | None:
    """One of the records above; None where it is not there (yet).

    Raises:
        BadRecord: it is damaged.
    """
    try:
        return checked(kind, read_json(folder / name), folder / name)
    except FileNotFoundError:
        return None


def node_record(rank: int) -> str:
    return f"node-{rank}.json"


def read_nodes(folder: Path) -> list[NodeFacts]:
    """What the nodes have said, by rank.

    Raises:
        BadRecord: one of the records is damaged.
    """
    names = [name for name in names_in(folder) if name.startswith("node-")]
    found = [read_record(NodeFacts, folder, name) for name in names if name.endswith(".json")]
    return sorted((one for one in found if one is not None), key=lambda one: one["rank"])


def _write(path: Path, content: Mapping[str, Any]) -> None:
    write_atomic(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
