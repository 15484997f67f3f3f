"""Running a finished training again as it was: the same frozen spec, image and inputs, in a run of
its own; and whether its checkpoint is the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rtdetr_slurm import __version__
from rtdetr_slurm.actions import get_action
from rtdetr_slurm.contract import LAUNCH_VERSION, RESULTS_DIR, RUN_JSON, Env, Infer
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.model import Plan, Stage
from rtdetr_slurm.records import checked
from rtdetr_slurm.resolved_spec import value_at, with_values
from rtdetr_slurm.runs.checkpoint_content import Comparison, compare_checkpoints, read_content
from rtdetr_slurm.runs.checkpoints import list_checkpoints
from rtdetr_slurm.runs.lineage import lineage_of
from rtdetr_slurm.runs.moved import at_places
from rtdetr_slurm.runs.processes import user_name
from rtdetr_slurm.runs.run import Manifest, Run, create_run, freeze_spec, new_run_id
from rtdetr_slurm.runs.state import StageState, task_events
from rtdetr_slurm.submission.controller import write_controller
from rtdetr_slurm.submission.submit import submit_run
from rtdetr_slurm.submission.survey import survey_run

SEED = "train.seed"


@dataclass(frozen=True)
class Finished:
    """The training of a run that has ended well.

    Attributes:
        checkpoint: its last one.
    """

    run: Run
    stage: Stage
    checkpoint: Path


def finished_training(run: Run) -> Finished:
    """What of a run can be compared with another one's.

    Raises:
        RequestError: it has no training of one job that has ended well, or its checkpoints cannot
            be read.
    """
    stage = next((one for one in run.plan.stages if one.runs_action and _trains(one)), None)
    if stage is None:
        raise RequestError(f"{run.id} has trained nothing: only a training is run again")
    if stage.search is not None or stage.array is not None:
        raise RequestError(
            f"{run.id} is a search, whose trials depend on what was ready when: submit the best "
            "one's spec as a training of its own, and that can be run again"
        )
    if stage.launch.engine != "rtdetr":
        raise RequestError(f"{run.id} was trained by NVIDIA TAO's image, whose checkpoints differ")
    if Env.ENCRYPTION_KEY in stage.launch.secrets:
        raise RequestError(
            f"{run.id} encrypts its model files, of which no two are alike: it cannot be said "
            "whether what is in them is"
        )
    report = next(one for one in survey_run(run.path)[0].stages if one.name == stage.name)
    if report.state is not StageState.SUCCESS:
        raise RequestError(
            f"{run.id}: {stage.name} is {report.state.value}; allowed: a training that has ended "
            "with success"
        )
    files = list_checkpoints(Path(stage.results_dir))
    if not files:
        raise RequestError(f"{run.id}: there is no checkpoint left in {stage.results_dir}")
    return Finished(run, stage, files[-1].path)


def run_again(before: Finished, on_note: Callable[[str], object] = lambda _: None) -> Run:
    """Make and queue a run that does the same training once more.

    Args:
        on_note: is told what is not as it was and cannot be known to matter.

    Raises:
        RequestError: what the run was made of has changed since, naming each file.
        SubmissionRefused, SlurmUnreachable, SiteError: as `submit_run`.
    """
    lineage = lineage_of(before.checkpoint)
    if lineage.broken:
        problems = "\n  ".join(f"{one.what}: {one.problem}" for one in lineage.broken)
        raise RequestError(
            f"{before.run.id} cannot be run again as it was, for this has changed:\n  {problems}"
        )
    for line in lineage.unknown:
        on_note(f"not known: {line}")
    version = before.run.manifest.package_version
    if before.stage.container is None and version != __version__:
        on_note(f"{before.run.id} was run by version {version}, and this is {__version__}")
    run_dir = before.run.path.parent / new_run_id(before.stage.action)
    run = create_run(run_dir, reproduction(before, run_dir))
    write_controller(run)
    submit_run(run)
    return run


def reproduction(before: Finished, run_dir: Path) -> Manifest:
    """The record of a run that does the same: its training alone, with the inputs that it had, and
    with the seed that it drew where it was to draw one.

    Args:
        run_dir: of the new run.
    """
    manifest, stage = before.run.manifest, before.stage
    [task] = stage.tasks()
    own = tuple(one for one in stage.inputs if one.function == Infer.OUTPUT_DIR)
    left_open = {one.field for one in own}
    resolved = [e for e in task_events(before.run.events(), task) if e["event"] == "resolved"]
    taken: dict[str, Any] = {
        one["field"]: one["value"]
        for event in resolved
        for one in event["inputs"]
        if one["field"] not in left_open
    }
    results = run_dir / RESULTS_DIR
    at = f"{get_action(stage.action).section}.results_dir"
    taken |= {"results_dir": str(results)}
    taken |= {at: str(results / stage.name)} if value_at(before.run.spec, at) else {}
    if value_at(before.run.spec, SEED) == -1:
        taken[SEED] = read_content(before.checkpoint)["seed"]
    alone = replace(stage, inputs=own, depends_on=(), results_dir=str(results / stage.name))
    places = {str(before.run.path): str(run_dir)}
    record = before.run.path / RUN_JSON
    plan = checked(
        Plan, at_places(json.loads(json.dumps(Plan((alone,)).to_json())), places), record
    )
    return replace(
        manifest,
        name=None,
        action=stage.action,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        user=user_name(),
        package_version=__version__,
        spec=freeze_spec(str(record), (), with_values(before.run.spec, taken)),
        plan=plan,
        run_id=run_dir.name,
        launch_version=LAUNCH_VERSION,
    )


def compare(before: Finished, after: Finished) -> Comparison:
    """Compare the last checkpoints of two trainings: every value and every byte of every tensor;
    only the names of each one's own folders may differ.

    Raises:
        RequestError: one cannot be read.
    """
    ours, theirs = (Path(one.stage.results_dir) for one in (before, after))
    same_place = {
        str(theirs): str(ours),
        str(value_at(after.run.spec, "results_dir")): str(value_at(before.run.spec, "results_dir")),
    }
    found = compare_checkpoints(before.checkpoint, after.checkpoint, but=same_place)
    if before.checkpoint.name != after.checkpoint.name:
        found.differences.insert(0, f"{before.checkpoint.name} and {after.checkpoint.name}")
    if value_at(before.run.spec, SEED) == -1:
        found.differences = [one for one in found.differences if one != f"spec.{SEED}"]
    return found


def _trains(stage: Stage) -> bool:
    return get_action(stage.action).trains
