"""What a stage asks of sbatch, as submitit's parameters, and what its script runs. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rtdetr_slurm.contract import END_SIGNALS, Env

if TYPE_CHECKING:
    from rtdetr_slurm.plan.model import Resources, Stage

_SIGNALS = [signum.name.removeprefix("SIG") for signum in END_SIGNALS]


def first_lines(job_dir: str) -> list[str]:
    """Before all else, module lines included: an asked-for end is noted, and handed on to the
    controller once there is one; and no credential goes on into the job."""
    note = f'{shlex.quote(job_dir)}/"warned-$SLURM_JOB_ID-${{SLURM_RESTART_COUNT:-0}}"'
    # `|| :` because module lines may have said `set -e`.
    hear = f'again=1; echo "$1" >> "${Env.WARNED}" || :; kill -s "$1" $controller || :'
    return [
        f"export {Env.WARNED}={note}",
        f"asked() {{ {hear}; }} 2> /dev/null",
        "controller=",
        *(f"trap 'asked {name}' {name}" for name in _SIGNALS),
        "unset SLURM_JWT",
    ]


def controller_lines(command: Sequence[str]) -> str:
    """Runs the controller; the shell stays, for `--signal=B:` reaches only it.

    What it hands on before the controller can hear is ignored there, and read from the note.
    """
    names = " ".join(_SIGNALS)
    return (
        f"(trap '' {names}; exec {shlex.join(command)}) &\n"
        "controller=$!\n"
        # A signal ends a wait; one more tells how the controller itself ended.
        "again=1\n"
        'while [ "$again" ]; do again=; wait $controller && code=0 || code=$?; done\n'
        "exit $code"
    )


def batch_parameters(
    stage: Stage,
    *,
    chdir: str,
    job_dir: str,
    comment: str,
    job_name: str,
    after: Sequence[tuple[str, str]] = (),
    tasks: Sequence[int] | None = None,
) -> dict[str, Any]:
    """submitit's parameters for a stage; None means: not on the script.

    Args:
        job_dir: the stage's folder, for what its job leaves there.
        after: (kind, job id) of each dependency.
        tasks: those of the stage's array that are to run; None: all.
    """
    resources, launch = stage.resources, stage.launch
    parameters: dict[str, Any] = {
        "job_name": job_name,
        "comment": comment,
        "nodes": resources.nodes,
        "ntasks_per_node": 1,
        "cpus_per_task": resources.cpus_per_task,
        "mem": None if resources.mem_gb is None else f"{round(resources.mem_gb * 1024)}M",
        "time": resources.time_min,
        "partition": resources.partition,
        "account": resources.account,
        "qos": resources.qos,
        "constraint": resources.constraint,
        "exclusive": True if resources.exclusive else None,
        "dependency": _dependency(after),
        "mail_user": None if resources.mail is None else resources.mail.user,
        "mail_type": None if resources.mail is None else ",".join(resources.mail.types),
        "use_srun": False,
        "stderr_to_stdout": True,
        "setup": [*first_lines(job_dir), *launch.module_lines],
        "additional_parameters": {
            "signal": f"B:USR2@{launch.signal_lead_s}",
            "chdir": chdir,
            "requeue" if launch.requeue else "no-requeue": True,
            **({"kill-on-invalid-dep": "yes"} if after else {}),
        },
    }
    if launch.wckey is not None:
        parameters["wckey"] = launch.wckey
    if stage.array is not None:
        size = stage.array.size
        parameters |= {"map_count": size, "array_parallelism": stage.array.throttle or size}
        if tasks is not None:
            numbers = ",".join(map(str, tasks))
            throttle = min(stage.array.throttle or size, len(tasks))
            parameters["additional_parameters"]["array"] = f"{numbers}%{throttle}"
    return parameters | _gpu_parameters(resources)


def _dependency(after: Sequence[tuple[str, str]]) -> str | None:
    """`afterok:1:2,afterany:3`, kinds in the order in which they come."""
    by_kind: dict[str, list[str]] = {}
    for kind, job_id in after:
        by_kind.setdefault(kind, []).append(job_id)
    return ",".join(":".join([kind, *ids]) for kind, ids in by_kind.items()) or None


def _gpu_parameters(resources: Resources) -> dict[str, Any]:
    if not resources.gpus_per_node:
        return {}
    kind = f"{resources.gpu_type}:" if resources.gpu_type else ""
    count = f"{kind}{resources.gpus_per_node}"
    if resources.gpu_request == "gpus-per-node":
        return {"gpus_per_node": count}
    if resources.gpu_request == "gres":
        return {"gres": f"gpu:{count}"}
    return {}
