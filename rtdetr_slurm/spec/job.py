"""`job`: how the work is queued. Ours, not TAO's; taken out before an engine sees the spec."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, GetJsonSchemaHandler, WithJsonSchema, model_validator
from pydantic_core import CoreSchema

from rtdetr_slurm.actions import ACTIONS
from rtdetr_slurm.contract import CHECKPOINT_CHOICE, COMPUTE_CAPABILITY, RUNTIMES
from rtdetr_slurm.model_check import Matches, number_as_text
from rtdetr_slurm.slurm import names
from rtdetr_slurm.slurm.times import TIME_FORMS, minutes_of_field
from rtdetr_slurm.spec.fields import DEPLOYING, TRAINING, Section, field

if TYPE_CHECKING:
    ActionName = str
    Runtime = str
else:
    ActionName = Literal[tuple(ACTIONS)]
    Runtime = Literal[RUNTIMES]

ComputeCapability = Annotated[str, BeforeValidator(number_as_text), Matches(*COMPUTE_CAPABILITY)]
TargetName = Annotated[str, Matches(*names.TARGET)]


TimeLimit = Annotated[
    int,
    BeforeValidator(minutes_of_field),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {
                    "type": "string",
                    "x-allowed": TIME_FORMS,
                    "pattern": r"^(\d+|\d+:\d{1,2}:\d{1,2}|\d+-\d{1,2}(:\d{1,2}){0,2})$",
                },
            ]
        }
    ),
]
"""Minutes, written as a number or in one of Slurm's forms."""


JobName = Annotated[
    str, Matches(f"^$|{names.JOB_NAME.pattern}", f"{names.JOB_NAME.allowed}, or '' for none")
]
Account = Annotated[str, Matches(*names.NAME)]
Partition = Annotated[str, Matches(*names.NAMES)]
Qos = Annotated[str, Matches(*names.NAMES)]


Notify = Annotated[
    str,
    Matches(
        f"^$|^command$|{names.MAIL_ADDRESS.pattern}",
        f"{names.MAIL_ADDRESS.allowed}; 'command' for the site's own; or '' for nobody",
    ),
]
CheckpointChoice = Annotated[
    str, Matches(f"^({CHECKPOINT_CHOICE})$", "best, last, latest, or epoch:N counted from 0")
]


class FollowUp(Section):
    """An action that runs after the spec's own, with what its job needs otherwise."""

    action: ActionName = field(..., description="What to do.")
    name: JobName = field(
        "",
        description="Name of the stage; empty means the action's.",
    )
    time: TimeLimit | None = field(None, description="Time limit of its job, as job.time.")
    partition: Partition | None = field(None, description="Partition, as job.partition.")
    account: Account | None = field(None, description="Account to charge; null means job.account.")
    qos: Qos | None = field(None, description="Quality of service, as job.qos.")
    cpus_per_task: int | None = field(
        None, ge=1, description="CPU cores per node, as job.cpus_per_task."
    )
    mem_gb: int | None = field(None, ge=1, description="Memory per node in GiB, as job.mem_gb.")
    checkpoint: CheckpointChoice | None = field(
        None, description="Which checkpoint it takes; null means as job.checkpoint says."
    )

    @model_validator(mode="before")
    @classmethod
    def _is_named(cls, data: Any) -> Any:
        """The name of an action alone is a whole entry; without a name it has the action's."""
        if isinstance(data, str):
            data = {"action": data}
        if not isinstance(data, dict | FollowUp):
            raise ValueError("the name of an action, or a section with `action`")
        if isinstance(data, dict) and not data.get("name") and data.get("action") in ACTIONS:
            return {**data, "name": data["action"]}
        return data


class _OrActionName:
    """JSON Schema of an entry of `then`."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [{"enum": list(ACTIONS)}, handler(schema)]}


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


UploadPlace = Annotated[
    str,
    Matches(r"^(s3://[^/?#@\s]+(/[^?#\s]*)?|/\S.*)$", "s3://bucket/prefix, or an absolute path"),
]
Root = Annotated[str, Matches(r"^\S.*$", "a folder, or s3://bucket/prefix")]


class DatasetRoots(Section):
    """Where datasets are: folders, or addresses of such, with images.tar.gz and annotations.json,
    and label_map.txt for an inference."""

    train: Annotated[list[Root], BeforeValidator(_as_list)] = field(
        [],
        description="Fills dataset.train_data_sources; several are joined. A quantization is "
        "calibrated on the first.",
    )
    eval: Root | None = field(
        None, description="Fills dataset.val_data_sources and dataset.test_data_sources."
    )
    inference: Annotated[list[Root], BeforeValidator(_as_list)] = field(
        [], description="Fills dataset.infer_data_sources."
    )
    calibration: Root | None = field(
        None, description="Fills dataset.quant_calibration_data_sources."
    )
    format: Literal["coco", "coco_raw"] | None = field(
        None,
        description="TAO's name for how images lie in a root: coco is images.tar.gz, coco_raw a "
        "folder images. Null: the folder where the file system has it, else the archive.",
    )


class JobConfig(Section):
    """The job around an action; nodes and GPUs come from the action's own section."""

    action: ActionName | None = field(
        None,
        description="What to do, unless --action says otherwise. Null: the action whose section is "
        "the only one, or after which the file is named.",
    )
    name: JobName = field(
        "",
        description="Name of the job in the queue; empty means the action's.",
    )
    time: TimeLimit | None = field(
        None,
        description="Time limit; a number is minutes. Null means the site's.",
    )
    partition: Partition | None = field(None, description="Partition; null means the site's.")
    account: Account | None = field(None, description="Account to charge; null means the site's.")
    qos: Qos | None = field(None, description="Quality of service; null means the site's.")
    cpus_per_task: int | None = field(
        None, ge=1, description="CPU cores per node; null means the site's."
    )
    mem_gb: int | None = field(
        None, ge=1, description="Memory per node in GiB; null means the site's."
    )
    requeue: bool = field(
        True, description="Go on by itself after a preemption or at the end of the time limit."
    )
    notify: Notify = field(
        "",
        description="Who is told of the first start, of failures and of the end of the chain: an "
        "e-mail address, to which Slurm sends, or `command`, the site profile's notify_command.",
    )
    max_requeues: int = field(
        200,
        ge=0,
        description="So often at most does each job of the run go back to the queue, whatever the "
        "reason: preemption, the time limit, a bad node, an administrator.",
    )
    max_infra_retries: int = field(
        2,
        ge=0,
        description="So often at most does each job go back to the queue because the cluster "
        "failed, without the node that is at fault.",
    )
    max_hours: float | None = field(
        None,
        math_cond="> 0",
        description="Hours that each job may run in all, over all of its starts; null means no "
        "limit but `time`, which is for one start.",
    )
    hang_minutes: float = field(
        25.0,
        ge=0,
        le=10080,
        description="A rank that makes no step for so long has hung, and the job ends as if its "
        "node had failed. A batch of a validation is a step, too; what has none (loading, a "
        "checkpoint, the scoring after the last batch) may take four times as long. 0 means that "
        "nobody looks.",
    )
    bad_images: Literal["stop", "skip"] = field(
        "stop",
        used_by=TRAINING,
        description="What training does about an image that is missing, cannot be decoded or has "
        "another size than annotated: stop the job, or name it and go on without it.",
    )
    datasets: DatasetRoots = field(
        DatasetRoots,
        description="Roots of datasets: the data sources that the actions need and that the spec "
        "leaves out are filled from them.",
    )
    unpack: Literal["all", "named"] = field(
        "all",
        description="What is unpacked of archives of annotated images: everything, or the images "
        "that the annotations name.",
    )
    local_copy: bool = field(
        False,
        description="Have each node copy images that were fetched or unpacked to the site's "
        "`scratch` before it starts, and read them there. Jobs of a user on a node share a copy.",
    )
    upload: UploadPlace | None = field(
        None,
        description="Where a last stage puts a copy of the run, however it has ended: results, "
        "record and spec. s3://bucket/prefix, or a folder; the run's id is put behind it.",
    )
    parent: str | None = field(
        None,
        also_named="parent_job_id",
        description="An earlier run, by its id, its folder or the address of its copy "
        "(job.upload), or trial K of one as RUN/trials/K. What it has left fills the fields that "
        "want a model and are left empty; training goes on from its last checkpoint.",
    )
    checkpoint: CheckpointChoice | None = field(
        None,
        description="Which checkpoint is taken from job.parent, or, without one, from a stage "
        "before: best (by val_mAP), last, latest (what was written last, an epoch or not), or "
        "epoch:N, counted from 0. Null: the best, or the last where none was validated; training "
        "goes on from the last.",
    )
    runtime: Runtime | None = field(
        None,
        used_by=DEPLOYING,
        description="What builds and runs engines: tensorrt, or tensorrt_rtx. onnxruntime computes "
        "on the CPU what the engine was built from; engines are then built by what the TensorRT "
        "image has. Null: what the image has, for both.",
    )
    max_map_drop: float | None = field(
        None,
        ge=0,
        le=100,
        used_by=DEPLOYING,
        description="Points of mAP that an engine may lose against its checkpoint; with more the "
        "stage fails. Null: 0.5, and 1.5 where it computes in INT8.",
    )
    compute_capability: ComputeCapability | None = field(
        None,
        used_by=DEPLOYING,
        description="Compute capability of the GPU to build for, such as 8.9, where the job has "
        "none (TensorRT-RTX only). Null: that of the job's GPU, or of the site's target.",
    )
    targets: list[TargetName] = field(
        [],
        used_by=DEPLOYING,
        description="Kinds of GPU to deploy on, by their names in the site profile "
        "(roles.tensorrt.targets); each has an engine and stages of its own. Empty: all that the "
        "profile lists.",
    )
    then: list[Annotated[FollowUp, _OrActionName()]] = field(
        [],
        description="Actions to run after this one, in order: the name of an action, or a section "
        "with `action` and what is different for its job. The spec is checked for all of them. A "
        "field that wants a model and is left empty is filled from the last action before it that "
        "leaves one: a checkpoint, an ONNX file, an engine.",
    )
