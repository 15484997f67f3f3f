"""Where the scalars of a training go: TensorBoard's file, and Weights & Biases where it is asked
for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Protocol

from rtdetr_slurm.engine.process.distributed import on_main
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.engine.training.tensorboard import TensorBoard
from rtdetr_slurm.engine.training.wandb_login import Mode, mode_of
from rtdetr_slurm.engine.training.wandb_run import WandbLogger, open_wandb


class Logger(Protocol):
    """Takes scalars."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Record `values` at an optimizer step."""


class Loggers:
    """All of them as one; none on the ranks that log nothing."""

    def __init__(self, each: Sequence[Logger] = ()) -> None:
        self.each = each

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Record `values` at an optimizer step."""
        for one in self.each:
            one.write(step, values)


def wandb_mode(session: Session) -> Mode | None:
    """How the training logs to Weights & Biases, as the main rank's environment has it.

    Raises:
        RequestError: as `mode_of`.
    """
    if not session.experiment.wandb.enable:
        return None
    mode, why_not = on_main(lambda: mode_of(os.environ))
    if mode is None:
        session.say(f"nothing is sent to Weights & Biases: {why_not}")
    return mode


@contextmanager
def open_loggers(session: Session, wandb: Mode | None, *, resumed: bool) -> Iterator[Loggers]:
    """The loggers for the length of a training, on the main rank; all is written however it ends.

    Args:
        wandb: how Weights & Biases is logged to; None: not at all.
        resumed: the training goes on, and so does its run at Weights & Biases.
    """
    if not session.context.is_main:
        yield Loggers()
        return
    with ExitStack() as stack:
        run: WandbLogger | None = None
        if wandb is not None:
            run = stack.enter_context(open_wandb(session, wandb, resumed=resumed))
        board = stack.enter_context(closing(TensorBoard(session.results_dir)))
        copied = session.experiment.wandb.sync_tensorboard  # then W&B reads TensorBoard's file
        yield Loggers([board] if run is None or copied else [board, run])
