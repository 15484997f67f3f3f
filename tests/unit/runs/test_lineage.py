"""From an engine back to the data: whatever changes on the way is named."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from launch_support import STAGE, claim_results, make_run, write_checkpoint

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.cli.main import main
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.files import sha256_of
from rtdetr_slurm.plan.model import Container, Dependency, Image, Origin, StageTask
from rtdetr_slurm.runs.artefacts import made_files
from rtdetr_slurm.runs.images import FileRecord, ImageRecord
from rtdetr_slurm.runs.lineage import lineage_of, sources_of
from rtdetr_slurm.runs.run import Run, open_run


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """An engine of a chain whose every file is there."""
    image, data = tmp_path / "image.sif", tmp_path / "train.json"
    image.write_text("an image")
    data.write_text("{}")
    train = replace(STAGE, container=Container(Image(str(image)), ()))
    export, build = (
        replace(
            train,
            name=name,
            action=name,
            results_dir=f"/runs/r/results/{name}",
            depends_on=(Dependency(Origin(before)),),
        )
        for name, before in (("export", "train"), ("gen_trt_engine", "export"))
    )
    run = recorded(make_run(tmp_path, train, export, build), image, data)
    for stage in run.plan.stages:
        claim_results(run, StageTask(stage))
    results = run.path / "results"
    checkpoint = write_checkpoint(results / "train" / "model_epoch_003.pth")
    best = {"file": checkpoint.name, "epoch": 3, "metric": 0.5, "sha256": sha256_of(checkpoint)}
    run.record("started", stage="train", manifest_sha256=sha256_of(run.path / "run.json"))
    run.record("finished", stage="train", state="success", checkpoints={"best": best})
    onnx = results / "export" / "rtdetr.onnx"
    onnx.write_text("a network")
    told = {
        "onnx_file": str(onnx),
        "onnx_sha256": sha256_of(onnx),
        "files": {onnx.name: sha256_of(onnx)},
        "checkpoint": str(checkpoint),
        "checkpoint_sha256": sha256_of(checkpoint),
    }
    onnx.with_name("export.json").write_text(json.dumps(told))
    made = results / "gen_trt_engine" / "rtdetr.engine"
    for name in ("rtdetr.engine", "rtdetr.engine.onnx", "rtdetr.engine.log"):
        made.with_name(name).write_text(name)
    record = {
        "engine_sha256": sha256_of(made),
        "onnx": "rtdetr.engine.onnx",
        "onnx_sha256": sha256_of(made.with_name("rtdetr.engine.onnx")),
        "build_log": "rtdetr.engine.log",
        "build_log_sha256": sha256_of(made.with_name("rtdetr.engine.log")),
        "source_onnx": str(onnx),
        "source_onnx_sha256": sha256_of(onnx),
        "checkpoint_sha256": sha256_of(checkpoint),
    }
    made.with_name("rtdetr.engine.json").write_text(json.dumps(record))
    taken = {"field": "gen_trt_engine.onnx_file", "value": str(onnx), "sha256": sha256_of(onnx)}
    run.record("resolved", stage="gen_trt_engine", inputs=[taken])
    for stage in run.plan.stages[1:]:
        files = made_files_of(run, stage.name)
        run.record("finished", stage=stage.name, state="success", made=files)
    return made


def recorded(run: Run, image: Path, data: Path) -> Run:
    """The run with the digests of its image and its data in run.json."""
    files = {str(path): FileRecord(str(path), 1, "0" * 64, sha256_of(path)) for path in (data,)}
    images = {str(image): ImageRecord(str(image), 1, "0" * 64, sha256_of(image))}
    manifest = replace(run.manifest, images=images, files=files)
    (run.path / "run.json").write_text(json.dumps(asdict(manifest)))
    return open_run(run.path)


def made_files_of(run: Run, name: str) -> dict[str, str]:
    stage = run.plan.stage(name)
    return made_files(get_action(stage.action), Path(stage.results_dir), run.spec)


def test_a_whole_chain_is_followed_to_its_data(engine: Path) -> None:
    found = lineage_of(engine)
    assert (found.broken, found.unknown) == ([], ())
    assert {link.what for link in found.links} == {
        *("engine", "network", "build log", "ONNX file", "checkpoint", "spec", "image", "data"),
        *("record", "input", "result"),
    }
    onnx, checkpoint = sources_of(engine)
    assert (onnx.name, checkpoint.name) == ("rtdetr.onnx", "model_epoch_003.pth")
    assert list(sources_of(onnx)) == [checkpoint]
    assert list(sources_of(checkpoint)) == []
    assert lineage_of(onnx).broken == lineage_of(checkpoint).broken == []


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("results/gen_trt_engine/rtdetr.engine", "engine"),
        ("results/gen_trt_engine/rtdetr.engine.onnx", "network"),
        ("results/gen_trt_engine/rtdetr.engine.log", "build log"),
        ("results/gen_trt_engine/rtdetr.engine.json", "result"),
        ("results/export/rtdetr.onnx", "ONNX file"),
        ("results/export/export.json", "result"),
        ("results/train/model_epoch_003.pth", "checkpoint"),
        ("spec.yaml", "spec"),
        ("run.json", "record"),
        ("../image.sif", "image"),
        ("../train.json", "data"),
    ],
)
def test_one_changed_byte_is_named(
    engine: Path, name: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever it is: in a file, or in what its record says of it."""
    path = engine.parents[2] / name
    whole = path.read_bytes()
    for at in {0, len(whole) // 2, len(whole) - 2}:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        found = lineage_of(engine)
        assert path.resolve() in {link.path.resolve() for link in found.broken}, (at, found.broken)
    path.write_bytes(whole + b" ")
    found = lineage_of(engine)
    assert what in {link.what for link in found.broken}
    assert main(["verify", str(engine)]) == 1
    assert f"BROKEN  {what}" in capsys.readouterr().out
    path.write_bytes(b"")
    assert main(["verify", str(engine), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["outcome"] == "broken"
    if path != engine:
        path.unlink()
        assert main(["verify", str(engine)]) == 1


def test_what_is_not_known_is_said(engine: Path, tmp_path: Path) -> None:
    (engine.parents[1] / "export" / "export.json").unlink()
    assert any("was exported from" in line for line in lineage_of(engine).unknown)
    alone = tmp_path / "model.pth"
    alone.write_text("weights")
    assert lineage_of(alone).links == ()
    assert "which run has made" in lineage_of(alone).unknown[0]
    with pytest.raises(RequestError, match="is no file"):
        lineage_of(tmp_path / "nothing")


def test_a_record_may_say_anything(engine: Path) -> None:
    """It names no file beside it, a device that never ends, or what is none of ours."""
    record = engine.with_name("rtdetr.engine.json")
    told = json.loads(record.read_text())
    for field, value in {"onnx": "../x\n", "build_log": "/dev/zero", "source_onnx": ""}.items():
        record.write_text(json.dumps(told | {field: value}))
        assert lineage_of(engine).broken
    record.write_text("[]")
    assert "record" in {link.what for link in lineage_of(engine).broken}
