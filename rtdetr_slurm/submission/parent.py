"""The run that a submission continues: what it has, or will have, for the stages to take."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rtdetr_slurm.actions import Model
from rtdetr_slurm.contract import EXPERIMENT_YAML, Env, Infer
from rtdetr_slurm.encryption import HOW_TO_GIVE, key_problem
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.model_check import InvalidInput, Problem, locate
from rtdetr_slurm.plan.chain import Parent, ParentStage
from rtdetr_slurm.plan.model import Origin, Plan, Stage
from rtdetr_slurm.plan.staging import StagedObject
from rtdetr_slurm.resolved_spec import is_remote, value_at, with_values
from rtdetr_slurm.runs.best import chosen_by
from rtdetr_slurm.runs.inference import from_stage, maker_of
from rtdetr_slurm.runs.run import Run, find_run, open_run
from rtdetr_slurm.runs.state import StageState
from rtdetr_slurm.runs.summary import StageReport
from rtdetr_slurm.runs.trials import (
    searching_stage,
    split_reference,
    trial_folder,
    trial_problem,
)
from rtdetr_slurm.site.discover import FoundSite
from rtdetr_slurm.spec import LoadedSpec
from rtdetr_slurm.spec.experiment import ExperimentConfig
from rtdetr_slurm.spec.fields import walk
from rtdetr_slurm.staging.fetch import fetch
from rtdetr_slurm.staging.progress import Tell
from rtdetr_slurm.submission.staging import store_of
from rtdetr_slurm.submission.survey import survey_run
from rtdetr_slurm.yaml_source import dotted, load_yaml


def find_parent(reference: str, site: FoundSite, tell: Tell = lambda _: None) -> Parent:
    """The run, or the trial of one (`RUN/trials/K`), that `reference` means; a copy of a run at an
    address is fetched first.

    Args:
        tell: is told how far what is fetched has come.

    Raises:
        RequestError: there is no such run or trial, or it cannot be read.
        SiteError: it cannot be fetched.
    """
    run, trial = _open(reference, site, tell)
    with _named():
        if trial is not None:
            return _trial(run, trial)
        report, _ = survey_run(run.path, complete=False)  # a dry run touches nothing
    reports = {stage.name: stage for stage in report.stages}
    stages = [
        _stage(run, stage, leaves, reports[stage.name], site)
        for stage in run.plan.stages
        if (leaves := stage.leaves) is not None and stage.array is None
    ]
    return Parent(f"run {run.id}", stages, _run_spec(run), _classes(run))


def parent_spec(reference: str, site: FoundSite) -> Mapping[str, Any]:
    """The resolved spec of the run or trial that `reference` means.

    Raises:
        RequestError: as find_parent.
    """
    run, trial = _open(reference, site)
    with _named():
        return _run_spec(run) if trial is None else _trial_spec(run, trial)


def _open(reference: str, site: FoundSite, tell: Tell = lambda _: None) -> tuple[Run, int | None]:
    name, trial = split_reference(reference)
    with _named():
        path = _fetched(name, site, tell) if is_remote(name) else None
        return open_run(path or find_run(name, lambda: site.run_root)), trial


def _fetched(uri: str, site: FoundSite, tell: Tell) -> Path:
    """The copy of a run that is at an address, in the cache."""
    copy = StagedObject(uri.rstrip("/"), "folder")
    entry = fetch(copy, site.cache_root, store_of(site, os.environ), tell=tell)
    [folder] = entry.path.iterdir()
    return folder


@contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except RequestError as error:
        raise RequestError(f"job.parent: {error}") from error


def _trial(run: Run, trial: int) -> Parent:
    searching, _ = searching_stage(run)
    origin = Origin(searching.name, str(run.path), trial)
    stage = ParentStage(origin, "checkpoint", ended=True, problem=trial_problem(run, trial))
    return Parent(str(origin), [stage], _trial_spec(run, trial), _classes(run))


def _run_spec(run: Run) -> Mapping[str, Any]:
    """The spec that a run goes by; of a search that has chosen, with what the best trial has."""
    for stage in run.plan.stages:
        if (best := chosen_by(run, stage)) is not None:
            return with_values(run.spec, best.values)
    return run.spec


def _trial_spec(run: Run, trial: int) -> Mapping[str, Any]:
    """A search may change what carries over, so it is the trial's own that counts."""
    return load_yaml(trial_folder(run, trial) / EXPERIMENT_YAML).data


def _classes(run: Run) -> dict[int, str]:
    return {int(number): name for number, name in run.manifest.classes.items()}


def _stage(
    run: Run, stage: Stage, leaves: Model, report: StageReport, site: FoundSite
) -> ParentStage:
    origin, problem = Origin(stage.name, str(run.path)), None
    ended = report.state is StageState.SUCCESS
    if not ended and report.state not in (StageState.QUEUED, StageState.RUNNING):
        problem = (
            f"{origin} is {report.state.value}; only a run that has succeeded, or is queued or "
            "running, can be continued"
        )
    elif not ended and stage.launch.scheduler != site.site.scheduler:
        problem = (
            f"{origin} has not ended, and a job of site '{site.site.name}' cannot wait for one of "
            f"scheduler '{stage.launch.scheduler}'; submit again when it has ended"
        )
    elif not ended and (searched := _searched_and_carried(run, stage)):
        problem = (
            f"{run.id} still searches {', '.join(searched)}, which carries over to what continues "
            "it; submit again when it has ended"
        )
    return ParentStage(origin, leaves, ended, problem, stage.target)


def _searched_and_carried(run: Run, stage: Stage) -> list[str]:
    """Fields of the model that a search tries values of, where `stage` finds its best trial."""
    search = None if stage.best_of is None else run.plan.stage(stage.best_of).search
    fields = {parameter.field for parameter in search.space} if search is not None else set()
    carried = (dotted(ref.path) for ref in walk(ExperimentConfig) if ref.extra("x-carried"))
    return [path for path in carried if path in fields]


def check_inputs(loaded: LoadedSpec, spec: Mapping[str, Any], plan: Plan, parent: Parent) -> None:
    """See that the parent has what is taken from it, as far as it has ended, and that training
    which goes on has something left to do.

    Args:
        spec: frozen, of `loaded`.

    Raises:
        RequestError: it has not, or it has been trained for as many epochs.
    """
    ended = [stage.origin for stage in parent.stages if stage.ended]
    for stage in plan.stages:
        for one in stage.inputs:
            if one.origin is None or one.origin.run is None:
                continue
            epochs = None
            if one.origin not in ended and loaded.key is None:
                _see_that_no_key_is_needed(one.origin, one.field)
            if one.origin in ended:
                try:
                    chosen = from_stage(maker_of(None, one.origin), one)
                    _see_that_the_key_fits(chosen.path, loaded.key)
                except RequestError as error:
                    raise RequestError(f"job.parent: {one.field}: {error}") from error
                epochs = chosen.epochs
            elif one.choice in (None, "last"):
                epochs = value_at(parent.spec, "train.num_epochs")
            elif one.choice is not None and one.choice.startswith("epoch:"):
                epochs = int(one.choice.removeprefix("epoch:")) + 1
            if one.function == Infer.RESUME_MODEL and isinstance(epochs, int):
                _check_epochs_left(loaded, spec, epochs, parent)


def _see_that_no_key_is_needed(origin: Origin, field: str) -> None:
    stage = open_run(Path(str(origin.run))).plan.stage(origin.stage)
    if Env.ENCRYPTION_KEY in stage.launch.secrets:
        raise RequestError(
            f"job.parent: {field}: {origin} encrypts what it writes, and there is no key: give its "
            f"key {HOW_TO_GIVE}"
        )


def _see_that_the_key_fits(path: Path, key: str | None) -> None:
    if path.is_file() and (problem := key_problem(path, key)):
        raise RequestError(problem)


def _check_epochs_left(
    loaded: LoadedSpec, spec: Mapping[str, Any], epochs: int, parent: Parent
) -> None:
    wanted = value_at(spec, "train.num_epochs")
    if wanted <= epochs:
        problem = Problem(
            ("train", "num_epochs"),
            f"found {wanted}; {parent.name}, which job.parent continues, has {epochs} of them "
            f"behind it; allowed: > {epochs}, for they are counted in total",
        )
        raise InvalidInput(locate(loaded.source, [problem]))
