"""Checkpoint, ONNX file and engine are scored alike, by the evaluation that all actions have, and
timed; an engine that loses too much is set aside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rtdetr_slurm.contract import PARITY_JSON
from rtdetr_slurm.deploy.clocks import gpu_clocks
from rtdetr_slurm.deploy.detector import Detector
from rtdetr_slurm.deploy.forms import Form, Missing, forms_of
from rtdetr_slurm.deploy.parity import MAX_DROP, Parity, Scored, said_of
from rtdetr_slurm.deploy.record import EngineNames
from rtdetr_slurm.engine.comparison import Compared
from rtdetr_slurm.engine.datasets.sources import share_evaluation
from rtdetr_slurm.engine.evaluation import evaluate_detector
from rtdetr_slurm.engine.onnx_graph import DATA_SUFFIX
from rtdetr_slurm.engine.process.distributed import on_main
from rtdetr_slurm.engine.process.failures import writing_error
from rtdetr_slurm.engine.process.phases import Phase
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.errors import ActionError
from rtdetr_slurm.vision import timing
from rtdetr_slurm.vision.tradeoff import Latency

IMAGES: Mapping[str, int] = {"cpu": 100, "cuda": 500}
"""At most so many images are compared, by the device: the ONNX file computes on the CPU in any
case, and a GPU comes with more of its cores."""
REJECTED = "rejected"
"""The folder beside them that engines which have lost too much are moved to."""

_LIKE_EVALUATION = {"enabled": True, "allow_tf32": False}


def measure(session: Session, path: Path, detector: Detector, compared: Compared) -> Parity | None:
    """Score and time all forms of a detector that are here, and write parity.json.

    Args:
        path: the file that `detector` was opened from.
        compared: on what.

    Returns:
        What was found on rank 0, None elsewhere.

    Raises:
        Interrupted: asked to stop.
        ActionError: an image cannot be decoded, or parity.json not be written.
    """
    asked = session.deploy.max_map_drop
    limit = MAX_DROP[detector.precision] if asked is None else asked
    scored: list[Scored] = []
    missing: list[Missing] = []
    if compared.data is not None:
        for form in forms_of(session, path, detector):
            if isinstance(form, Missing):
                missing.append(form)
            elif (one := score_form(session, form, detector, compared)) is not None:
                scored.append(one)
    if not session.context.is_main:
        return None
    parity = Parity(compared, scored, missing, limit)
    session.write(PARITY_JSON, parity.text(session.name, path, detector.size))
    tell(session, parity)
    return parity


def score_form(
    session: Session, form: Form, detector: Detector, compared: Compared
) -> Scored | None:
    """Score a form with all ranks and time it on rank 0; None on the others."""
    assert compared.data is not None
    most = min(session.experiment.dataset.batch_size, form.max_batch or detector.max_batch or 2**30)
    share = share_evaluation(session, compared.data, most)
    with torch.backends.cudnn.flags(**_LIKE_EVALUATION):
        scores = evaluate_detector(session, form.predict, share)
        session.phases.enter(Phase.OTHER)
        timed, clocks = on_main(lambda: _timed(form, detector, most))
    if scores is None:
        return None
    summary = {name: scores.summary[name] for name in ("mAP", "mAP50")}
    return Scored(form, summary, timed, clocks)


def _timed(
    form: Form, detector: Detector, most: int
) -> tuple[list[Latency], Mapping[str, Any] | None]:
    """At every batch size of its profile; what it is only compared with, at the smallest. And what
    the GPU is clocked at, once it is warm."""
    sizes = sizes_timed(detector, most)
    chosen = sizes if form.predict is detector else sizes[:1]
    found = timing.time_batches(form.predict, detector.size, chosen, form.device, timing.PACE)
    return found, gpu_clocks(form.device)


def sizes_timed(detector: Detector, most: int) -> list[int]:
    """The batch sizes that are timed: within the profile of an engine; of an ONNX file the one that
    it takes, else up to `most`."""
    if detector.record is not None:
        profile = detector.record.profile
        return batch_sizes(profile.min, profile.max, profile.opt)
    return [detector.max_batch] if detector.max_batch else batch_sizes(1, most)


def batch_sizes(low: int, high: int, *also: int) -> list[int]:
    """The ends of a range of batch sizes, the powers of two in it, and what else is in it."""
    powers = [2**n for n in range(high.bit_length())]
    return sorted({low, high, *(n for n in (*powers, *also) if low <= n <= high)})


def tell(session: Session, parity: Parity) -> None:
    """Say what was found; that something is not known stays in status.json, too."""
    if parity.unknown:
        session.warn(f"what is lost against the checkpoint is not known: {parity.unknown}")
        return
    for one in parity.missing:
        session.say(f"the {one.kind} is not compared: {one.why}")
    found = ", ".join(f"{one.form.kind} {one.mean_ap:.4f}" for one in parity.forms)
    session.say(
        f"mAP on {said_of(parity.compared)}: {found}; {parity.drop:+.2f} points lost, "
        f"{parity.limit:g} allowed"
    )


def require(parity: Parity | None, engine: Path | None = None) -> None:
    """End the action where too much was lost; every rank must call it.

    Args:
        parity: of `measure`.
        engine: that was built here, and is then set aside.

    Raises:
        ActionError: with what to do.
    """

    def judge() -> None:
        if parity is None or parity.problem is None:
            return
        kept = "" if engine is None else f". The engine is kept as {set_aside(engine)}"
        raise ActionError(f"{parity.problem}{kept}")

    on_main(judge)


def set_aside(engine: Path) -> Path:
    """Move an engine, and all that lies beside it for it, to where nobody takes it for a good one;
    one that was there before is replaced.

    Raises:
        ActionError: the folder takes no changes.
    """
    rejected = engine.parent / REJECTED / engine.name
    names = EngineNames(engine.name)
    try:
        rejected.parent.mkdir(exist_ok=True)
        for name in (engine.name, names.record, names.log, names.onnx, names.onnx + DATA_SUFFIX):
            if engine.with_name(name).exists():
                engine.with_name(name).replace(rejected.with_name(name))
    except OSError as error:
        raise writing_error(error, rejected) from None
    return rejected
