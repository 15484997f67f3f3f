"""What INT8 is made with: images, prepared as for scoring, and the file that keeps what they gave.

The file belongs to one model, whose digest is in it. TensorRT's own calibration files are for
networks that it chooses the precision of by itself, which there are no more.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from torch import Tensor

from rtdetr_slurm.contract import CALIBRATION_VERSION, MODEL_FILES, Infer
from rtdetr_slurm.deploy.parity import MAX_DROP
from rtdetr_slurm.engine.actions.quantize import compare_alone
from rtdetr_slurm.engine.comparison import images_of
from rtdetr_slurm.engine.datasets.sources import open_sources, share_evaluation, table_of
from rtdetr_slurm.engine.evaluation import evaluate_detector, pixels_of
from rtdetr_slurm.engine.process.failures import writing_error
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.files import sha256_of, write_atomic
from rtdetr_slurm.records import BadRecord, check_version, checked, exists, read_json
from rtdetr_slurm.vision.image_set import ImageSet
from rtdetr_slurm.vision.scoring import EvaluationData, Predict, evaluation_data

SCORED_IMAGES = 200
"""At most so many are scored for each choice of layers, spread evenly over their source: ONNX
Runtime computes on the CPU, a dozen times."""
_FIELD = "gen_trt_engine.tensorrt.calibration"


@dataclass(frozen=True)
class CalibrationRecord:
    """What is known of a model's tensors and layers.

    Attributes:
        model_sha256: digest of the ONNX file, as it was exported.
        images: that calibrated.
        ranges: tensor to the largest magnitude that has a code of 8 bits.
        sensitivities: layer to how far detections move where it alone is quantized; empty where
            nobody has compared them.
    """

    model_sha256: str
    images: int = 0
    ranges: Mapping[str, float] = field(default_factory=dict)
    sensitivities: Mapping[str, float] = field(default_factory=dict)
    schema_version: int = CALIBRATION_VERSION

    def __post_init__(self) -> None:
        for name, value in {**self.ranges, **self.sensitivities}.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"found {value} for {name}; expected a finite number, 0 or more")


@dataclass
class Calibration:
    """What INT8 is made with.

    Attributes:
        record: what is known so far.
        images: that calibrate.
        batches: so many of them, spread evenly, float32 [B, 3, H, W] in 0..1; anew each time.
        compare: how far each of some layers moves the detections on these images, by name, where it
            alone is quantized; the detector without, and the context with one that is.
        score: mAP of a detector, 0..1; None: there are no boxes to score on.
        limit: points of mAP that may be lost.
        save: write what is known.
        say: tell people.
    """

    record: CalibrationRecord
    images: int
    batches: Callable[[int], Iterator[Tensor]]
    compare: Callable[
        [Predict, Tensor, list[str], Callable[[str], AbstractContextManager[Predict]]],
        dict[str, float],
    ]
    score: Callable[[Predict], float] | None
    limit: float
    save: Callable[[CalibrationRecord], None]
    say: Callable[[str], None]

    def keep(self, record: CalibrationRecord) -> None:
        """Know more, and have it in the file."""
        self.record = record
        self.save(record)


def open_calibration(session: Session, onnx: Path, size: tuple[int, int]) -> Calibration:
    """The calibration that a spec asks for.

    Args:
        onnx: the file as it was exported.
        size: (height, width) of the images that it takes.

    Raises:
        RequestError: there are not enough images, or the file of an earlier calibration cannot be
            used.
    """
    experiment = session.experiment
    asked = session.deploy.max_map_drop
    config = experiment.gen_trt_engine.tensorrt.calibration
    path = Path(config.cal_cache_file or session.results_dir / MODEL_FILES[Infer.CREATE_CAL_CACHE])
    digest = sha256_of(onnx)
    record = read_calibration(path, digest) if exists(path) else CalibrationRecord(digest)
    sources = open_sources(session, ("calibration", "quant_calibration"))["calibration"]
    scored = _scored(session, size)

    def batches(count: int) -> Iterator[Tensor]:
        if not sources:
            raise RequestError(
                f"gen_trt_engine.tensorrt.data_type INT8 needs images to calibrate on: set {_FIELD}"
                ".cal_image_dir or dataset.quant_calibration_data_sources"
            )
        table = table_of(session, sources, {}).spread(count)
        data = evaluation_data(experiment, table, size=size)
        samples = ImageSet(table, data.resize)
        yield from pixels_of(
            session, share_evaluation(session, data, config.cal_batch_size, samples)
        )

    def score(predict: Predict) -> float:
        assert scored is not None
        found = evaluate_detector(session, predict, share_evaluation(session, scored))
        assert found is not None  # one rank
        return found.summary["mAP"]

    def save(record: CalibrationRecord) -> None:
        session.check_latest()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps(asdict(record), indent=2, ensure_ascii=False) + "\n")
        except OSError as error:
            raise writing_error(error, path) from None

    return Calibration(
        record,
        config.images,
        batches,
        lambda *of: compare_alone(session, *of),
        None if scored is None else score,
        MAX_DROP["INT8"] if asked is None else asked,
        save,
        session.say,
    )


def read_calibration(path: Path, digest: str) -> CalibrationRecord:
    """What an earlier calibration of a model has given.

    Args:
        digest: of the model.

    Raises:
        RequestError: it is another model's, or no such file.
    """
    advice = f"remove it, or let {_FIELD}.cal_cache_file name another file"
    try:
        data = read_json(path)
    except BadRecord:
        raise RequestError(
            f"{path} is no calibration that this program has written, and TensorRT's own files are "
            f"of no use to networks whose precision is written in them: {advice}"
        ) from None
    check_version(data, path, CALIBRATION_VERSION)
    record = checked(CalibrationRecord, data, path)
    if record.model_sha256 != digest:
        raise RequestError(
            f"{path} is the calibration of another model: of an ONNX file with the SHA-256 "
            f"{record.model_sha256[:12]}…, and this one's is {digest[:12]}…; {advice}"
        )
    return record


def _scored(session: Session, size: tuple[int, int]) -> EvaluationData | None:
    """The images on which a drop is measured: those of validation, which the engine is compared
    with its checkpoint on, else those that calibrate; None where neither has boxes."""
    for kind in ("val", "quant_calibration"):
        for source in open_sources(session, [kind])[kind]:
            data = images_of(session, kind, source, size, SCORED_IMAGES).data
            if data is not None and len(data.table.boxes):
                return data
    return None
