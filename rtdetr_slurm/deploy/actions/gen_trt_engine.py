"""A TensorRT engine from an ONNX file, with its record, its log and the graph it was built from."""

from __future__ import annotations

from pathlib import Path

import torch

from rtdetr_slurm import __version__
from rtdetr_slurm.cipher import encrypted
from rtdetr_slurm.contract import MODEL_FILES, Infer
from rtdetr_slurm.deploy.detector import ONNX_RUNTIME, open_detector
from rtdetr_slurm.deploy.measure import IMAGES, measure, require
from rtdetr_slurm.deploy.precision import Typed, typed
from rtdetr_slurm.deploy.precision.calibration import open_calibration
from rtdetr_slurm.deploy.record import EngineNames, EngineRecord, Profile, read_record
from rtdetr_slurm.deploy.source import SourceGraph, read_graph, with_batch
from rtdetr_slurm.deploy.targets import capability_here, capability_to_build_for
from rtdetr_slurm.deploy.tensorrt import Built, Log, Request, TensorRt, open_tensorrt
from rtdetr_slurm.engine.comparison import comparison
from rtdetr_slurm.engine.model_files import ModelFiles
from rtdetr_slurm.engine.onnx_graph import DATA_SUFFIX, save
from rtdetr_slurm.engine.process.failures import writing_error
from rtdetr_slurm.engine.process.phases import Phase
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.engine.process.stop import Interrupted
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.files import replace_with, sha256_of, write_atomic
from rtdetr_slurm.records import read_file
from rtdetr_slurm.runs.artefacts import engine_record
from rtdetr_slurm.spec.gen_trt_engine import GenTrtEngineConfig


def gen_trt_engine(session: Session) -> dict[str, float]:
    """Build an engine from `gen_trt_engine.onnx_file`, and see what it has lost against what it was
    made of; docs/deploy.md says what else is left.

    Returns:
        Nothing: building has no KPIs.

    Raises:
        Interrupted: asked to stop; the next start begins again.
        SiteError: TensorRT or its GPU is missing.
        ActionError: TensorRT cannot build it, or it has lost too much. It is set aside then.
        UserError: whatever a user can do something about.
    """
    target, capability = engine_of(session)
    device = session.context.device
    # Elsewhere than on its GPU the graph that it was built from stands in for it.
    runs = None if capability_here(device) == capability else ONNX_RUNTIME
    detector = open_detector(target, runs, device, session.key)
    compared = comparison(session, detector.size, IMAGES[device.type])
    require(measure(session, target, detector, compared), target)
    return {}


def engine_of(session: Session) -> tuple[Path, str]:
    """Build the engine that the spec asks for, unless an earlier start of this job has.

    Returns:
        Its file, and the compute capability that it is for.

    Raises:
        as `gen_trt_engine`.
    """
    cfg = session.experiment.gen_trt_engine
    target = Path(cfg.trt_engine or session.results_dir / MODEL_FILES[Infer.CREATE_ENGINE_FILE])
    names = EngineNames(target.name)
    beside = (names.record, names.onnx + DATA_SUFFIX, names.onnx, names.log)
    files = ModelFiles(target, "gen_trt_engine.trt_engine", beside)
    library, capability = builder(session)
    if not made_before(session, files):
        files.refuse_existing()
        make(session, files, names, library, capability)
    return target, capability


def make(
    session: Session, files: ModelFiles, names: EngineNames, library: TensorRt, capability: str
) -> None:
    """Build the engine; its files get their names together."""
    cfg = session.experiment.gen_trt_engine
    path = Path(cfg.onnx_file)
    with session.phases.part("model"):
        source = read_graph(path, session.key, session.experiment)
        if source.stated:
            session.warn(
                f"{path} says nothing of itself: it is taken to want images as training here "
                f"prepares them, model.num_select is {source.metadata.num_select}, and its "
                "classes have no names"
            )
        batch, profile = batches(session, source)
        graph = source.model if batch is None else with_batch(source.model, batch)
    session.phases.enter(Phase.OTHER)
    made = typed(graph, cfg.tensorrt, lambda: open_calibration(session, path, source.size))
    with files.folder() as folder:
        onnx = folder / names.onnx
        save(made.model, onnx, session.key)
        request = Request(
            profile=profile if batch is None else None,
            size=source.size,
            workspace_mb=cfg.tensorrt.workspace_size,
            capability=capability,
            timing_cache=read_timing_cache(session, library, cfg),
            verbose=cfg.verbose,
        )
        session.say(f"{library} builds for compute capability {capability}: {path}")
        log = Log(session.say if cfg.verbose else None)
        plain = made.model.SerializeToString() if session.key else onnx
        built = build(library, plain, request, log, session.context.device)
        if request.timing_cache is not None:
            keep_timing_cache(session, Path(cfg.timing_cache), built)
        (folder / names.log).write_text(built.log, encoding="utf-8", errors="backslashreplace")
        replace_with(folder / names.engine, encrypted(lambda s: s.write(built.plan), session.key))
        record = describe(session, source, made, profile, library, capability, names, folder)
        (folder / names.record).write_text(record.text(), encoding="utf-8")
        if session.stop.requested:
            raise Interrupted
        session.check_latest()
    session.say(f"{files.target}: {summary(record)}")


def made_before(session: Session, files: ModelFiles) -> bool:
    """Whether an earlier start of this job has made all files, and was ended before it could say
    so. What it has made of them only in part, or of another ONNX file, is removed."""
    try:
        record = read_record(files.target)
    except RequestError:
        return False
    own = {files.target.name: record.engine_sha256, record.onnx: record.onnx_sha256}
    own |= {record.build_log: record.build_log_sha256}
    left = files.left_by(session.start, record.claim, own)
    source = Path(session.experiment.gen_trt_engine.onnx_file)
    if files.target in left and record.source_onnx_sha256 == sha256_of(source):
        session.say(f"{files.target} is there: an earlier start of this job has made it")
        return True
    if session.start is not None and session.start.claim == record.claim:
        for path in (*left, engine_record(files.target)):
            path.unlink()
    return False


def builder(session: Session) -> tuple[TensorRt, str]:
    """What builds, and the compute capability that it builds for.

    Raises:
        RequestError: ONNX Runtime builds no engines, or nothing says for which GPU to build.
        SiteError: TensorRT or its GPU is missing.
    """
    asked = session.deploy
    if asked.runtime == ONNX_RUNTIME:
        raise RequestError(
            f"--runtime: found {ONNX_RUNTIME}, which runs the ONNX file itself; gen_trt_engine "
            "builds with tensorrt or tensorrt_rtx"
        )
    library = open_tensorrt(asked.runtime)
    device = session.context.device
    return library, capability_to_build_for(library, asked.compute_capability, device)


def batches(session: Session, source: SourceGraph) -> tuple[int | None, Profile]:
    """The fixed batch of the engine, or None where it takes several, and those that it takes.

    Raises:
        RequestError: the ONNX file has another fixed batch.
    """
    cfg = session.experiment.gen_trt_engine
    asked = cfg.batch_size if cfg.batch_size > 0 else None
    if source.batch is not None and asked not in (None, source.batch):
        raise RequestError(
            f"gen_trt_engine.batch_size: found {asked}; {cfg.onnx_file} takes batches of "
            f"{source.batch}. Allowed: that, -1, or a file that was exported with "
            "export.batch_size=-1"
        )
    fixed = source.batch or asked
    if fixed is None:
        tensorrt = cfg.tensorrt
        return None, Profile(
            tensorrt.min_batch_size, tensorrt.opt_batch_size, tensorrt.max_batch_size
        )
    session.say(
        f"the engine takes {fixed} image{'s' * (fixed > 1)} at once, as its ONNX graph does"
    )
    return fixed, Profile(fixed, fixed, fixed)


def build(
    library: TensorRt, onnx: Path | bytes, request: Request, log: Log, device: torch.device
) -> Built:
    """`library.build`, on the GPU that is the job's where there is one."""
    if device.type != "cuda":
        return library.build(onnx, request, log)
    with torch.cuda.device(device):
        return library.build(onnx, request, log)


def read_timing_cache(session: Session, library: TensorRt, cfg: GenTrtEngineConfig) -> bytes | None:
    """What an earlier build has left, empty where there is none; None where none is wanted."""
    if not cfg.timing_cache:
        return None
    if not library.times_kernels:
        session.warn(
            f"gen_trt_engine.timing_cache: {library.name} times no kernels when it builds, and "
            "neither reads nor writes one"
        )
        return None
    try:
        return read_file(Path(cfg.timing_cache))
    except FileNotFoundError:
        return b""


def keep_timing_cache(session: Session, path: Path, built: Built) -> None:
    """For the next build.

    Raises:
        ActionError: it cannot be written.
    """
    if built.timing_cache is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, built.timing_cache)
        except OSError as error:
            raise writing_error(error, path) from None
    else:
        session.warn(
            f"gen_trt_engine.timing_cache: {path} is damaged, or of another GPU or version of "
            "TensorRT: it was not used, and is left as it is. Name another file"
        )


def describe(
    session: Session,
    source: SourceGraph,
    made: Typed,
    profile: Profile,
    library: TensorRt,
    capability: str,
    names: EngineNames,
    folder: Path,
) -> EngineRecord:
    """The record of the engine in a folder."""
    cfg, device = session.experiment.gen_trt_engine, session.context.device
    metadata, path = source.metadata, Path(cfg.onnx_file)
    named = metadata.classes
    height, width = source.size
    here = capability_here(device) == capability
    return EngineRecord(
        version=__version__,
        engine_sha256=sha256_of(folder / names.engine),
        onnx=names.onnx,
        onnx_sha256=sha256_of(folder / names.onnx),
        source_onnx=str(path),
        source_onnx_sha256=sha256_of(path),
        checkpoint=metadata.checkpoint,
        checkpoint_sha256=metadata.checkpoint_sha256,
        epoch=metadata.epoch,
        runtime=library.name,
        runtime_version=library.version,
        compute_capability=capability,
        gpu=torch.cuda.get_device_name(device) if here else None,
        precision=cfg.tensorrt.data_type,
        int8_share=made.int8_share,
        higher_precision=made.higher_precision,
        height=height,
        width=width,
        profile=profile,
        num_queries=source.num_queries,
        num_classes=source.num_classes,
        classes=None if named is None else {str(i): name for i, name in named.items()},
        thresholds=metadata.thresholds,
        num_select=metadata.num_select,
        build_log=names.log,
        build_log_sha256=sha256_of(folder / names.log),
        claim=None if session.start is None else session.start.claim,
        preserve_aspect_ratio=metadata.preserve_aspect_ratio,
    )


def summary(record: EngineRecord) -> str:
    """One line for people."""
    said = f"{record.precision}, {record.runtime} {record.runtime_version}, compute capability "
    said += f"{record.compute_capability}, {record.height}x{record.width}, batches {record.profile}"
    if record.precision == "INT8":
        said += f"; {record.int8_share:.0%} of the multiply-adds in INT8"
    return said
