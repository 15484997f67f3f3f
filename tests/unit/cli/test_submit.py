"""`submit --dry-run`, and what `status` and `logs` show of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from launch_support import STAGE, local_stage, make_run, write_checkpoint, write_dataset

from rtdetr_slurm.cli.main import main
from rtdetr_slurm.contract import FailureClass, Status
from rtdetr_slurm.runs.artefacts import verified_checkpoints
from rtdetr_slurm.runs.claim import Start, claim_id
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.status import StatusLog

Capture = pytest.CaptureFixture[str]

SITE = """\
name: here
partition: gpu
image: {image}
run_root: {root}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder on the local site, with nothing of the user's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("RTDETR_SLURM_SITE", "local")
    return tmp_path


@pytest.fixture
def site(folder: Path) -> Path:
    image = folder / "train.sif"
    image.write_text("SIF")
    path = folder / "site.yaml"
    path.write_text(SITE.format(image=image, root=folder / "runs"))
    return path


def tree(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_a_dry_run_shows_plan_and_script_and_touches_nothing(
    folder: Path, site: Path, capsys: Capture
) -> None:
    spec = write_dataset(folder / "data")
    before = tree(folder)
    options = ["--dry-run", "--site", str(site), "--name", "first"]
    assert main(["submit", str(spec), "train.num_nodes=2", *options]) == 0
    out, err = capsys.readouterr()
    assert tree(folder) == before
    assert err == ""
    assert "resources 2 nodes × 1 GPU, no time limit of its own, partition gpu" in out
    assert "command   rtdetr train -e spec.yaml" in out
    assert "note        plain training: AutoML has nothing to go by without" in out
    assert "#SBATCH --job-name=first" in out
    assert "#SBATCH --nodes=2" in out


def test_a_dry_run_as_json_is_one_document(folder: Path, site: Path, capsys: Capture) -> None:
    spec = write_dataset(folder / "data")
    assert main(["submit", str(spec), "--dry-run", "--json", "--site", str(site)]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert "plain training" in err
    assert document["plan"]["stages"][0]["name"] == "train"
    assert document["scripts"]["train"].startswith("#!/bin/bash\n")
    assert document["run_dir"].startswith(str(folder / "runs" / "train-"))


def test_options_and_overrides_come_in_any_order(folder: Path, capsys: Capture) -> None:
    spec = write_dataset(folder / "data")
    arguments = ["train.seed=1", "--dry-run", str(spec), "train.seed=2"]
    assert main(["submit", "--json", *arguments]) == 2, "the spec comes first"
    arguments = [str(spec), "train.gpu_ids=[3]", "--dry-run", "train.seed=2", "--json"]
    capsys.readouterr()
    assert main(["submit", *arguments]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["plan"]["stages"][0]["resources"]["gpu_ids"] == [3]
    assert document["scripts"] == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--name", "a b"], "--name 'a b': allowed are 1 to 64 letters, digits and . _ -"),
        (["--name", ""], "--name ''"),
        (["--action", "fly"], "no action 'fly'"),
        (["automl.policy=on"], "automl.policy: found on"),
        (["job.then=[evaluate]"], "dataset.test_data_sources: missing; action 'evaluate' needs it"),
        (
            ["job.then=[gen_trt_engine]", "gen_trt_engine.onnx_file=/models/o"],
            "gen_trt_engine.onnx_file: found /models/o; there is no such file",
        ),
        (["dataset.num_classes=1"], "num_classes"),
        (["train.num_nodes=2"], "it must be 1"),
        (["train.num_gpus=9", "dataset.batch_size=8"], "8 x 9 ranks = 72. Lower the batch size"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_made(
    folder: Path, capsys: Capture, arguments: list[str], message: str
) -> None:
    spec = write_dataset(folder / "data")
    before = tree(folder)
    assert main(["submit", str(spec), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert tree(folder) == before


@pytest.mark.parametrize("profile", ["none", "wrong"])
def test_a_wrong_spec_is_told_before_a_site_that_is_missing_or_wrong(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, profile: str
) -> None:
    spec = write_dataset(folder / "data")
    sbatch = folder / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text("#!/bin/sh\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", str(sbatch.parent))
    monkeypatch.delenv("RTDETR_SLURM_SITE")
    if profile == "wrong":
        (folder / "site.yaml").write_text("partitions: gpu\n")
        monkeypatch.setenv("RTDETR_SLURM_SITE", str(folder / "site.yaml"))
    for command in ("submit", "validate"):
        assert main([command, str(spec), "train.num_epochs=0"]) == 2
        assert "train.num_epochs: found 0" in capsys.readouterr().err
    for good in ([], ["model.backbone=convnext_base"]):
        assert main(["submit", str(spec), *good]) == 3, "what TAO's image may have is not wrong"
        capsys.readouterr()


def test_data_in_the_home_folder(folder: Path, capsys: Capture) -> None:
    """What is looked for is what the frozen spec will name."""
    spec = write_dataset(folder / "home" / "data")
    spec.write_text(spec.read_text().replace(str(folder / "home"), "~"))
    assert "image_dir: ~/data/images" in spec.read_text()
    assert main(["submit", str(spec), "--dry-run"]) == 0


def test_what_training_will_not_use_is_noted(folder: Path, capsys: Capture) -> None:
    spec = write_dataset(folder / "data")
    path = folder / "data" / "coco.json"
    content = json.loads(path.read_text())
    content["annotations"].append({"image_id": 1, "category_id": 1, "bbox": [0, 0, 0.5, 4]})
    path.write_text(json.dumps(content))
    assert main(["submit", str(spec), "--dry-run"]) == 0
    note = f"note        {path} (dataset.train_data_sources): 1 of 2 boxes are trained on; not: 1 "
    assert note in capsys.readouterr().out


def test_images_that_a_container_may_not_see_are_noted(
    folder: Path, site: Path, capsys: Capture
) -> None:
    spec = write_dataset(folder / "data")
    archive = folder / "archive"
    archive.mkdir()
    for path in sorted((folder / "data" / "images").iterdir()):
        path.rename(archive / path.name)
        path.symlink_to(archive / path.name)
    command = ["submit", str(spec), "--dry-run", "--site"]
    assert main([*command, str(site)]) == 0
    first = folder / "data" / "images" / "1.jpg"
    assert f"note        {first} leads to {archive / '1.jpg'}, which is" in capsys.readouterr().out
    site.write_text(f"{site.read_text()}binds: ['{archive}']\n")
    for elsewhere in (str(site), "local"):
        assert main([*command, elsewhere]) == 0
        assert "leads to" not in capsys.readouterr().out


def test_a_missing_image_is_found_on_the_login_node(
    folder: Path, site: Path, capsys: Capture
) -> None:
    spec = write_dataset(folder / "data")
    (folder / "train.sif").unlink()
    for options in (["--dry-run"], []):
        assert main(["submit", str(spec), "--site", str(site), *options]) == 3
        assert "train.sif: No such file or directory; build it" in capsys.readouterr().err
    assert not (folder / "runs").exists()


# --- status and logs ---------------------------------------------------------------------------
def a_failed_run(folder: Path) -> Run:
    run_dir = folder / "runs" / "train-20260102-030405-abcd"
    run = make_run(folder / "runs", local_stage(run_dir / "results" / "train"))
    results = run_dir / "results" / "train"
    results.mkdir()
    run.record("submitting", stage="train")
    run.record("submitted", stage="train", job_id="77")
    status = StatusLog(results / "status.json", Start(claim_id(run.id, "train")))
    kpi = {"val_mAP": 0.25, "train_loss": 1.5}
    status.write(Status.RUNNING, epoch=2, max_epoch=9, eta="0:01:00", kpi=kpi)
    status.fail(FailureClass.OOM_GPU, "CUDA out of memory")
    write_checkpoint(results / "model_epoch_002.pth")
    run.log_path("train", "77").write_text("first line\nlast line\n")
    run.record(
        "finished",
        stage="train",
        job_id="77",
        state="failed",
        failure_class="oom_gpu",
        reason="CUDA out of memory",
        checkpoints=verified_checkpoints(results),
    )
    return run


def test_status_of_one_run(folder: Path, capsys: Capture) -> None:
    run = a_failed_run(folder)
    assert main(["status", "train-2026"]) == 0
    out = capsys.readouterr().out
    for line in (
        f"run          {run.id}",
        "state        failed",
        "epoch        3/10",
        "val_mAP      0.2500",
        "failure      oom_gpu",
        "evidence     CUDA out of memory",
        "what to do   the GPU's memory was too small",
        "results/train/model_epoch_002.pth (val_mAP 0.2500)",
        "jobs/train/77_0_log.out",
    ):
        assert line in out


def test_status_of_one_run_as_json(folder: Path, capsys: Capture) -> None:
    run = a_failed_run(folder)
    assert main(["status", str(run.path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    [stage] = document["stages"]
    assert (document["state"], stage["job_id"], stage["epoch"]) == ("failed", "77", 2)
    assert stage["failure"]["class"] == "oom_gpu"
    assert stage["metrics"] == {"val_mAP": 0.25, "train_loss": 1.5}
    assert stage["best_val_mAP"] == 0.25


def test_status_of_all_runs(folder: Path, capsys: Capture) -> None:
    assert main(["status"]) == 0
    assert "no runs in" in capsys.readouterr().err
    run = a_failed_run(folder)
    damaged = make_run(folder / "runs", STAGE, run_id="train-20260101-000000-ffff")
    (damaged.path / "run.json").write_text("{")
    assert main(["status"]) == 0
    out, err = capsys.readouterr()
    [line] = [line for line in out.splitlines() if run.id in line]
    assert " ".join(line.split()) == (
        f"{run.id} failed train 77 3/10 val_mAP 0.2500 oom_gpu: CUDA out of memory"
    )
    assert [damaged.id, "unreadable"] in [line.split() for line in out.splitlines()]
    assert f"unreadable: {damaged.path}/run.json: this is not JSON" in err
    assert main(["status", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["run_id"] for one in document["runs"]] == [run.id]
    [unreadable] = document["unreadable"]
    assert unreadable["run_id"] == damaged.id
    assert "run.json: this is not JSON" in unreadable["reason"]


def test_logs(folder: Path, capsys: Capture) -> None:
    run = a_failed_run(folder)
    assert main(["logs", run.id]) == 0
    assert capsys.readouterr().out == "first line\nlast line\n"
    assert main(["logs", run.id, "--follow"]) == 1
    out, err = capsys.readouterr()
    assert out == "first line\nlast line\n"
    assert "train: failed, job 77" in err


def test_logs_are_those_of_all_jobs_of_a_stage(folder: Path, capsys: Capture) -> None:
    run = a_failed_run(folder)
    run.record("submitting", stage="train", restart=1)
    run.record("submitted", stage="train", job_id="78", restart=1)
    run.log_path("train", "78").write_text("of the second job\n")
    assert main(["logs", run.id]) == 0
    assert capsys.readouterr().out == "first line\nlast line\nof the second job\n"


def test_cancel_of_an_ended_run(folder: Path, capsys: Capture) -> None:
    run = a_failed_run(folder)
    assert main(["cancel", run.id]) == 0
    assert "has ended already; nothing to cancel" in capsys.readouterr().err


def test_an_unknown_run_is_named(folder: Path, capsys: Capture) -> None:
    a_failed_run(folder)
    for command in ("status", "logs", "cancel"):
        assert main([command, "train-20269"]) == 2
        assert "there is no run 'train-20269'" in capsys.readouterr().err
