"""gen_trt_engine: what it leaves, what it says, and what it never leaves half."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from engine_support import Workspace, open_workspace, stopping_at
from onnx_support import METADATA, exported, tiny_detector

from rtdetr_slurm.deploy.actions.gen_trt_engine import gen_trt_engine
from rtdetr_slurm.deploy.detector import open_detector
from rtdetr_slurm.deploy.record import EngineRecord, Profile, read_record
from rtdetr_slurm.deploy.tensorrt import Built, TensorRt
from rtdetr_slurm.engine.process.arguments import DeployOptions
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.engine.process.stop import Interrupted
from rtdetr_slurm.errors import ActionError, RequestError, UserError
from rtdetr_slurm.files import sha256_of
from rtdetr_slurm.runs.claim import Start
from rtdetr_slurm.vision import timing

CPU = torch.device("cpu")
SIZE = (64, 96)
KEY = "a key of some length"
ELSEWHERE = DeployOptions(compute_capability="8.9")
FILES = ["rtdetr.engine", "rtdetr.engine.json", "rtdetr.engine.log", "rtdetr.engine.onnx"]
LEFT = ["parity.json", *FILES]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    folder = tmp_path_factory.mktemp("work")
    with open_workspace(folder) as opened, pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "PACE", timing.Pace(0, 1, 0, 0))
        yield opened


@pytest.fixture(scope="module")
def source(workspace: Workspace) -> Path:
    return exported(workspace.root, tiny_detector(num_classes=4), SIZE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "made"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what happens around a build."""
    built = Built(b"a plan", None, "INFO: built\n")
    monkeypatch.setattr(TensorRt, "build", lambda *arguments: built)


def session_of(workspace: Workspace, source: Path, folder: Path, *overrides: str) -> Session:
    own = (f"gen_trt_engine.onnx_file={source}", f"gen_trt_engine.results_dir={folder}")
    session = workspace.session(*own, *overrides, name="gen_trt_engine")
    return replace(session, deploy=ELSEWHERE)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def as_recorded(engine: Path) -> EngineRecord:
    """The record of an engine, all of whose digests are right."""
    record = read_record(engine)
    assert record.engine_sha256 == sha256_of(engine)
    assert record.onnx_sha256 == sha256_of(engine.with_name(record.onnx))
    assert record.build_log_sha256 == sha256_of(engine.with_name(record.build_log))
    return record


def test_what_is_left(workspace: Workspace, source: Path, folder: Path, capsys: Any) -> None:
    half = "gen_trt_engine.tensorrt={data_type: fp16, min_batch_size: 2, opt_batch_size: 3}"
    assert gen_trt_engine(session_of(workspace, source, folder, half)) == {}
    assert files_in(folder) == LEFT
    record = as_recorded(folder / "rtdetr.engine")
    assert (record.precision, record.compute_capability, record.profile) == (
        *("FP16", "8.9", Profile(2, 3, 4)),
    )
    assert (record.size, record.num_queries, record.num_classes) == (SIZE, 10, 4)
    assert record.metadata == replace(METADATA, version=record.version)
    assert (record.source_onnx, record.source_onnx_sha256) == (str(source), sha256_of(source))
    assert (record.runtime, record.gpu, record.claim) == ("tensorrt_rtx", None, None)
    log = (folder / record.build_log).read_text()
    assert "Engine generation completed" in log
    assert "VERBOSE" not in log
    said = capsys.readouterr().out
    assert f"rtdetr.engine: FP16, tensorrt_rtx {record.runtime_version}, compute cap" in said
    # What it was built from runs anywhere, and says of itself what the export did.
    detector = open_detector(folder / "rtdetr.engine", "onnxruntime", CPU)
    assert detector.metadata == METADATA
    images = torch.rand(3, 3, *SIZE)
    found, expected = detector(images), open_detector(source, None, CPU)(images)
    # Every box is there; in FP16 two queries of an untrained detector may change places.
    apart = torch.cdist(found["pred_boxes"], expected["pred_boxes"], p=torch.inf)
    assert apart.amin(1).max() < 0.05
    assert apart.amin(2).max() < 0.05
    with pytest.raises(RequestError, match=r"rtdetr\.engine\.json exists already, and is not over"):
        gen_trt_engine(session_of(workspace, source, folder, half))


def test_a_fixed_batch_of_a_file_that_says_nothing(
    workspace: Workspace, source: Path, folder: Path, capsys: Any
) -> None:
    """And every word of TensorRT, where that is asked for."""
    model = onnx.load(source)
    del model.metadata_props[:]
    silent = folder.with_name("silent.onnx")
    onnx.save_model(model, str(silent))
    given = ("gen_trt_engine.batch_size=3", "gen_trt_engine.verbose=true", "model.num_select=7")
    cache = folder.with_name("timing.cache")
    gen_trt_engine(
        session_of(workspace, silent, folder, *given, f"gen_trt_engine.timing_cache={cache}")
    )
    record = as_recorded(folder / "rtdetr.engine")
    assert (record.profile, record.num_select, record.classes) == (Profile(3, 3, 3), 7, None)
    assert record.checkpoint_sha256 == ""
    detector = open_detector(folder / "rtdetr.engine", "onnxruntime", CPU)
    assert (detector.max_batch, detector.metadata.num_select) == (3, 7)
    assert detector(torch.zeros(4, 3, *SIZE))["pred_logits"].shape == (4, 10, 4)
    told = capsys.readouterr()
    assert "silent.onnx says nothing of itself" in told.err
    assert "timing_cache: tensorrt_rtx times no kernels" in told.err
    assert not cache.exists()
    assert "rtdetr: VERBOSE: " in told.out
    assert "VERBOSE: " in (folder / record.build_log).read_text()


@pytest.mark.usefixtures("quick")
class TestAroundTheBuild:
    def test_with_a_key_nothing_is_left_that_others_can_read(
        self, workspace: Workspace, source: Path, folder: Path
    ) -> None:
        session = session_of(workspace, source, folder)
        gen_trt_engine(replace(session, key=KEY))
        assert files_in(folder) == LEFT
        record = as_recorded(folder / "rtdetr.engine")
        assert b"a plan" not in (folder / "rtdetr.engine").read_bytes()
        with pytest.raises(RequestError, match="is encrypted"):
            open_detector(folder / "rtdetr.engine", "onnxruntime", CPU)
        detector = open_detector(folder / "rtdetr.engine", "onnxruntime", CPU, KEY)
        assert detector.metadata.checkpoint == record.checkpoint

    def test_a_start_finds_what_the_one_before_has_made(
        self, workspace: Workspace, source: Path, folder: Path, capsys: Any
    ) -> None:
        def start(claim: str, restart: int) -> None:
            session = session_of(workspace, source, folder)
            gen_trt_engine(replace(session, start=Start(claim, restart)))

        engine = folder / "rtdetr.engine"
        start("run:gen_trt_engine", 0)
        first = engine.stat().st_mtime_ns
        start("run:gen_trt_engine", 1)
        assert engine.stat().st_mtime_ns == first
        assert "an earlier start of this job has made it" in capsys.readouterr().out
        with pytest.raises(RequestError, match="exists already"):
            start("another:gen_trt_engine", 0)
        model = onnx.load(source)
        model.doc_string = "another"
        onnx.save(model, source)
        start("run:gen_trt_engine", 1)
        assert engine.stat().st_mtime_ns != first
        engine.unlink()  # killed after the record had its name, and before the engine had
        start("run:gen_trt_engine", 2)
        as_recorded(engine)

    def test_a_build_that_fails_leaves_nothing(
        self, workspace: Workspace, source: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*arguments: Any) -> Built:
            raise ActionError("TensorRT cannot")

        monkeypatch.setattr(TensorRt, "build", fail)
        with pytest.raises(ActionError, match="TensorRT cannot"):
            gen_trt_engine(session_of(workspace, source, folder))
        assert files_in(folder) == []

    def test_interrupted(self, workspace: Workspace, source: Path, folder: Path) -> None:
        with pytest.raises(Interrupted):
            gen_trt_engine(stopping_at(session_of(workspace, source, folder), 0))
        assert files_in(folder) == []

    def test_the_file_that_the_spec_names(
        self, workspace: Workspace, source: Path, folder: Path
    ) -> None:
        named = f"gen_trt_engine.trt_engine={folder}/l4/detector.plan"
        gen_trt_engine(session_of(workspace, source, folder, named))
        as_recorded(folder / "l4" / "detector.plan")
        assert len(files_in(folder / "l4")) == len(FILES)
        assert files_in(folder) == ["l4", "parity.json"]

    def test_a_batch_that_the_file_has_not(self, workspace: Workspace, folder: Path) -> None:
        folder.mkdir()
        fixed = exported(folder, tiny_detector(num_classes=4), SIZE, batch=2)
        given = ("gen_trt_engine.batch_size=3", f"gen_trt_engine.trt_engine={folder}/a.engine")
        with pytest.raises(RequestError, match=r"batch_size: found 3; .* takes batches of 2"):
            gen_trt_engine(session_of(workspace, fixed, folder, *given))
        gen_trt_engine(session_of(workspace, fixed, folder, given[1]))
        assert as_recorded(folder / "a.engine").profile == Profile(2, 2, 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "nobody says for which GPU to build"),
        (("--compute-capability", "9.9"), "--compute-capability: found 9.9; tensorrt_rtx"),
        (("--runtime", "onnxruntime"), "--runtime: found onnxruntime, which runs the ONNX file"),
        (("--runtime", "tensorrt"), "no module tensorrt"),
    ],
)
def test_what_cannot_be_built(
    workspace: Workspace,
    source: Path,
    folder: Path,
    arguments: tuple[str, ...],
    said: str,
) -> None:
    session = session_of(workspace, source, folder)
    names = [one.removeprefix("--").replace("-", "_") for one in arguments[::2]]
    options = DeployOptions(**dict(zip(names, arguments[1::2], strict=True)))
    with pytest.raises(UserError, match=said):
        gen_trt_engine(replace(session, deploy=options))
    assert files_in(folder) == []


@pytest.mark.usefixtures("quick")
def test_an_engine_that_loses_too_much_is_set_aside(
    workspace: Workspace, source: Path, folder: Path
) -> None:
    """With all that belongs to it; another may be built in the folder."""
    session = session_of(workspace, source, folder)
    with pytest.raises(ActionError, match=r"The engine is kept as .*/rejected/rtdetr\.engine$"):
        gen_trt_engine(replace(session, deploy=replace(ELSEWHERE, max_map_drop=-1)))
    left = files_in(folder)
    assert not [name for name in left if name.startswith("rtdetr.engine")]
    assert {"rejected", "parity.json"} <= {*left}
    rejected = open_detector(folder / "rejected" / "rtdetr.engine", "onnxruntime", CPU)
    assert rejected.size == SIZE
