"""The Python API: what the command line does, for notebooks and scripts.

    from rtdetr_slurm import submit, open_run

    run = submit("train.yaml", ["train.num_epochs=12"], then=["evaluate"])
    report = run.wait()
    print(report.state, run.results()["train"].best)

Every function raises errors.UserError (RequestError, SiteError) with a message that says what is
wrong and what to do; nothing is printed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rtdetr_slurm.errors import SiteError, refusals_explained
from rtdetr_slurm.runs.artefacts import Results
from rtdetr_slurm.runs.run import Run, find_run
from rtdetr_slurm.runs.run import open_run as read_run
from rtdetr_slurm.runs.summary import RunReport
from rtdetr_slurm.submission.cancel import cancel_run
from rtdetr_slurm.submission.follow import Follower
from rtdetr_slurm.submission.survey import survey_run


@dataclass(frozen=True)
class SubmittedRun:
    """A run that has been submitted, by whoever and whenever."""

    record: Run

    @property
    def id(self) -> str:
        """The run id, `<action>-<UTC date>-<time>-<4 hex>`."""
        return self.record.id

    @property
    def path(self) -> Path:
        """Absolute path of the run folder."""
        return self.record.path

    @refusals_explained()
    def status(self) -> RunReport:
        """Where the run is now: one report with a stage each.

        Raises:
            RequestError: the record cannot be read.
        """
        return survey_run(self.path)[0]

    def wait(self, timeout: float | None = None) -> RunReport:
        """Wait for the end of the run and report on it.

        Args:
            timeout: seconds; None waits as long as it takes.

        Raises:
            TimeoutError: the run has not ended by then; it goes on.
        """
        follower = Follower(self.record, on_line=None, on_report=_ignore, on_note=_ignore)
        with refusals_explained():
            report = follower.follow(timeout)
        if timeout is not None and not report.ended:
            raise TimeoutError(f"{self.id} is {report.state.value} after {timeout:g} s")
        return report

    def results(self) -> dict[str, Results]:
        """What each stage has left so far, by the stage's name: checkpoints and picture."""
        return {stage.name: stage.results for stage in self.status().stages}

    @refusals_explained()
    def cancel(self) -> dict[str, str]:
        """Cancel what has not ended; returns stage name → job id of what was cancelled.

        Raises:
            SiteError: the scheduler refuses or cannot be asked, not all of it could be written
                down, or nobody can say whether a stage was queued; such a job ends as soon as it
                starts.
        """
        result = cancel_run(self.record)
        if result.unwritten:
            ended = ", ".join(result.jobs) or "nothing"
            raise SiteError(
                f"{self.id}: cancelled ({ended}), but this could not be written down: "
                f"{'; '.join(result.unwritten)}"
            )
        if result.unknown:
            raise SiteError(f"{self.id}: not known to be queued: {', '.join(result.unknown)}")
        return dict(result.jobs)

    @refusals_explained()
    def resume(self, *, again: bool = False) -> dict[str, str]:
        """Queue what has neither succeeded nor waits or runs; returns stage name → job id of what
        was queued. A training goes on from its furthest checkpoint.

        Args:
            again: also where another run that does the same is under way.

        Raises:
            RequestError: it is being submitted or cancelled, or another run does the same.
            SiteError: the scheduler refuses or cannot be asked.
        """
        from rtdetr_slurm.submission.resume import resume_run

        return resume_run(self.record, again=again)


@refusals_explained()
def submit(
    spec: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    *,
    action: str | None = None,
    site: str | None = None,
    name: str | None = None,
    then: Sequence[str] = (),
    parent: str | None = None,
    checkpoint: str | None = None,
    automl: Literal["on", "off"] | None = None,
    datasets: Mapping[str, str | Sequence[str]] | None = None,
    again: bool = False,
) -> SubmittedRun:
    """Check a spec, freeze it into a run folder, and queue its stages.

    Args:
        spec: path of the experiment YAML.
        overrides: `key=value`, as on the command line.
        action: what to do; else job.action, else what the spec is for.
        site: a site profile, or `local`; None: the one of this machine.
        name: of the job in the queue.
        then: names of follow-up actions; they take the place of job.then.
        parent: a run id or folder to continue, or RUN/trials/K; it takes the place of job.parent.
        checkpoint: best, last, latest or epoch:N of what went before; it takes the place of
            job.checkpoint.
        automl: whether training is a search; it takes the place of automl.policy. None: as the spec
            says, else it is one on a cluster.
        datasets: roots of datasets by `train`, `eval`, `inference` and `calibration`; each takes
            the place of that of job.datasets.
        again: also where a run that does the same is under way.

    Raises:
        RequestError: the request is wrong; nothing was queued.
        SiteError: the site cannot do it.
    """
    from rtdetr_slurm.submission.prepare import freeze, prepare
    from rtdetr_slurm.submission.submit import submit_run

    prepared = prepare(
        Path(spec),
        overrides,
        action=action,
        site=site,
        name=name,
        then=then,
        parent=parent,
        checkpoint=checkpoint,
        automl=automl,
        datasets=datasets or {},
    )
    run = freeze(prepared, _ignore, again=again)
    submit_run(run, key=prepared.loaded.key, again=again)
    return SubmittedRun(run)


@refusals_explained()
def open_run(reference: str | os.PathLike[str], *, site: str | None = None) -> SubmittedRun:
    """The run that `reference` means: a run id, the beginning of one, or a path.

    Args:
        site: a site profile; tells where the runs are.

    Raises:
        RequestError: there is no such run, or it cannot be read.
    """

    def run_root() -> Path:
        from rtdetr_slurm.site.discover import find_site

        return find_site(site, os.environ).run_root

    return SubmittedRun(read_run(find_run(os.fspath(reference), run_root)))


def _ignore(_: object) -> None:
    pass
