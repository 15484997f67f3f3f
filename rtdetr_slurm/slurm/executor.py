"""The submitit adapter: submitit writes the batch script, our client sends it.

The script runs our own module, as a process that replaces the batch shell (`--signal=B:` reaches
only that one), with the run and the stage as its arguments. Nothing at run time depends on a
pickle, so that a `submit` that dies right after sbatch has answered leaves a job that runs.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import submitit

from rtdetr_slurm.slurm.client import SlurmClient
from rtdetr_slurm.slurm.parse import Queued


class BatchExecutor(submitit.SlurmExecutor):
    """submitit's Slurm executor for one command.

    Args:
        folder: of the script and of the job's log.
        command: what replaces the batch shell.
        parameters: of script.batch_parameters.
    """

    def __init__(self, folder: Path, command: Sequence[str], parameters: dict[str, Any]) -> None:
        super().__init__(folder)
        self._command = command
        # submitit's own callers give the size of an array by itself.
        array = parameters.get("map_count")
        self.update_parameters(**{k: v for k, v in parameters.items() if k != "map_count"})
        if array is not None:
            self.parameters["map_count"] = array

    @classmethod
    def affinity(cls) -> int:
        """A script can be written, and shown, without srun; sending it is another matter."""
        return 2

    def script(self) -> str:
        """The batch script, byte for byte as `send` sends it."""
        return self._make_submission_file_text(self._submitit_command_str, "")

    def send(self, cluster: str | None = None) -> Queued:
        """Queue it, on `cluster` where Slurm has several.

        Raises:
            SubmissionRefused, SlurmUnreachable: as Slurm.sbatch.
        """
        script = self.folder / SCRIPT
        script.write_text(self.script(), encoding="utf-8")
        return SlurmClient(cluster).sbatch(script)

    @property
    def _submitit_command_str(self) -> str:
        return f"exec {shlex.join(self._command)}"

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        text: str = super()._make_submission_file_text(command, uid)
        if "wckey" not in self.parameters:
            # submitit always names a wckey, and clusters that track them refuse unknown ones.
            lines = text.splitlines(keepends=True)
            text = "".join(line for line in lines if not line.startswith("#SBATCH --wckey="))
        return text


SCRIPT = "job.sh"
"""Name of the script in the stage's folder."""
