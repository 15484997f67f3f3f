"""submitit under our launch contract: how a stage becomes a job.

The batch script runs submitit's Python directly (no outer srun), as a process that replaces the
batch shell, because `--signal=B:` reaches only that one. submitit then calls the controller,
whose pickle holds nothing but the run folder and the stage name.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import submitit
from submitit.slurm.slurm import SlurmJob

from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.launch.controller import Controller
from rtdetr_slurm.plan.model import Resources, Stage
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.slurm.client import SlurmClient

_NO_LIMIT_MIN = 365 * 24 * 60


class BatchExecutor(submitit.SlurmExecutor):
    """submitit's Slurm executor for one stage, sending the script through our client."""

    def __init__(self, jobs_dir: Path, stage: Stage, token: str, job_name: str) -> None:
        super().__init__(jobs_dir, python=f"exec {shlex.quote(sys.executable)}")
        self._stage = stage
        self._client = SlurmClient()
        self.update_parameters(**batch_parameters(stage, jobs_dir.parent, token, job_name))

    @classmethod
    def affinity(cls) -> int:
        """A script can be written, and shown, without srun; sending it is another matter."""
        return 2

    def script(self) -> str:
        """The batch script, byte for byte as `submit` sends it."""
        return self._make_submission_file_text(self._submitit_command_str, "")

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        text: str = super()._make_submission_file_text(command, uid)
        if self._stage.launch.wckey is None:
            # submitit always names a wckey, and clusters that track them refuse unknown ones.
            lines = text.splitlines(keepends=True)
            text = "".join(line for line in lines if not line.startswith("#SBATCH --wckey="))
        return text

    def _submit_command(self, command: str) -> Any:
        script = self.folder / f"{self._stage.name}.sh"
        script.write_text(self._make_submission_file_text(command, ""), encoding="utf-8")
        return SlurmJob(folder=self.folder, job_id=self._client.submit(script), tasks=[0])


def batch_parameters(stage: Stage, run_dir: Path, token: str, job_name: str) -> dict[str, Any]:
    """submitit's parameters for a stage; None means: not on the script."""
    resources, launch = stage.resources, stage.launch
    parameters: dict[str, Any] = {
        "job_name": job_name,
        "comment": token,
        "nodes": resources.nodes,
        "ntasks_per_node": 1,
        "cpus_per_task": resources.cpus_per_task,
        "mem": None if resources.mem_gb is None else f"{round(resources.mem_gb * 1024)}M",
        "time": resources.time_min,
        "partition": resources.partition,
        "account": resources.account,
        "qos": resources.qos,
        "constraint": resources.constraint,
        "use_srun": False,
        "stderr_to_stdout": True,
        "setup": list(launch.module_lines) or None,
        "additional_parameters": {
            "signal": f"B:USR2@{launch.signal_lead_s}",
            "chdir": str(run_dir),
            "requeue" if launch.requeue else "no-requeue": True,
        },
    }
    if launch.wckey is not None:
        parameters["wckey"] = launch.wckey
    return parameters | _gpu_parameters(resources)


def _gpu_parameters(resources: Resources) -> dict[str, Any]:
    kind = f"{resources.gpu_type}:" if resources.gpu_type else ""
    count = f"{kind}{resources.gpus_per_node}"
    if resources.gpu_request == "gpus-per-node":
        return {"gpus_per_node": count}
    if resources.gpu_request == "gres":
        return {"gres": f"gpu:{count}"}
    return {}


def submit_to_slurm(run: Run, stage: Stage, token: str, job_name: str) -> str:
    """Queue a stage; returns the job id.

    Raises:
        SubmissionRefused, SlurmUnreachable: as SlurmClient.submit.
    """
    executor = BatchExecutor(run.jobs_dir, stage, token, job_name)
    return str(executor.submit(Controller(str(run.path), stage.name)).job_id)


def adopt(run: Run, job_id: str) -> None:
    """Give a job that was queued without our hearing of it the pickle it waits for."""
    target = run.jobs_dir / f"{job_id}_submitted.pkl"
    waiting = [p for p in run.jobs_dir.glob("*.pkl") if not p.name.endswith("_submitted.pkl")]
    if not target.exists() and len(waiting) == 1:
        waiting[0].rename(target)


def submit_locally(run: Run, stage: Stage) -> str:
    """Start a stage on this machine, detached from this process; returns its process id.

    submitit's local executor starts its own controller, which would share this terminal's
    signals and hold its output open. So it is started from a child that has left the session.

    Raises:
        SiteError: it could not be started; the log that is named says why.
    """
    log = run.jobs_dir / f"{stage.name}.local.log"
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        with _last_words(log):
            os.setsid()
            os.write(write_end, _start_local(run, stage).encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as stream:
        job_id = stream.read()
    os.waitpid(child, 0)
    if not job_id:
        raise SiteError(f"the local job could not be started; see {log}")
    return job_id


def _start_local(run: Run, stage: Stage) -> str:
    executor = submitit.LocalExecutor(run.jobs_dir)
    devices = _local_devices(stage)
    executor.update_parameters(
        timeout_min=stage.resources.time_min or _NO_LIMIT_MIN,
        signal_delay_s=stage.launch.signal_lead_s,
        gpus_per_node=len(devices),
        visible_gpus=devices,
        stderr_to_stdout=True,
    )
    return str(executor.submit(Controller(str(run.path), stage.name)).job_id)


def _local_devices(stage: Stage) -> tuple[int, ...]:
    """gpu_ids as device numbers, counted within CUDA_VISIBLE_DEVICES where the user set it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if stage.launch.accelerator == "cpu":
        return ()
    if visible is None:
        return stage.resources.gpu_ids
    devices = [int(name) for name in visible.split(",") if name.strip().isdigit()]
    if all(i < len(devices) for i in stage.resources.gpu_ids):
        return tuple(devices[i] for i in stage.resources.gpu_ids)
    return ()


@contextlib.contextmanager
def _last_words(log: Path) -> Iterator[None]:
    """In a forked child: output goes to `log`, and nothing escapes into the parent's code."""
    try:
        with log.open("ab", buffering=0) as stream, Path(os.devnull).open("rb") as nothing:
            for source, target in ((nothing, 0), (stream, 1), (stream, 2)):
                os.dup2(source.fileno(), target)
        yield
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
