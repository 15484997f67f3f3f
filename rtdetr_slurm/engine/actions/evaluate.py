"""Scoring a checkpoint on the test set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtdetr_slurm.contract import Kpi
from rtdetr_slurm.data.classes import check_same_ids, class_changes
from rtdetr_slurm.engine.datasets.sources import (
    OpenSource,
    open_sources,
    share_evaluation,
    table_of,
)
from rtdetr_slurm.engine.detector import trained_detector
from rtdetr_slurm.engine.evaluation import (
    evaluate_detector,
    predictor,
    write_examples,
    write_metrics,
    write_report,
)
from rtdetr_slurm.engine.process.phases import Phase
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.vision.scoring import Predict, evaluation_data
from rtdetr_slurm.vision.tradeoff import Tradeoff


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
    size = (cfg.input_height or height, cfg.input_width or width)
    facts = {"checkpoint": str(path), "epoch": detector.epoch}
    batch_size = cfg.batch_size if cfg.batch_size > 0 else None
    summary = score(
        session, predictor(detector.model), source, size, detector.classes, facts, batch_size
    )
    return (
        {} if summary is None else {Kpi.TEST_MAP: summary["mAP"], Kpi.TEST_MAP50: summary["mAP50"]}
    )


def score(
    session: Session,
    predict: Predict,
    source: OpenSource,
    size: tuple[int, int],
    classes: Mapping[int, str] | None,
    facts: Mapping[str, Any],
    batch_size: int | None = None,
    tradeoff: Tradeoff | None = None,
) -> dict[str, float] | None:
    """Score a detector in whatever form, and write metrics.json, report and examples.

    Args:
        size: (height, width) of the images that it takes.
        classes: that it was trained on, id to name; None where nothing says so.
        facts: of the detector, for what is written.
        batch_size: images per rank and step; None: dataset.batch_size.
        tradeoff: for the report, where there is one.

    Returns:
        COCO's twelve numbers on rank 0, None elsewhere.

    Raises:
        as `evaluate`.
    """
    cfg = session.experiment.evaluate
    table = table_of(session, [source])
    data = evaluation_data(session.experiment, table, size=size, conf_threshold=cfg.conf_threshold)
    compare_classes(session, classes, table.classes, source.annotations)
    share = share_evaluation(session, data, batch_size)
    session.phases.enter(Phase.OTHER)
    scores = evaluate_detector(session, predict, share)
    write_examples(session, predict, data)
    if scores is None:
        return None
    content = {
        **facts,
        "annotations": str(source.annotations),
        "images": len(data.table),
        "boxes": len(data.table.labels),
        "input_size": list(data.resize.size),
        "conf_threshold": data.conf_threshold,
    }
    write_metrics(session, scores, content)
    write_report(session, scores, content, tradeoff=tradeoff)
    session.say("  ".join(f"{name} {value:.4f}" for name, value in scores.summary.items()))
    return scores.summary


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
