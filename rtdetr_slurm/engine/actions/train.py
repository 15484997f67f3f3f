"""Training, from the spec to the last checkpoint."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from rtdetr_slurm.contract import Env
from rtdetr_slurm.engine.datasets.sources import (
    OpenSource,
    open_sources,
    open_training_data,
    share_evaluation,
    table_of,
)
from rtdetr_slurm.engine.detector import new_detector, refuse_other_detector
from rtdetr_slurm.engine.evaluation import predictor, write_examples
from rtdetr_slurm.engine.losses import build_criterion
from rtdetr_slurm.engine.process.distributed import on_main
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.engine.training.checkpoint import load_checkpoint
from rtdetr_slurm.engine.training.compilation import compile_detector, compiler
from rtdetr_slurm.engine.training.costs import detector_costs
from rtdetr_slurm.engine.training.dry_run import dry_run
from rtdetr_slurm.engine.training.early_stopping import stops_early
from rtdetr_slurm.engine.training.elastic import share_of_step
from rtdetr_slurm.engine.training.loggers import open_loggers, wandb_mode
from rtdetr_slurm.engine.training.loop import train_epochs
from rtdetr_slurm.engine.training.micro_batch import choose_micro_batch
from rtdetr_slurm.engine.training.objective import BuildObjective, detection_objective
from rtdetr_slurm.engine.training.precision import check_precision, set_cudnn, training_precision
from rtdetr_slurm.engine.training.progress import show_progress
from rtdetr_slurm.engine.training.report import describe
from rtdetr_slurm.engine.training.snapshot import restore
from rtdetr_slurm.engine.training.state import Training, build_state
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.runs.checkpoints import nothing_left, resume_point
from rtdetr_slurm.vision.scoring import EvaluationData, evaluation_data


def train(
    session: Session,
    build_objective: BuildObjective = detection_objective,
    *,
    may_compile: bool = True,
) -> dict[str, float]:
    """Train a detector; what is written is described in docs/engine.md.

    Args:
        may_compile: as `engine.compile` wants it. An objective that looks into the detector with
            hooks cannot: they are not called in what is compiled.

    Returns:
        The KPIs of the last epoch on rank 0; without the validation ones elsewhere.

    Raises:
        Interrupted: asked to stop; the state is in a checkpoint of its own.
        UserError: whatever a user can do something about.
    """
    compiled = may_compile and session.experiment.engine.compile
    with compiler(session.context.device) if compiled else nullcontext():
        return _train(session, build_objective, compiled)


def _train(session: Session, build_objective: BuildObjective, compiled: bool) -> dict[str, float]:
    experiment, context = session.experiment, session.context
    cfg = experiment.train
    session.numbers["epochs"] = cfg.num_epochs
    check_precision(training_precision(cfg, context.device), context.device)
    set_cudnn(cfg.cudnn)
    wandb = None if cfg.is_dry_run else wandb_mode(session)
    sources = open_sources(session)
    start = on_main(lambda: find_start(session))
    begun = None if start is None else load_checkpoint(start, session.key)
    if start is not None:
        check_start(start, session)
    seed = choose_seed(cfg.seed, begun)

    share = share_of_step(session, begun)
    data = open_training_data(session, sources["train"], seed, share.images, share.parts)
    scored = [to_score(session, source) for source in sources["val"]]
    validation = share_evaluation(session, scored[0]) if scored else None
    del sources  # what the files say is in the tables now

    with session.phases.part("model"):
        torch.manual_seed(seed)  # the same initial weights on all ranks
        model = new_detector(session, pretrained=begun is None)
        if compiled:
            compile_detector(model)
            session.say("backbone and encoder are compiled, for each image size as it comes")
        criterion = build_criterion(experiment.model, experiment.engine.recipe)
        costs = detector_costs(session, model)
        objective = build_objective(session, model, criterion, data.table.classes)
        choose_micro_batch(session, data, model, objective)
        state = build_state(session, model, objective, seed)
        if begun is not None and start is not None:
            restore(state, begun, start, session, share.images)
            session.say(
                f"goes on from {start}: {state.position.epoch} of {cfg.num_epochs} epochs are "
                f"done, {state.position.step} steps"
            )
            if (reason := stops_early(session, state)) and is_elsewhere(start, session):
                raise RequestError(f"engine.early_stopping.patience: {start}: {reason}")
    del begun  # it is as large as the model and the optimizer together

    steps = data.sampler.steps_per_epoch
    images_per_step = share.images * context.world_size
    with (
        show_progress(cfg.num_epochs, steps, images_per_step, main=context.is_main) as progress,
        open_loggers(session, wandb, resumed=start is not None) as loggers,
    ):
        training = Training(session, data, validation, state, criterion, costs, progress, loggers)
        describe(training)
        kpi = dry_run(training) if cfg.is_dry_run else train_epochs(training)
    shown = scored[0] if scored else evaluation_data(experiment, data.table)
    write_examples(session, predictor(state.scored_model(session)), shown)
    return kpi


def to_score(session: Session, source: OpenSource) -> EvaluationData:
    """What is validated: all of a source; of a dry run, one batch of each rank."""
    table = table_of(session, [source])
    if session.experiment.train.is_dry_run:
        table = table.spread(session.experiment.dataset.batch_size * session.context.world_size)
    return evaluation_data(session.experiment, table)


def find_start(session: Session) -> Path | None:
    """The checkpoint to go on from, or None to begin.

    A restarted job goes on from the furthest whole checkpoint in its results folder.
    """
    named = session.experiment.train.resume_training_checkpoint_path
    explicit = Path(named) if named else None
    if os.environ.get(Env.RESUME) != "1":
        return explicit
    furthest, problems = resume_point(session.results_dir)
    for problem in problems:
        session.warn(f"checkpoint is damaged: {problem}; passed over")
    if furthest is None:
        session.say(f"no checkpoint to go on from in {session.results_dir}: starts over")
        return explicit
    return furthest.path


def check_start(start: Path, session: Session) -> None:
    """Refuse a checkpoint of another detector, or of another folder with all epochs done: what is
    in this one is complete then.

    Raises:
        RequestError: naming the fields of the spec.
    """
    experiment = session.experiment
    refuse_other_detector(start, session.key, experiment.model, experiment.dataset.num_classes)
    problem = nothing_left(start, experiment.train.num_epochs)
    if problem and is_elsewhere(start, session):
        raise RequestError(f"train.num_epochs: {problem}")


def is_elsewhere(start: Path, session: Session) -> bool:
    """Whether a checkpoint is of another folder, where this training leaves nothing."""
    return start.resolve().parent != session.results_dir.resolve()


def choose_seed(wanted: int, begun: Mapping[str, Any] | None) -> int:
    """`train.seed`; for -1 a new one, the same on all ranks, or that of the checkpoint."""
    if wanted >= 0:
        return wanted
    return int(begun["seed"]) if begun is not None else on_main(lambda: secrets.randbits(31))
