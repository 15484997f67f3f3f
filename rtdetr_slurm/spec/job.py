"""`job`: how the work is queued. Ours, not TAO's; taken out before an engine sees the spec."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from rtdetr_slurm.actions import ACTIONS
from rtdetr_slurm.spec.fields import Section, field

if TYPE_CHECKING:
    ActionName = str
else:
    ActionName = Literal[tuple(ACTIONS)]
Minutes = Annotated[int, Field(ge=1)]
SlurmTime = Annotated[str, Field(pattern=r"^(\d+|\d+:\d{1,2}:\d{1,2}|\d+-\d{1,2}(:\d{1,2}){0,2})$")]


class JobConfig(Section):
    """The job around an action; nodes and GPUs come from the action's own section."""

    action: ActionName | None = field(
        None,
        description="What to do, unless --action says otherwise. Null: the action whose section is "
        "the only one, or after which the file is named.",
    )
    name: str = field(
        "",
        pattern=r"^[A-Za-z0-9._-]{0,64}$",
        description="Name of the job in the queue; empty means the action's.",
    )
    time: Minutes | SlurmTime | None = field(
        None,
        description="Time limit: minutes, hours:minutes:seconds or days-hours[:minutes[:seconds]]. "
        "Null means the site's.",
    )
    partition: str | None = field(None, description="Partition; null means the site's.")
    account: str | None = field(None, description="Account to charge; null means the site's.")
    qos: str | None = field(None, description="Quality of service; null means the site's.")
    cpus_per_task: int | None = field(
        None, ge=1, description="CPU cores per node; null means the site's."
    )
    mem_gb: int | None = field(
        None, ge=1, description="Memory per node in GB; null means the site's."
    )
    requeue: bool = field(
        True, description="Go on by itself after a preemption or at the end of the time limit."
    )
    bad_images: Literal["stop", "skip"] = field(
        "stop",
        used_by=("train",),
        description="What training does about an image that cannot be decoded: stop the job, or "
        "name it and go on without it.",
    )
    then: list[ActionName] = field(
        [], description="Actions to run after this one. Not available in this version."
    )
