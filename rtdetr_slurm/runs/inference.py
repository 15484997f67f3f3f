"""TAO's inference functions: what fills a field of the spec that was left empty, one each.

Each looks at what a stage has left in its results folder and chooses. What `key` stands for, the
field `encryption_key`, has no function: every stage has the key by secrets.py. Standard library
only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtdetr_slurm.actions import MODEL_WORDS, Action, get_action
from rtdetr_slurm.contract import MODEL_FILES, Infer
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.model import Input, Origin, StageTask
from rtdetr_slurm.resolved_spec import local_path
from rtdetr_slurm.runs.artefacts import file_problem, made_file
from rtdetr_slurm.runs.best import Best, best_of, chosen_checkpoint
from rtdetr_slurm.runs.choice import Chosen, best_or_last, checkpoint_of
from rtdetr_slurm.runs.claim import claim_id, read_claim
from rtdetr_slurm.runs.run import Run, open_run
from rtdetr_slurm.runs.staged import staged_path
from rtdetr_slurm.runs.trials import trial_folder


@dataclass(frozen=True)
class Maker:
    """A stage that has left something.

    Attributes:
        spec: the frozen one of its run.
        best: of a trial that a search has chosen: which of its checkpoints.
    """

    action: Action
    results_dir: Path
    spec: Mapping[str, Any]
    best: Best | None = None


def infer(run: Run, task: StageTask, one: Input) -> Chosen:
    """The value of an input of a run's task, now.

    Raises:
        RequestError: what it comes from has left nothing that can be used.
    """
    if one.function == Infer.OUTPUT_DIR:
        return Chosen(output_dir(task), "")
    if one.function in MODEL_FILES:
        return Chosen(create_file(one.function, task), "")
    if one.function == Infer.FETCH and one.uri is not None:
        if one.origin is None:
            return Chosen(fetch(one.uri), "")
        stage = run.plan.stage(one.origin.stage)
        return Chosen(staged_path(StageTask(stage).results_dir, one.field, one.uri), "")
    if one.origin is not None and one.function in _FROM_A_STAGE:
        return from_stage(maker_of(run, one.origin), one)
    raise RequestError(f"there is no inference function '{one.function}' here")


def from_stage(maker: Maker, one: Input) -> Chosen:
    """The value of an input that comes from a stage, now.

    Raises:
        RequestError: the stage has left nothing that can be used.
    """
    return _FROM_A_STAGE[one.function](maker, one.choice)


def maker_of(run: Run | None, origin: Origin) -> Maker:
    """The stage that an origin names, of `run` where it names no other.

    Raises:
        RequestError: its run cannot be read, has no such stage or trial, has chosen no trial yet,
            or another run writes to the stage's results folder by now, whose models are not to be
            taken for its own.
    """
    if origin.run is not None:
        run = open_run(Path(origin.run))
    assert run is not None
    stage = run.plan.stage(origin.stage)
    best = None
    if origin.trial is not None:
        folder = trial_folder(run, origin.trial)
    elif stage.best_of is not None:
        folder, best = best_of(run, stage)
    else:
        folder = StageTask(stage).results_dir
        held = read_claim(folder)
        if held is not None and held.id != claim_id(run.id, stage.name):
            raise RequestError(
                f"{folder} belongs to {held} by now, and no longer to {origin}: continue that run, "
                "or name the file itself"
            )
    return Maker(get_action(stage.action), folder, run.spec, best)


# --- the functions -------------------------------------------------------------------------
def parent_model(maker: Maker, choice: str | None = None) -> Chosen:
    """The model that a stage has left: of a training the best checkpoint by val_mAP, else the last,
    unless another is asked for; of a search the checkpoint that it has chosen; of an export the
    ONNX file; of a quantization what it has made; of an engine build the engine."""
    if maker.best is not None and choice in (None, "best"):
        return chosen_checkpoint(maker.results_dir, maker.best)
    if maker.action.leaves == "checkpoint":
        if choice is None:
            return best_or_last(maker.results_dir)
        return checkpoint_of(maker.results_dir, choice)
    path = made_file(maker.action, maker.results_dir, maker.spec)
    if maker.action.leaves is None or path is None:
        raise RequestError(f"action {maker.action.name} leaves no model")
    if problem := file_problem(path):
        raise RequestError(f"{MODEL_WORDS[maker.action.leaves]} was expected: {problem}")
    return Chosen(path, "")


def parent_model_folder(maker: Maker, _choice: str | None = None) -> Chosen:
    """The folder of what a stage has left."""
    return Chosen(maker.results_dir, "")


def resume_model(maker: Maker, choice: str | None = None) -> Chosen:
    """The checkpoint that a training goes on from: the last, unless another is asked for."""
    return checkpoint_of(maker.results_dir, choice or "last")


def ptm_if_no_resume_model(
    models: Mapping[str, str | None], name: str, *, resumes: bool
) -> str | None:
    """The weights of that name that a training starts from, where it goes on from no checkpoint.

    Args:
        models: those of the site profile.
    """
    return None if resumes else models.get(name)


def output_dir(task: StageTask) -> Path:
    """The stage's own results folder."""
    return task.results_dir


def create_file(function: str, task: StageTask) -> Path:
    """create_onnx_file, create_engine_file and create_cal_cache: where the stage writes that."""
    return task.results_dir / MODEL_FILES[function]


def fetch(uri: str) -> Path:
    """The file behind an address.

    Raises:
        RequestError: this machine does not have it.
    """
    path = local_path(uri)
    if path is None or not path.exists():
        raise RequestError(f"{uri} does not exist on this node")
    return path


_FROM_A_STAGE = {
    Infer.PARENT_MODEL: parent_model,
    Infer.PARENT_MODEL_FOLDER: parent_model_folder,
    Infer.RESUME_MODEL: resume_model,
}
