"""The submitit adapter: submitit writes the batch script, our client sends it.

The script runs our own code, with the run and the stage as its arguments. Nothing at run time
depends on a pickle, so that a `submit` that dies right after sbatch has answered leaves a job that
runs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import submitit

from rtdetr_slurm.contract import BATCH_SCRIPT
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.files import write_atomic
from rtdetr_slurm.slurm.answers import Queued
from rtdetr_slurm.slurm.client import SlurmClient
from rtdetr_slurm.slurm.names import has_control_character
from rtdetr_slurm.slurm.script import controller_lines


class BatchExecutor(submitit.SlurmExecutor):
    """submitit's Slurm executor for one command.

    Args:
        folder: of the script and of the job's log.
        command: the controller.
        parameters: of script.batch_parameters.

    Raises:
        SiteError: a parameter holds a line break, after which bash would read its own commands.
    """

    def __init__(self, folder: Path, command: Sequence[str], parameters: dict[str, Any]) -> None:
        _refuse_control_characters({"output": str(folder), **parameters})
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

    def send(self, cluster: str | None = None, secrets: Sequence[str] = ()) -> Queued:
        """Queue it, on `cluster` where Slurm has several.

        Args:
            secrets: names of variables that Slurm must not store with the job.

        Raises:
            OSError: the script cannot be written; nothing was sent.
            SubmissionRefused, SlurmUnreachable: as Slurm.sbatch.
        """
        script = self.folder / BATCH_SCRIPT
        # Paths need not be UTF-8; others must not write what is executed.
        write_atomic(script, os.fsencode(self.script()), mode=0o600)
        return SlurmClient(cluster, secrets=secrets).sbatch(script)

    @property
    def _submitit_command_str(self) -> str:
        return controller_lines(self._command)

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        text: str = super()._make_submission_file_text(command, uid)
        if "wckey" not in self.parameters:
            # submitit always names a wckey, and clusters that track them refuse unknown ones.
            lines = text.splitlines(keepends=True)
            text = "".join(line for line in lines if not line.startswith("#SBATCH --wckey="))
        return text


def _refuse_control_characters(parameters: Mapping[str, Any]) -> None:
    """Whatever checked a value before: none gets out of its `#SBATCH` line.

    The lines of `setup` are the administrator's own shell.
    """
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            _refuse_control_characters(value)
        elif name != "setup" and has_control_character(str(value)):
            raise SiteError(
                f"sbatch's {name} would be {value!r}: a line break or another control character "
                "is not written to a batch script"
            )
