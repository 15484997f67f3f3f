"""What the detector of a training costs whoever runs it."""

from __future__ import annotations

from rtdetr_slurm.contract import Kpi
from rtdetr_slurm.engine.evaluation import predictor
from rtdetr_slurm.engine.models import RTDETR
from rtdetr_slurm.engine.process.distributed import on_main
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.vision import timing


def detector_costs(session: Session, model: RTDETR) -> dict[str, float]:
    """Those that the session asks for; every rank must call it. They depend on the architecture
    and the size of the images, and on no weight.

    Returns:
        KPI to value: `parameters` of the detector with its norms folded into its convolutions;
        `latency_ms`, the median time for one image of dataset.augmentation.eval_spatial_size from
        its pixels to the detector's output, in float32 on this device, measured on rank 0.
    """
    return on_main(lambda: _costs(session, model)) if session.costs else {}


def _costs(session: Session, model: RTDETR) -> dict[str, float]:
    fused = model.fuse()
    found: dict[str, float] = {}
    if Kpi.PARAMETERS in session.costs:
        found[Kpi.PARAMETERS] = sum(parameter.numel() for parameter in fused.parameters())
    if Kpi.LATENCY_MS in session.costs:
        height, width = session.experiment.dataset.augmentation.eval_spatial_size
        device = session.context.device
        (one,) = timing.time_batches(predictor(fused), (height, width), [1], device, timing.PACE)
        found[Kpi.LATENCY_MS] = one.p50
    return found
