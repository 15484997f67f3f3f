"""What an action leaves for people: metrics.json and annotated.jpg."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from rtdetr_slurm import __version__
from rtdetr_slurm.contract import ANNOTATED_IMAGE, METRICS_JSON, SCHEMA_VERSION
from rtdetr_slurm.engine.action import Action
from rtdetr_slurm.engine.datasets.images import BadImage, load_image
from rtdetr_slurm.engine.draw import Drawn, draw_sheet
from rtdetr_slurm.engine.failures import writing_error
from rtdetr_slurm.engine.postprocess import postprocess
from rtdetr_slurm.engine.preprocess import preprocess
from rtdetr_slurm.engine.sources import EvaluationData
from rtdetr_slurm.runs.files import write_atomic

PICTURES = 8
"""How many images annotated.jpg shows at most."""


def write_metrics(action: Action, classes: Mapping[int, str], content: Mapping[str, Any]) -> None:
    """Replace metrics.json.

    Raises:
        ActionError: it cannot be written.
    """
    record = {
        "schema_version": SCHEMA_VERSION,
        "version": __version__,
        "action": action.name,
        "classes": {str(i): name for i, name in classes.items()},
        **content,
    }
    path = action.results_dir / METRICS_JSON
    try:
        write_atomic(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise writing_error(error, path) from None


def write_picture(action: Action, model: nn.Module, data: EvaluationData) -> None:
    """Draw the model's detections on a few images, on rank 0.

    Raises:
        ActionError: the picture cannot be written.
    """
    if not action.context.is_main:
        return
    sheet = io.BytesIO()
    draw_sheet(_pictures(model, data, action.context.device), data.table.classes).save(
        sheet, "JPEG", quality=92
    )
    path = action.results_dir / ANNOTATED_IMAGE
    try:
        write_atomic(path, sheet.getvalue())
    except OSError as error:
        raise writing_error(error, path) from None


@torch.no_grad()
def _pictures(
    model: nn.Module, data: EvaluationData, device: torch.device
) -> list[tuple[Any, Sequence[Drawn]]]:
    """Images spread evenly over the set, each with its detections; undecodable ones left out."""
    model.eval()
    count = min(PICTURES, len(data.table))
    pictures: list[tuple[Any, Sequence[Drawn]]] = []
    for number in range(count):
        pixels = load_image(data.table.path(number * len(data.table) // count))
        if isinstance(pixels, BadImage):
            continue
        outputs = model(preprocess(pixels, data.size).to(device))
        size = torch.tensor([[pixels.shape[1], pixels.shape[0]]])
        found = postprocess(
            outputs["pred_logits"].cpu(), outputs["pred_boxes"].cpu(), size, data.num_select
        )
        rows = zip(
            found.boxes[0].tolist(), found.labels[0].tolist(), found.scores[0].tolist(), strict=True
        )
        pictures.append((pixels, [Drawn(tuple(b), label, score) for b, label, score in rows]))
    return pictures
