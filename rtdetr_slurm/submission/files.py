"""The files that a spec names besides its data, looked at before anything is queued."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rtdetr_slurm.model_check import InvalidInput, Problem, locate
from rtdetr_slurm.plan.model import Plan, Stage
from rtdetr_slurm.resolved_spec import local_path
from rtdetr_slurm.runs.images import FileRecord, record_file
from rtdetr_slurm.spec import ExperimentConfig, LoadedSpec
from rtdetr_slurm.spec.paths import fields_of, written_paths
from rtdetr_slurm.weights import file_problems


def check_files(loaded: LoadedSpec, spec: Mapping[str, Any], plan: Plan) -> None:
    """Refuse files that are missing or torn, weights of another detector than the spec's, and files
    that are to be made and exist already.

    What is left empty, to be filled when its stage starts, and what an earlier stage will have
    written by then, is not looked at.

    Args:
        spec: frozen, of `loaded`.

    Raises:
        InvalidInput: with all of them, by the places in the spec.
    """
    found: list[Problem] = []
    experiment = ExperimentConfig.model_validate(spec)
    for number, stage in enumerate(plan.stages):
        if stage.runs_action:
            found += _problems(stage, plan.stages[:number], spec, experiment, loaded.key)
    if found:
        raise InvalidInput(locate(loaded.source, found))


def _problems(
    stage: Stage,
    earlier: Sequence[Stage],
    spec: Mapping[str, Any],
    experiment: ExperimentConfig,
    key: str | None,
) -> Iterator[Problem]:
    made = [Path(one.results_dir) for one in earlier]
    made += [Path(path) for one in earlier for path in written_paths(spec, one.action)]
    for ref, at, value in fields_of(spec, stage.action, "new", "update"):
        path = local_path(value) if value else None
        new = ref.extra("x-path") == "new"
        if path is not None and (problem := _written_problem(path, stage, new=new)):
            yield Problem(at, f"found {value}; {problem}")
    for ref, at, value in fields_of(spec, stage.action, "read"):
        if ref.path[0] == "dataset" or not value:
            continue  # data have their own check
        path = local_path(value)
        if path is None or any(path.is_relative_to(place) for place in made):
            continue
        ours = stage.launch.engine == "rtdetr"
        yield from file_problems(experiment, at, path, ref.extra("x-holds"), key, ours=ours)


def record_files(spec: Mapping[str, Any], plan: Plan) -> dict[str, FileRecord]:
    """The files that a spec names to be read, as they are now: annotations, weights, models. Images
    are not among them, nor what a stage has yet to make.

    Raises:
        SiteError: one cannot be read.
    """
    named = dict.fromkeys(
        path
        for stage in plan.stages
        for ref, _, value in fields_of(spec, stage.action, "read")
        if value and ref.extra("x-holds") != "images"
        if (path := local_path(value)) is not None and path.is_file()
    )
    return {str(path): record_file(path) for path in named}


def _written_problem(path: Path, stage: Stage, *, new: bool) -> str | None:
    """Why a file cannot be made; the stage makes its own results folder itself."""
    try:
        if new and path.exists():
            return f"{path} exists already, and is not overwritten"
        if path.parent.is_dir() or path.is_relative_to(stage.results_dir):
            return None
        return f"{path.parent} is no folder"
    except OSError as error:
        return f"{path} cannot be looked at: {error.strerror}"
