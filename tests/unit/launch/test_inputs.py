"""What the inputs of a stage are filled with."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from launch_support import STAGE, claim_results, make_run, write_checkpoint

from rtdetr_slurm.contract import Status
from rtdetr_slurm.errors import ActionError
from rtdetr_slurm.launch.inputs import INPUTS_JSON, filled_in, resolve_inputs
from rtdetr_slurm.launch.node import input_binds
from rtdetr_slurm.plan.model import Array, Bind, Input, Origin, Stage, StageTask
from rtdetr_slurm.runs.claim import claim_id, new_claim, take
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.status import StatusLog


def trained(results: Path) -> Path:
    """Three checkpoints, the second the best."""
    status = StatusLog(results / "status.json")
    for epoch, metric in enumerate((0.1, 0.5, 0.3)):
        write_checkpoint(results / f"model_epoch_{epoch:03d}.pth")
        status.write(Status.RUNNING, epoch=epoch, kpi={"val_mAP": metric})
    return results / "model_epoch_001.pth"


def evaluate(results: Path, *inputs: Input) -> Stage:
    return replace(
        STAGE, name="evaluate", action="evaluate", results_dir=str(results), inputs=inputs
    )


def chain(root: Path, *inputs: Input) -> tuple[Run, Stage]:
    stage = evaluate(root / "results" / "evaluate", *inputs)
    train = replace(STAGE, results_dir=str(root / "results" / "train"))
    return make_run(root, train, stage, spec={"evaluate": {"checkpoint": ""}}), stage


def test_the_best_checkpoint_of_a_stage_before(tmp_path: Path) -> None:
    model = Input("evaluate.checkpoint", "parent_model", Origin("train"))
    run, stage = chain(tmp_path, Input("evaluate.results_dir", "output_dir"), model)
    [task] = stage.tasks()
    with pytest.raises(ActionError, match=r"evaluate\.checkpoint from train: there is no whole ch"):
        resolve_inputs(run, task)
    best = trained(tmp_path / "results" / "train")
    values = resolve_inputs(run, task)
    assert [one.source for one in values] == ["output_dir", "parent_model of train"]
    assert filled_in(run.spec, values) == {
        "evaluate": {"checkpoint": str(best), "results_dir": stage.results_dir}
    }
    assert values[1].about == "epoch 1, val_mAP 0.5000"
    # A damaged file is never handed on.
    best.write_bytes(best.read_bytes()[:100])
    assert resolve_inputs(run, task)[1].value.endswith("model_epoch_002.pth")


def test_what_another_run_leaves_in_the_same_folder_is_not_taken(tmp_path: Path) -> None:
    """It may claim the folder as soon as the training there has ended."""
    model = Input("evaluate.checkpoint", "parent_model", Origin("train"))
    run, stage = chain(tmp_path, model)
    [task] = stage.tasks()
    best = trained(tmp_path / "results" / "train")
    claim = claim_results(run, StageTask(run.plan.stages[0]), continues=True)
    assert resolve_inputs(run, task)[0].value == str(best)
    other = make_run(tmp_path, STAGE, run_id="train-20260102-030405-beef")
    take(best.parent, new_claim(claim_id(other.id, "train"), run_dir=str(other.path)), claim)
    with pytest.raises(ActionError, match=f"belongs to run {other.id} .*no longer to train: cont"):
        resolve_inputs(run, task)


def test_the_checkpoint_that_was_chosen(tmp_path: Path) -> None:
    trained(tmp_path / "results" / "train")
    for choice, name in (("last", "002"), ("epoch:0", "000")):
        model = Input("evaluate.checkpoint", "parent_model", Origin("train"), choice=choice)
        run, stage = chain(tmp_path / choice, model)
        shutil.copytree(tmp_path / "results", run.path.parent / "results")
        [value] = resolve_inputs(run, stage.tasks()[0])
        assert value.value.endswith(f"model_epoch_{name}.pth")
        assert value.source == f"parent_model ({choice}) of train"
    model = replace(model, choice="epoch:7")
    run, stage = chain(tmp_path / "none", model)
    with pytest.raises(ActionError, match="from train: there is no checkpoint of epoch 7"):
        resolve_inputs(run, stage.tasks()[0])


def test_a_training_goes_on_only_where_epochs_are_left(tmp_path: Path) -> None:
    """What a queued run will have left by its end, `submit` does not know."""
    trained(tmp_path / "elsewhere")
    parent = replace(STAGE, results_dir=str(tmp_path / "elsewhere"))
    origin = Origin(
        "train", str(make_run(tmp_path, parent, run_id="train-20260101-000000-aaaa").path)
    )
    resumed = Input("train.resume_training_checkpoint_path", "resume_model", origin, choice="best")
    train = replace(STAGE, inputs=(resumed,), results_dir=str(tmp_path / "train"))
    for epochs, left in ((3, True), (2, False)):
        run = make_run(tmp_path / str(epochs), train, spec={"train": {"num_epochs": epochs}})
        if left:
            assert resolve_inputs(run, train.tasks()[0])[0].value.endswith("model_epoch_001.pth")
            continue
        with pytest.raises(ActionError, match=r"num_epochs is 2, and .* has 2 of them behind it"):
            resolve_inputs(run, train.tasks()[0])


def test_files_of_a_chain_to_the_engine(tmp_path: Path) -> None:
    """Each stage takes what the one before has made, wherever the spec has sent that."""
    names = ("export", "gen_trt_engine", "trt_evaluate")
    export, build, score = (
        replace(STAGE, name=name, action=name, results_dir=str(tmp_path / name)) for name in names
    )
    onnx = Input("gen_trt_engine.onnx_file", "parent_model", Origin("export"))
    engine = Input("evaluate.trt_engine", "parent_model", Origin("gen_trt_engine"))
    export = replace(export, inputs=(Input("export.onnx_file", "create_onnx_file"),))
    build = replace(build, inputs=(Input("gen_trt_engine.trt_engine", "create_engine_file"), onnx))
    score = replace(score, inputs=(engine,))
    run = make_run(tmp_path, export, build, score, spec={"export": {"onnx_file": ""}})

    def values(stage: Stage) -> dict[str, str]:
        return {one.field: one.value for one in resolve_inputs(run, stage.tasks()[0])}

    model = tmp_path / "export" / "rtdetr.onnx"
    assert values(export) == {"export.onnx_file": str(model)}
    with pytest.raises(
        ActionError, match=r"onnx_file from export: an ONNX file was expected: .*no"
    ):
        values(build)
    model.parent.mkdir()
    model.touch()
    with pytest.raises(ActionError, match=r"rtdetr\.onnx is empty"):
        values(build)
    model.write_bytes(b"onnx")
    built = tmp_path / "gen_trt_engine" / "rtdetr.engine"
    assert values(build) == {
        "gen_trt_engine.trt_engine": str(built), "gen_trt_engine.onnx_file": str(model)
    }  # fmt: skip
    built.parent.mkdir()
    built.write_bytes(b"engine")
    assert values(score) == {"evaluate.trt_engine": str(built)}
    mine = tmp_path / "mine.onnx"
    mine.write_bytes(b"onnx")
    given = make_run(
        tmp_path, export, build, spec={"export": {"onnx_file": str(mine)}},
        run_id="train-20260102-030405-bbbb",
    )  # fmt: skip
    assert resolve_inputs(given, build.tasks()[0])[1].value == str(mine)


def inputs_json(value: Path) -> str:
    return json.dumps([{"field": "evaluate.checkpoint", "value": str(value), "source": "it"}])


def test_a_checkpoint_of_another_run(tmp_path: Path) -> None:
    train = replace(STAGE, results_dir=str(tmp_path / "elsewhere"))
    parent = make_run(tmp_path, train, run_id="train-20260101-000000-aaaa")
    best = trained(tmp_path / "elsewhere")
    model = Input("evaluate.checkpoint", "parent_model", Origin("train", str(parent.path)))
    run, stage = chain(tmp_path, model)
    [task] = stage.tasks()
    [value] = resolve_inputs(run, task)
    assert (value.value, value.source) == (
        str(best),
        "parent_model of train of train-20260101-000000-aaaa",
    )
    # The container must see it.
    (run.job_dir("evaluate") / INPUTS_JSON).write_text(inputs_json(best))
    assert input_binds(run, task) == (Bind(str(best), str(best), read_only=True),)
    (run.job_dir("evaluate") / INPUTS_JSON).write_text(inputs_json(run.path / "x"))
    assert input_binds(run, task) == ()


def test_a_file_by_its_address(tmp_path: Path) -> None:
    weights = tmp_path / "a b.pth"
    one = Input("evaluate.checkpoint", "fetch", uri=f"file://{tmp_path}/a%20b.pth")
    run, stage = chain(tmp_path, one)
    [task] = stage.tasks()
    with pytest.raises(ActionError, match=r"evaluate\.checkpoint: file:///.* does not exist on"):
        resolve_inputs(run, task)
    weights.touch()
    assert resolve_inputs(run, task)[0].value == str(weights)


def test_each_task_of_an_array_has_a_results_folder_of_its_own(tmp_path: Path) -> None:
    run, stage = chain(tmp_path, Input("evaluate.results_dir", "output_dir"))
    tasks = replace(stage, array=Array(2)).tasks()
    folders = [resolve_inputs(run, task)[0].value for task in tasks]
    assert folders == [f"{stage.results_dir}/0", f"{stage.results_dir}/1"]
    assert run.job_dir(tasks[1].name) == run.path / "jobs" / "evaluate.1"


def test_a_function_that_is_not_known_is_an_error(tmp_path: Path) -> None:
    run, stage = chain(tmp_path, Input("evaluate.checkpoint", "guess"))
    with pytest.raises(ActionError, match="no inference function 'guess'"):
        resolve_inputs(run, stage.tasks()[0])
