"""`rtdetr-deploy sweep`: how much smaller and faster one checkpoint can be without training."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rtdetr_slurm import __version__
from rtdetr_slurm.contract import REPORT_HTML, SWEEP_JSON, SWEEP_VERSION, Env, ExitCode
from rtdetr_slurm.deploy import clocks
from rtdetr_slurm.deploy.actions.gen_trt_engine import engine_of
from rtdetr_slurm.deploy.detector import ONNX_RUNTIME, open_detector
from rtdetr_slurm.deploy.forms import form_of
from rtdetr_slurm.deploy.measure import IMAGES, score_form
from rtdetr_slurm.deploy.parity import Scored, described, timed_note
from rtdetr_slurm.deploy.precision import typed
from rtdetr_slurm.deploy.precision.calibration import open_calibration
from rtdetr_slurm.deploy.record import Precision, read_record
from rtdetr_slurm.deploy.source import read_graph
from rtdetr_slurm.deploy.variants import Asked, Shape, parser
from rtdetr_slurm.engine.actions.export import describe as metadata_of
from rtdetr_slurm.engine.comparison import Compared, comparison
from rtdetr_slurm.engine.detector import trained_detector
from rtdetr_slurm.engine.onnx_graph import save, trace
from rtdetr_slurm.engine.process import distributed, loading
from rtdetr_slurm.engine.process.arguments import DeployOptions
from rtdetr_slurm.engine.process.results import create_results_folder
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.engine.process.stop import StopFlag
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.spec import load_spec
from rtdetr_slurm.spec.keys import without_key
from rtdetr_slurm.vision.report import Report, render_report
from rtdetr_slurm.vision.tradeoff import Measured, Tradeoff, pareto_front

FOLDER = "sweep"
"""In results_dir."""


@dataclass(frozen=True)
class Tried:
    """One file, scored and timed."""

    shape: Shape
    precision: Precision
    int8_share: float
    scored: Scored

    @property
    def measured(self) -> Measured:
        name = f"{self.shape}-{self.precision.lower()}"
        return replace(self.scored.measured, name=name)


def sweep(argv: Sequence[str]) -> int:
    """Run the command line after `rtdetr-deploy sweep`; returns the exit code.

    Raises:
        UserError: whatever a user can do something about. What was tried before stays.
    """
    options = parser().parse_intermixed_args(argv)
    asked = Asked(options.eval_idx, options.num_queries, options.size, options.precision)
    session = open_session(options.spec, options.overrides, options.runtime)
    experiment = session.experiment
    shapes, precisions = asked.shapes(experiment), asked.precisions(experiment)
    tried: list[Tried] = []
    for shape in shapes:
        compared = comparison(session, shape.size, IMAGES[session.context.device.type])
        if compared.data is None:
            raise RequestError(f"a sweep needs annotated images to score on: {compared.why}")
        for one in try_shape(session, shape, precisions, compared):
            tried.append(one)
            best, first = one.scored, one.scored.latency[0]
            session.say(
                f"{one.measured.name}: mAP {best.mean_ap:.4f}, {first.p50:.2f} ms "
                f"({len(tried)} of {len(shapes) * len(precisions)})"
            )
            write(session, tried, compared)
    print(session.results_dir / SWEEP_JSON)
    return ExitCode.OK


def open_session(spec: Path, overrides: Sequence[str], runtime: str | None) -> Session:
    """One rank, in this process, for the spec of an export of which engines are then built.

    Raises:
        RequestError: the spec is wrong, or an earlier sweep has left its results in the folder.
        SiteError: this machine lacks what is needed.
    """
    _, key = without_key(overrides)
    if key is not None:
        raise RequestError(
            "encryption_key: other users of this machine see a command line: give the key in the "
            f"environment, as {Env.ENCRYPTION_KEY}"
        )
    loaded = load_spec(spec, [*overrides, "job.then=[gen_trt_engine]"], "export")
    loaded = loaded.with_key_of(os.environ)
    if not loaded.experiment.results_dir:
        raise RequestError(f"results_dir is not set: it is where the folder {FOLDER} is made")
    folder = Path(loaded.experiment.results_dir, FOLDER)
    if (folder / SWEEP_JSON).exists():
        raise RequestError(
            f"{folder / SWEEP_JSON} exists already, and is not overwritten: remove the folder, or "
            "choose another results_dir"
        )
    create_results_folder(folder)
    loading.start_server()
    context = distributed.join(distributed.choose_accelerator(os.environ.get(Env.ACCELERATOR)))
    chosen = runtime or ("tensorrt" if context.device.type == "cuda" else ONNX_RUNTIME)
    stop = StopFlag()
    stop.listen()
    session = Session(
        name="gen_trt_engine",
        experiment=loaded.experiment,
        resolved=loaded.resolved(),
        context=context,
        results_dir=folder,
        stop=stop,
        skip_bad_images=loaded.job.bad_images == "skip",
        key=loaded.key,
        deploy=DeployOptions(chosen),
    )
    for note in loaded.notes:
        session.say(note)
    session.say(f"runs in {chosen}, on {context.device.type}")
    return session


def try_shape(
    session: Session, shape: Shape, precisions: Sequence[Precision], compared: Compared
) -> Iterator[Tried]:
    """Make the file of a shape in each precision, and score and time it."""
    experiment = session.experiment
    cfg, path = experiment.export, Path(experiment.export.checkpoint)
    model = shape.model(experiment.model, experiment.dataset.num_classes)
    detector = trained_detector(session, path, model, is_quantized=cfg.is_quantized)
    metadata = replace(metadata_of(session, detector, path), num_select=model.num_select)
    folder = session.results_dir / str(shape)
    graph = trace(
        detector.model,
        shape.size,
        batch=None,
        opset=cfg.opset_version,
        metadata=metadata.properties(),
    )
    folder.mkdir(parents=True, exist_ok=True)
    onnx = folder / "rtdetr.onnx"
    save(graph, onnx, session.key)
    inside = replace(session, results_dir=folder)
    for precision in precisions:
        made, int8_share = made_in(precision, inside, onnx)
        opened = open_detector(made, session.deploy.runtime, session.context.device, session.key)
        scored = score_form(session, form_of(session, made, opened), opened, compared)
        assert scored is not None  # one rank
        yield Tried(shape, precision, int8_share, scored)


def made_in(precision: Precision, session: Session, onnx: Path) -> tuple[Path, float]:
    """The file that is run, in the results folder, and the share of its work in INT8.

    Args:
        onnx: the file that it is made of.
    """
    folder, config = session.results_dir, session.experiment.gen_trt_engine
    # What an earlier calibration has left is of another graph.
    calibration = config.tensorrt.calibration.model_copy(update={"cal_cache_file": ""})
    update = {"data_type": precision, "calibration": calibration}
    tensorrt = config.tensorrt.model_copy(update=update)
    files = {"onnx_file": str(onnx), "trt_engine": str(folder / f"{precision.lower()}.engine")}
    asked = config.model_copy(update={**files, "tensorrt": tensorrt})
    experiment = session.experiment.model_copy(update={"gen_trt_engine": asked})
    session = replace(session, experiment=experiment)
    if session.deploy.runtime == ONNX_RUNTIME:
        source = read_graph(onnx, session.key, experiment)
        path = folder / f"{precision.lower()}.onnx"
        made = typed(source.model, tensorrt, lambda: open_calibration(session, onnx, source.size))
        save(made.model, path, session.key)
        return path, made.int8_share
    engine, _ = engine_of(session)
    return engine, read_record(engine).int8_share


def write(session: Session, tried: Sequence[Tried], compared: Compared) -> None:
    """Replace sweep.json and report.html by all that is known so far."""
    checkpoint = session.experiment.export.checkpoint
    measured = [one.measured for one in tried]
    front = pareto_front(measured)
    facts = {
        "checkpoint": checkpoint,
        "source": compared.source,
        "images": len(compared.data.table) if compared.data else 0,
        "images_of_source": compared.images,
    }
    content = {
        "schema_version": SWEEP_VERSION,
        "version": __version__,
        **facts,
        "timed_with": clocks.clock_facts(),
        "forms": [
            {
                "name": shown.name,
                "eval_idx": one.shape.eval_idx,
                "num_queries": one.shape.num_queries,
                "input_size": list(one.shape.size),
                "int8_share": one.int8_share,
                "on_front": shown in front,
                **described(one.scored),
            }
            for one, shown in zip(tried, measured, strict=True)
        ],
    }
    session.write(SWEEP_JSON, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    report = Report(
        title=f"rtdetr-deploy sweep: {session.results_dir}",
        facts=[(name, str(value)) for name, value in facts.items()],
        tradeoff=Tradeoff(measured, timed_note(compared)),
    )
    session.write(REPORT_HTML, render_report(report))
