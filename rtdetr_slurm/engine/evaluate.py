"""Scoring a checkpoint on the test set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rtdetr_slurm.contract import Kpi
from rtdetr_slurm.data.coco import Source, check_sources
from rtdetr_slurm.engine import checkpoint as checkpoints
from rtdetr_slurm.engine.action import Action
from rtdetr_slurm.engine.models import RTDETR, build_model
from rtdetr_slurm.engine.models.keymap import load_weights
from rtdetr_slurm.engine.report import write_metrics, write_picture
from rtdetr_slurm.engine.scoring import score_model
from rtdetr_slurm.engine.sources import EvaluationData, open_evaluation_data
from rtdetr_slurm.errors import RequestError


def evaluate(action: Action) -> dict[str, float]:
    """Score `evaluate.checkpoint` on `dataset.test_data_sources`.

    Returns:
        test_mAP and test_mAP50 on rank 0, nothing elsewhere.

    Raises:
        Interrupted: asked to stop; the next start begins again.
        UserError: whatever a user can do something about.
    """
    path = Path(action.experiment.evaluate.checkpoint)
    (source,) = check_sources(action.experiment, "evaluate")["test"]
    model, facts = load_detector(action, path)
    data = _test_data(action, source)
    _compare_classes(action, facts["classes"], data.table.classes)
    scores = score_model(action, model, data)
    write_picture(action, model, data)
    if scores is None:
        return {}
    content = {
        "checkpoint": str(path),
        "epoch": facts["epoch"],
        "annotations": str(source.annotations.path),
        "images": len(data.table),
        "boxes": len(data.table.labels),
        "input_size": list(data.size),
        "conf_threshold": data.conf_threshold,
        **scores.metrics.as_json(),
    }
    write_metrics(action, data.table.classes, content)
    summary = scores.metrics.summary
    action.say("  ".join(f"{name} {value:.4f}" for name, value in summary.items()))
    return {Kpi.TEST_MAP: summary["mAP"], Kpi.TEST_MAP50: summary["mAP50"]}


def load_detector(action: Action, path: Path) -> tuple[RTDETR, dict[str, Any]]:
    """The model of the spec with the weights of `path`, averaged ones first.

    Returns:
        The model and what the checkpoint says of itself: `classes` (id to name) and `epoch`; None
        for weights from elsewhere.

    Raises:
        RequestError: the file does not fit, or has another number of classes.
    """
    experiment = action.experiment
    model = build_model(experiment.model, experiment.dataset.num_classes)
    facts = _facts(path)
    if facts["spec"] is not None:
        checkpoints.check_num_classes(facts, experiment.dataset.num_classes, path)
    report = load_weights(model, path, part="detector")
    heads = [line for line in report.skipped if "score_head" in line]
    if heads:
        raise RequestError(
            f"checkpoint {path} has class heads of another size than dataset.num_classes "
            f"{experiment.dataset.num_classes}:\n  " + "\n  ".join(heads)
        )
    action.say(str(report))
    model = model.to(action.context.device).to(memory_format=torch.channels_last)
    return model, facts


def _facts(path: Path) -> dict[str, Any]:
    """What a checkpoint of this engine says of itself; None for each where it is not one."""
    names = ("classes", "epoch", "spec")
    if path.suffix == ".pth" and path.is_file():
        try:
            content = checkpoints.load(path)
        except RequestError:  # weights from elsewhere; load_weights says what is wrong with them
            return dict.fromkeys(names)
        return {name: content[name] for name in names}
    return dict.fromkeys(names)


def _test_data(action: Action, source: Source) -> EvaluationData:
    cfg, dataset = action.experiment.evaluate, action.experiment.dataset
    height, width = dataset.augmentation.eval_spatial_size
    return open_evaluation_data(
        action,
        source,
        size=(cfg.input_height or height, cfg.input_width or width),
        batch_size=cfg.batch_size if cfg.batch_size > 0 else None,
        conf_threshold=cfg.conf_threshold,
    )


def _compare_classes(
    action: Action, trained: dict[int, str] | None, scored: dict[int, str]
) -> None:
    """Say where the same id has another name now than in training."""
    for category, name in (trained or {}).items():
        if scored.get(category, name) != name:
            action.warn(
                f"class {category} was '{name}' in training and is '{scored[category]}' in the "
                "test annotations; if these are different things, the scores mean nothing"
            )
