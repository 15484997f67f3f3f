"""One action on one rank: its spec, where it writes, whom it tells."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtdetr_slurm.contract import STATUS_JSON, Status
from rtdetr_slurm.data.pixels import BadImage
from rtdetr_slurm.engine.process.arguments import DeployOptions
from rtdetr_slurm.engine.process.distributed import Context, gather_objects
from rtdetr_slurm.engine.process.failures import writing_error
from rtdetr_slurm.engine.process.phases import Phases
from rtdetr_slurm.engine.process.stop import StopFlag
from rtdetr_slurm.errors import ActionError
from rtdetr_slurm.files import Content, replace_with, write_atomic
from rtdetr_slurm.runs.claim import Start, check_latest
from rtdetr_slurm.runs.status import StatusLog

if TYPE_CHECKING:
    from rtdetr_slurm.spec import ExperimentConfig


@dataclass(frozen=True)
class Session:
    """One action on one rank: what the function of an action is given.

    Attributes:
        name: of the action.
        resolved: the spec as plain data, every default filled in.
        skip_bad_images: go on without images that cannot be decoded.
        costs: of COSTS, what a training reports with every epoch.
        start: under which this process writes to the results folder.
        phases: what this rank is doing; the code of the action says so.
        key: that model files are encrypted with; None: they are not.
        deploy: what the job asks of a deploy action beyond the spec.
        numbers: how it fares, for people who watch: fields of runs.live.Live.
    """

    name: str
    experiment: ExperimentConfig
    resolved: dict[str, Any]
    context: Context
    results_dir: Path
    stop: StopFlag
    skip_bad_images: bool = False
    costs: tuple[str, ...] = ()
    start: Start | None = None
    phases: Phases = field(default_factory=Phases)
    key: str | None = field(default=None, repr=False)
    deploy: DeployOptions = field(default_factory=DeployOptions)
    numbers: dict[str, Any] = field(default_factory=dict)
    _named: list[str] = field(default_factory=list)
    _recorded: set[str] = field(default_factory=set)

    @property
    def status(self) -> StatusLog:
        return StatusLog(self.results_dir / STATUS_JSON, self.start)

    def check_latest(self) -> None:
        """Before a file of the results folder is written: the folder still belongs to this start.

        Raises:
            Superseded: to another one by now.
        """
        if self.start is not None:
            check_latest(self.results_dir, self.start)

    def say(self, line: str) -> None:
        """Print a line, once for all ranks."""
        if self.context.is_main:
            print(f"rtdetr: {line}", flush=True)

    def record(self, status: Status, message: str = "", **data: Any) -> None:
        """Append a line to status.json, once for all ranks."""
        if self.context.is_main:
            self.status.write(status, message, **data)

    def write(self, name: str, content: Content) -> None:
        """Replace a file of the results folder, or of a folder in it, which is made.

        Raises:
            ActionError: it cannot be written, or the folder belongs to another start by now.
        """
        self.check_latest()
        path = self.results_dir / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str | bytes):
                write_atomic(path, content)
            else:
                replace_with(path, content)
        except OSError as error:
            raise writing_error(error, path) from None

    def warn(self, message: str) -> None:
        """Say something and leave it in status.json."""
        print(f"rtdetr: warning: {message}", file=sys.stderr, flush=True)
        self.record(Status.RUNNING, message, verbosity="WARNING")

    def meet_bad_images(self, bad: Iterable[BadImage], *, skip: bool) -> None:
        """Stop at images that cannot be decoded, or name each one once and go on.

        `record_bad_images` puts the names into status.json.

        Raises:
            ActionError: naming the first, unless bad images are to be skipped.
        """
        for image in bad:
            if not skip:
                raise ActionError(
                    f"{image}. Repair or remove it, or let the run go on without such images: "
                    "--bad-images skip (job.bad_images: skip)"
                )
            line = f"{image}; skipped"
            if line not in self._named:
                self._named.append(line)
                print(f"rtdetr: warning: {line}", file=sys.stderr, flush=True)

    def record_bad_images(self) -> None:
        """Put what all ranks have met into status.json, each file once; every rank must call it."""
        for line in sorted({line for rank in gather_objects(self._named) for line in rank}):
            if line not in self._recorded:
                self._recorded.add(line)
                self.record(Status.RUNNING, line, verbosity="WARNING")
