"""Scoring a checkpoint on the test set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rtdetr_slurm.contract import Kpi
from rtdetr_slurm.data.classes import check_same_ids, class_changes
from rtdetr_slurm.engine.datasets.sources import open_sources, share_evaluation
from rtdetr_slurm.engine.detector import trained_detector
from rtdetr_slurm.engine.evaluation import (
    evaluate_detector,
    write_examples,
    write_metrics,
    write_report,
)
from rtdetr_slurm.engine.process.phases import Phase
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.vision.scoring import open_evaluation_data


def evaluate(session: Session) -> dict[str, float]:
    """Score `evaluate.checkpoint` on `dataset.test_data_sources`.

    Returns:
        test_mAP and test_mAP50 on rank 0, nothing elsewhere.

    Raises:
        Interrupted: asked to stop; the next start begins again.
        UserError: whatever a user can do something about.
    """
    cfg = session.experiment.evaluate
    height, width = session.experiment.dataset.augmentation.eval_spatial_size
    path = Path(cfg.checkpoint)
    (source,) = open_sources(session)["test"]
    with session.phases.part("model"):
        detector = trained_detector(session, path, is_quantized=cfg.is_quantized)
    data = open_evaluation_data(
        session.experiment,
        source,
        size=(cfg.input_height or height, cfg.input_width or width),
        conf_threshold=cfg.conf_threshold,
    )
    compare_classes(session, detector.classes, data.table.classes, source.annotations.path)
    batch_size = cfg.batch_size if cfg.batch_size > 0 else None
    share = share_evaluation(session, data, batch_size)
    session.phases.enter(Phase.OTHER)
    scores = evaluate_detector(session, detector.model, share)
    write_examples(session, detector.model, data)
    if scores is None:
        return {}
    content = {
        "checkpoint": str(path),
        "epoch": detector.epoch,
        "annotations": str(source.annotations.path),
        "images": len(data.table),
        "boxes": len(data.table.labels),
        "input_size": list(data.size),
        "conf_threshold": data.conf_threshold,
    }
    write_metrics(session, scores, content)
    write_report(session, scores, content)
    summary = scores.summary
    session.say("  ".join(f"{name} {value:.4f}" for name, value in summary.items()))
    return {Kpi.TEST_MAP: summary["mAP"], Kpi.TEST_MAP50: summary["mAP50"]}


def compare_classes(
    session: Session, trained: Mapping[int, str] | None, scored: Mapping[int, str], path: Path
) -> None:
    """Say where the same id has another name now than in training, or a name another id, and that
    nobody can know.

    Args:
        trained: id to name; None where the weights do not say.
        path: of the annotations.

    Raises:
        RequestError: no class has its id.
    """
    if trained is None:
        first = ", ".join(f"{number} as {name!r}" for number, name in [*scored.items()][:3])
        session.warn(
            "the weights do not say what their classes are called: class i of theirs is scored as "
            f"the category of id i in {path}, {first}{', ...' * (len(scored) > 3)}"
        )
        return
    check_same_ids(trained, scored, path)
    for change in class_changes(trained, scored):
        session.warn(
            f"{change} in the test annotations; if these are different things, the scores mean "
            "nothing"
        )
