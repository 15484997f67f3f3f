"""Scoring a detector with all ranks: after an epoch of training, and by `evaluate`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rtdetr_slurm.contract import ANNOTATED_IMAGE, METRICS_JSON, METRICS_PATTERN, REPORT_HTML
from rtdetr_slurm.engine.datasets.sources import EvaluationShare
from rtdetr_slurm.engine.losses import Criterion
from rtdetr_slurm.engine.process.distributed import barrier, gather_objects, sum_over_ranks
from rtdetr_slurm.engine.process.failures import writing_error
from rtdetr_slurm.engine.process.phases import Phase
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.engine.process.stop import Interrupted
from rtdetr_slurm.vision.assessment import Assessment, assess, metrics_file
from rtdetr_slurm.vision.examples import draw_examples
from rtdetr_slurm.vision.pictures import worst_pictures
from rtdetr_slurm.vision.preprocess import to_unit_range
from rtdetr_slurm.vision.report import Report, render_report
from rtdetr_slurm.vision.samples import Batch
from rtdetr_slurm.vision.scoring import Detected, EvaluationData, Predict, detect
from rtdetr_slurm.vision.tradeoff import Tradeoff


@dataclass(frozen=True)
class Scores:
    """The result of scoring, on rank 0.

    Attributes:
        loss: of the layer that is read out, per box; NaN without a criterion.
    """

    assessment: Assessment
    loss: float

    @property
    def summary(self) -> dict[str, float]:
        """COCO's twelve numbers."""
        return self.assessment.metrics.summary


@torch.no_grad()
def evaluate_detector(
    session: Session, predict: Predict, share: EvaluationShare, criterion: Criterion | None = None
) -> Scores | None:
    """Score a detector on all images of the set; the ranks share the work.

    The numbers do not depend on how many ranks there are, nor on the batch size.

    Returns:
        The scores on rank 0, None elsewhere.

    Raises:
        Interrupted: the ranks were asked to stop; nothing was written.
        ActionError: an image cannot be decoded and such images are not to be skipped. A skipped
            one counts as an image in which nothing was found.
    """
    steps = share.steps(session.context.world_size)
    with session.phases.during(Phase.VALIDATING, steps=steps):
        scores = _score(session, predict, share, criterion)
        barrier()  # rank 0 scores; who waits for it is validating, too
    return scores


def _score(
    session: Session, predict: Predict, share: EvaluationShare, criterion: Criterion | None
) -> Scores | None:
    device, data = session.context.device, share.data
    found: list[NDArray[np.float64]] = []
    total = torch.zeros(2, dtype=torch.float64, device=device)  # summed loss, boxes
    for detected in detect(predict, in_step(session, share), data, device):
        found.append(detected.rows)
        if criterion is not None:
            total += torch.stack(_loss(criterion, detected))
    session.record_bad_images()
    sum_over_ranks(total)
    gathered = gather_objects(np.concatenate([np.empty((0, 7)), *found]))
    if not session.context.is_main:
        return None
    detections = np.concatenate(gathered)
    detections = detections[np.argsort(detections[:, 0], kind="stable")]
    loss, num_boxes = total.tolist()
    return Scores(
        assess(data.table, detections, data.class_ids),
        math.nan if criterion is None else loss / max(num_boxes, 1),
    )


def predictor(model: nn.Module) -> Predict:
    """The detector as scoring calls it; `model` goes into eval mode."""
    model.eval()

    def predict(images: Tensor) -> Mapping[str, Tensor]:
        outputs: Mapping[str, Tensor] = model(images.contiguous(memory_format=torch.channels_last))
        return outputs

    return predict


def write_metrics(
    session: Session, scores: Scores, content: Mapping[str, Any], epoch: int | None = None
) -> None:
    """Replace metrics.json.

    Args:
        content: what was scored on what.
        epoch: that was scored; a copy stays beside its checkpoint.

    Raises:
        ActionError: it cannot be written.
    """
    said = {**content, **scores.assessment.as_json()}
    text = metrics_file(session.name, scores.assessment.table.classes, said)
    if epoch is not None:
        session.write(METRICS_PATTERN.format(epoch=epoch), text)
    session.write(METRICS_JSON, text)


def remove_metrics(session: Session, epoch: int) -> None:
    """On rank 0, of an epoch that is not scored: what another training has left in this folder says
    nothing of its checkpoint.

    Raises:
        ActionError: the folder takes no changes.
    """
    if session.context.is_main:
        session.check_latest()
        path = session.results_dir / METRICS_PATTERN.format(epoch=epoch)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise writing_error(error, path) from None


def write_report(
    session: Session,
    scores: Scores | None,
    facts: Mapping[str, object],
    history: Mapping[str, Mapping[int, float]] = MappingProxyType({}),
    tradeoff: Tradeoff | None = None,
) -> None:
    """Replace report.html.

    Args:
        scores: None where nothing was scored.
        facts: what was scored on what, by name.
        history: KPI to epoch to value.
        tradeoff: what else there is of the detector, and how long each form takes.

    Raises:
        ActionError: it cannot be written.
    """
    assessment = None if scores is None else scores.assessment
    report = Report(
        title=f"rtdetr {session.name}: {session.results_dir}",
        facts=[(name, str(value)) for name, value in facts.items() if value is not None],
        assessment=assessment,
        pictures=worst_pictures(assessment) if assessment else (),
        history=history,
        tradeoff=tradeoff,
    )
    session.write(REPORT_HTML, render_report(report))


def write_examples(session: Session, predict: Predict, data: EvaluationData) -> None:
    """Draw a detector's detections on a few images, on rank 0: annotated.jpg.

    Raises:
        ActionError: the picture cannot be written.
    """
    if session.context.is_main:
        picture = draw_examples(predict, data, session.context.device)
        session.write(ANNOTATED_IMAGE, picture)


def in_step(session: Session, share: EvaluationShare) -> Iterator[Batch]:
    """This rank's batches. Before each, also where this rank has no more, the ranks agree on
    whether to stop.

    Raises:
        Interrupted: the ranks were asked to stop.
        ActionError: as Session.meet_bad_images.
    """
    batches = session.phases.batches(share.loader)
    for _ in range(share.steps(session.context.world_size)):
        asked = torch.tensor(float(session.stop.requested), device=session.context.device)
        if sum_over_ranks(asked).item():
            raise Interrupted
        batch = next(batches, None)
        if batch is not None:
            session.meet_bad_images(batch.bad, skip=session.skip_bad_images)
            yield batch
        session.phases.stepped()


def pixels_of(session: Session, share: EvaluationShare) -> Iterator[Tensor]:
    """This rank's images, float32 [B, 3, H, W] in 0..1, on the session's device.

    Raises:
        as `in_step`.
    """
    with session.phases.during(Phase.VALIDATING, steps=share.steps(session.context.world_size)):
        for batch in in_step(session, share):
            yield to_unit_range(batch.to(session.context.device).pixels)
    session.record_bad_images()


def _loss(criterion: Criterion, detected: Detected) -> list[Tensor]:
    """Summed loss of the batch's predictions, and its number of boxes."""
    one = torch.ones((), device=detected.logits.device)
    terms = criterion.layer_terms(detected.logits, detected.boxes, detected.batch.targets(), one)
    loss = sum(terms.values(), torch.zeros_like(one))
    return [loss.double(), one.double() * detected.batch.num_boxes]
