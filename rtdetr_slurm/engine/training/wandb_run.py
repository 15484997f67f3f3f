"""A training's run at Weights & Biases.

Its package is imported here and only where it is asked for. What it does by itself beyond what the
spec names (the console, facts about the machine, git, crash reports) is off. The network may come
and go: a run that cannot begin online is written for `wandb sync`, and none is waited for long.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import rtdetr_slurm
from rtdetr_slurm.contract import WANDB_JSON
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.engine.training.wandb_login import Mode
from rtdetr_slurm.records import BadRecord, checked, read_json

if TYPE_CHECKING:
    from wandb import Run

PATIENCE_SECONDS = 20.0
"""How long a training waits for the server when it begins, and once more when it ends."""
_STEP = "step"
_LEFT_OUT = ("encryption_key", "wandb")
"""Of the spec."""


class _Kept(TypedDict):
    run_id: str


class WandbLogger:
    """Scalars by optimizer step. What goes wrong is warned of once, and ends the logging alone."""

    def __init__(self, session: Session, run: Run) -> None:
        self._session, self._run, self._works = session, run, True

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Record `values` at an optimizer step."""
        # The step is a value among others: one that is done again after a resume is kept, too.
        self._attempt(lambda: self._run.log({**values, _STEP: step}))

    def save_code(self) -> None:
        """Upload this package's source."""
        self._attempt(lambda: self._run.log_code(str(Path(rtdetr_slurm.__file__).parent)))

    def finish(self, exit_code: int) -> None:
        """Send what is left, for a while; what is not sent stays in the results folder."""
        self._attempt(lambda: self._run.finish(exit_code=exit_code))

    def _attempt(self, send: Any) -> None:
        if not self._works:
            return
        try:
            send()
        except Exception as error:  # the package's own kinds, and of what its service dies of
            self._works = False
            self._session.warn(f"nothing more is logged to Weights & Biases: {_line(error)}")


@contextmanager
def open_wandb(session: Session, mode: Mode, *, resumed: bool) -> Iterator[WandbLogger | None]:
    """The training's run; None where there can be none, which was warned of.

    Args:
        resumed: the training goes on in its folder, and so does the run that is named there.
    """
    run = _begin(session, mode, _run_id(session, resumed))
    if run is None:
        yield None
        return
    logger = WandbLogger(session, run)
    if session.experiment.wandb.save_code:
        logger.save_code()
    exit_code = 1
    try:
        yield logger
        exit_code = 0
    finally:
        logger.finish(exit_code)


def _begin(session: Session, mode: Mode, run_id: str) -> Run | None:
    """Begin or continue a run: where the server is not reached, one for `wandb sync`."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    for tried in dict.fromkeys((mode, "offline")):
        try:
            run = wandb.init(**arguments(session, run_id), mode=tried, settings=_settings())
            run.define_metric("*", step_metric=_STEP)
        except Exception as error:  # the package's own kinds, and of what its service dies of
            said = "it is written for `wandb sync`" if tried == "online" else "nothing is logged"
            session.warn(f"Weights & Biases: {_line(error)}; {said}")
            wandb.teardown()  # else the id is in use
            continue
        where = run.url or f"offline; later: wandb sync {Path(run.dir).parent}"
        session.say(f"Weights & Biases: run {run_id}, {where}")
        return run
    return None


def arguments(session: Session, run_id: str) -> dict[str, Any]:
    """What the spec says of the run, as `wandb.init` takes it."""
    cfg = session.experiment.wandb
    return {
        "project": cfg.project or None,
        "entity": cfg.entity or None,
        "group": cfg.group or None,
        "name": cfg.name or None,
        "tags": list(cfg.tags),
        "reinit": "finish_previous" if cfg.reinit else "default",
        "sync_tensorboard": cfg.sync_tensorboard,
        "id": run_id,
        "resume": "allow",
        "dir": str(session.results_dir),
        "config": {name: one for name, one in session.resolved.items() if name not in _LEFT_OUT},
    }


def _settings() -> Any:
    import wandb

    return wandb.Settings(
        init_timeout=PATIENCE_SECONDS,
        login_timeout=PATIENCE_SECONDS,
        finish_timeout=PATIENCE_SECONDS,
        console="off",
        disable_git=True,
        silent=True,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )


def _run_id(session: Session, resumed: bool) -> str:
    """The spec's, else that of the folder where the training goes on, else a new one; kept there.

    Raises:
        ActionError: it cannot be written.
    """
    run_id = session.experiment.wandb.run_id or (_kept(session) if resumed else None)
    run_id = run_id or secrets.token_hex(4)
    session.write(WANDB_JSON, json.dumps(_Kept(run_id=run_id)) + "\n")
    return run_id


def _kept(session: Session) -> str | None:
    path = session.results_dir / WANDB_JSON
    try:
        return checked(_Kept, read_json(path), path)["run_id"]
    except FileNotFoundError:
        return None
    except BadRecord as error:
        session.warn(f"{error}: a new run begins at Weights & Biases")
        return None


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
