"""A checkpoint as an ONNX file, checked against the detector before it has its name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import torch

from rtdetr_slurm import __version__
from rtdetr_slurm.contract import EXPORT_JSON, EXPORT_VERSION, MODEL_FILES, Infer
from rtdetr_slurm.engine.comparison import Compared, comparison
from rtdetr_slurm.engine.datasets.sources import share_evaluation
from rtdetr_slurm.engine.detector import TrainedDetector, trained_detector
from rtdetr_slurm.engine.evaluation import in_step, predictor
from rtdetr_slurm.engine.model_files import ModelFiles
from rtdetr_slurm.engine.onnx_graph import (
    DATA_SUFFIX,
    fits_one_file,
    foreign_operators,
    save,
    trace,
)
from rtdetr_slurm.engine.process.phases import Phase
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.engine.process.stop import Interrupted
from rtdetr_slurm.engine.quantization.layers import formats_of, rounds_activations
from rtdetr_slurm.errors import ActionError, RequestError
from rtdetr_slurm.files import sha256_of
from rtdetr_slurm.records import BadRecord, checked, read_json
from rtdetr_slurm.resolved_spec import spec_text
from rtdetr_slurm.runs.checkpoints import thresholds_of
from rtdetr_slurm.spec import in_lines
from rtdetr_slurm.spec.quantization import opset_has
from rtdetr_slurm.vision.deepstream import (
    DEEPSTREAM_FILES,
    LABELS_TXT,
    NVDSINFER_CONFIG,
    NVDSINFER_PARSER,
    labels_text,
    nvdsinfer_config,
    parser_source,
)
from rtdetr_slurm.vision.onnx_metadata import OnnxMetadata, preprocessing
from rtdetr_slurm.vision.onnx_runtime import OnnxDetector, open_onnx
from rtdetr_slurm.vision.parity import Parity, compare

COMPARED_IMAGES = 100
"""At most so many images are compared, spread evenly over their source: ONNX Runtime computes on
the CPU here, and a GPU of the job would wait for it."""
ROUNDED = {"max_unmatched": 0.25, "max_points": 0.5}
"""How far a file may be from a checkpoint that rounds its activations: what is all but between two
codes falls to either side."""


class _Told(TypedDict, total=False):
    """What export.json says of the files."""

    onnx_file: str
    checkpoint_sha256: str
    claim: str | None
    files: Mapping[str, str]


def export(session: Session) -> dict[str, float]:
    """Write `export.checkpoint` as ONNX; docs/engine.md says what else is left.

    Returns:
        Nothing: an export has no KPIs.

    Raises:
        Interrupted: asked to stop; the next start begins again.
        ActionError: the file does not compute what the detector does. It is not left.
        UserError: whatever a user can do something about.
    """
    cfg = session.experiment.export
    target = Path(cfg.onnx_file or session.results_dir / MODEL_FILES[Infer.CREATE_ONNX_FILE])
    extra = DEEPSTREAM_FILES if cfg.serialize_nvdsinfer else ()
    files = ModelFiles(target, "export.onnx_file", (target.name + DATA_SUFFIX, *extra))
    if made_before(session, files):
        return {}
    files.refuse_existing()
    size = (cfg.input_height, cfg.input_width)
    path = Path(cfg.checkpoint)
    with session.phases.part("model"):
        detector = trained_detector(session, path, is_quantized=cfg.is_quantized)
    if problems := [*opset_has(formats_of(detector.model), cfg.opset_version)]:
        raise RequestError(in_lines(problems))
    if session.key is not None:
        see_that_it_can_be_encrypted(session, detector)
    metadata = describe(session, detector, path)
    if cfg.serialize_nvdsinfer and metadata.classes is None:
        raise RequestError(
            f"checkpoint {path} does not name its classes, and {LABELS_TXT} needs them: leave "
            "export.serialize_nvdsinfer out, or export a checkpoint of a training of this program"
        )
    compared = comparison(session, size, COMPARED_IMAGES)
    if compared.data is None:
        session.warn(
            f"the ONNX file is not compared with the checkpoint on real images: {compared.why}"
        )
    session.phases.enter(Phase.OTHER)
    batch = cfg.batch_size if cfg.batch_size > 0 else None
    model = trace(
        detector.model,
        size,
        batch=batch,
        opset=cfg.opset_version,
        metadata=metadata.properties(),
        verbose=cfg.verbose,
    )
    if foreign := foreign_operators(model):
        raise ActionError(f"the graph has operators that are not ONNX's own: {', '.join(foreign)}")
    with files.folder() as folder:
        made = folder / target.name
        save(model, made, session.key)
        onnx = open_onnx(made, key=session.key)
        parity = see_that_it_is_the_same(session, detector, onnx, compared)
        if cfg.serialize_nvdsinfer:
            classes = metadata.classes or {}
            config = nvdsinfer_config(metadata, target.name, size, batch, onnx.num_classes)
            (folder / LABELS_TXT).write_text(labels_text(classes, onnx.num_classes))
            (folder / NVDSINFER_PARSER).write_text(parser_source())
            (folder / NVDSINFER_CONFIG).write_text(spec_text(config))
        if session.stop.requested:
            raise Interrupted
        digests = files.digests(folder)
        written = {
            "onnx_file": str(target),
            "onnx_sha256": digests[target.name],
            "files": digests,
            "claim": session.start and session.start.claim,
        }
        session.write(EXPORT_JSON, report(session, written, onnx, metadata, parity, compared))
        session.check_latest()
    session.say(f"{target}: {summary(onnx, cfg.opset_version, parity)}")
    return {}


def made_before(session: Session, files: ModelFiles) -> bool:
    """Whether an earlier start of this job has made all files, and was ended before it could say
    so. What it has made of them only in part, or of another checkpoint, is removed."""
    record = session.results_dir / EXPORT_JSON
    try:
        told = checked(_Told, read_json(record), record)
    except (FileNotFoundError, BadRecord):
        return False
    if told.get("onnx_file") != str(files.target):
        return False
    own = files.left_by(session.start, told.get("claim"), told.get("files", {}))
    same = told.get("checkpoint_sha256") == sha256_of(Path(session.experiment.export.checkpoint))
    if files.target in own and same:
        session.say(f"{files.target} is there: an earlier start of this job has made it")
        return True
    for path in own:
        path.unlink()
    return False


def see_that_it_can_be_encrypted(session: Session, detector: TrainedDetector) -> None:
    """Before any work; says what an encrypted file is not good for.

    Raises:
        RequestError: it would need a second file, which no reader could be given decrypted.
    """
    if not fits_one_file(detector.model):
        raise RequestError(
            "encryption_key: an ONNX file of more than 2 GiB cannot be encrypted; export without a "
            "key, or a smaller detector"
        )
    if session.experiment.export.serialize_nvdsinfer:
        session.warn("the ONNX file is encrypted: DeepStream reads it once it is decrypted")


def describe(session: Session, detector: TrainedDetector, path: Path) -> OnnxMetadata:
    """What the file will say of itself."""
    thresholds = thresholds_of(path)
    if thresholds is None:
        session.say(f"no thresholds: there is no metrics file of this epoch beside {path.name}")
    return OnnxMetadata(
        version=__version__,
        checkpoint=path.name,
        checkpoint_sha256=sha256_of(path),
        epoch=detector.epoch,
        classes=detector.classes,
        thresholds=thresholds or {},
        num_select=session.experiment.model.num_select,
        preserve_aspect_ratio=session.experiment.dataset.augmentation.preserve_aspect_ratio,
    )


def see_that_it_is_the_same(
    session: Session, detector: TrainedDetector, onnx: OnnxDetector, compared: Compared
) -> Parity | None:
    """Run both on the same images; None where there are none.

    Raises:
        ActionError: the file computes something else.
        Interrupted: asked to stop.
    """
    if compared.data is None:
        return None
    share = share_evaluation(session, compared.data)
    device = session.context.device
    with (
        session.phases.during(Phase.VALIDATING, steps=share.steps(1)),
        torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
    ):
        parity = compare(
            predictor(detector.model), onnx, in_step(session, share), compared.data, device
        )
        session.record_bad_images()
    limits = ROUNDED if rounds_activations(detector.model) else {}
    if problem := parity.problem(**limits):
        raise ActionError(
            f"the ONNX file does not compute what the checkpoint does: on {parity.images} images "
            f"of {compared.source} {problem}. It was not kept; please report "
            "this with the spec"
        )
    return parity


def report(
    session: Session,
    written: Mapping[str, Any],
    onnx: OnnxDetector,
    metadata: OnnxMetadata,
    parity: Parity | None,
    compared: Compared,
) -> str:
    """The text of export.json."""
    cfg = session.experiment.export
    height, width = onnx.size
    content: Mapping[str, Any] = {
        "schema_version": EXPORT_VERSION,
        "version": __version__,
        "checkpoint": cfg.checkpoint,
        "checkpoint_sha256": metadata.checkpoint_sha256,
        "epoch": metadata.epoch,
        **written,
        "encrypted": session.key is not None,
        "opset_version": cfg.opset_version,
        "inputs": {"inputs": [onnx.batch, 3, height, width]},
        "outputs": {
            "pred_logits": [onnx.batch, onnx.num_queries, onnx.num_classes],
            "pred_boxes": [onnx.batch, onnx.num_queries, 4],
        },
        "classes": metadata.classes and {str(i): name for i, name in metadata.classes.items()},
        "thresholds": dict(metadata.thresholds) or None,
        "num_select": metadata.num_select,
        "preprocessing": preprocessing(metadata.preserve_aspect_ratio),
        "parity": None if parity is None else {"source": compared.source, **parity.as_json()},
        "not_compared": compared.why or None,
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def summary(onnx: OnnxDetector, opset: int, parity: Parity | None) -> str:
    """One line for people."""
    height, width = onnx.size
    batch = "any batch" if onnx.batch is None else f"batch {onnx.batch}"
    said = f"opset {opset}, {batch}, {height}x{width}"
    if parity is None:
        return f"{said}; not compared on real images"
    return (
        f"{said}; on {parity.images} images the largest difference from the checkpoint is "
        f"{parity.max_difference:.1e}, and mAP {parity.map_other:.4f} to {parity.map_reference:.4f}"
    )
