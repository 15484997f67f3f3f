"""Early stopping: what the epochs so far have reached decides whether there is another one."""

from __future__ import annotations

from rtdetr_slurm.engine.process.distributed import on_main
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.engine.training.state import TrainingState
from rtdetr_slurm.runs.early_stopping import why_stopped


def stops_early(session: Session, state: TrainingState) -> str | None:
    """Why there is no further epoch, None where there is; every rank must call it, and rank 0,
    which alone knows the scores, answers for all."""
    cfg = session.experiment.engine.early_stopping
    if not cfg.patience:
        return None
    return on_main(lambda: why_stopped(state.history, cfg.monitor, cfg.patience, cfg.min_delta))
