"""Images that INT8 is calibrated on: enough of them, before a job is queued and before it starts.

Standard library only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rtdetr_slurm.data.coco import Source
from rtdetr_slurm.data.image_sources import list_images
from rtdetr_slurm.errors import RequestError

if TYPE_CHECKING:
    from rtdetr_slurm.spec.experiment import ExperimentConfig

CALIBRATION_FIELD = ("gen_trt_engine", "tensorrt", "calibration")
_SECTION = ".".join(CALIBRATION_FIELD)


def calibration_sources(
    experiment: ExperimentConfig, annotated: Sequence[Source]
) -> tuple[list[Source], list[str]]:
    """What INT8 is calibrated on: the folders of cal_image_dir, else `annotated`.

    Args:
        annotated: dataset.quant_calibration_data_sources, where the spec has it.

    Returns:
        The sources, none where nothing names any or nothing is INT8; and notes.

    Raises:
        RequestError: they have fewer images than are asked for, or none.
    """
    tensorrt = experiment.gen_trt_engine.tensorrt
    config = tensorrt.calibration
    if tensorrt.data_type != "INT8":
        return [], []
    sources, notes = [*annotated], list[str]()
    if config.cal_image_dir:
        sources, notes = list_images(config.cal_image_dir, f"{_SECTION}.cal_image_dir")
    found = sum(source.annotations.num_images for source in sources)
    if sources and found < config.images:
        where = ", ".join(str(source.image_dir) for source in sources)
        raise RequestError(
            f"{_SECTION}: cal_batch_size {config.cal_batch_size} x cal_batches "
            f"{config.cal_batches} = {config.images} images to calibrate on, and {where} "
            f"{'has' if len(sources) == 1 else 'have'} {found}. Lower one of the two, or give more "
            "images"
        )
    return sources, notes
