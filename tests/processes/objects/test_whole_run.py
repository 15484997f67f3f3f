"""From roots in an object store to a trained detector, and its copy back there, on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from local_support import TINY, write_workspace

from rtdetr_slurm.contract import RUN_JSON
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.staging import STAGE, Store
from rtdetr_slurm.runs.run import open_run
from rtdetr_slurm.runs.staged import read_staged
from rtdetr_slurm.submission.prepare import Prepared, prepare

ROOTS = {"train": ["s3://data/set/train"], "eval": "s3://data/set/val"}
SITE = (
    "scheduler: local\ngpu: {{request: none}}\nstaging: {staging}\ns3: {{endpoint_url: '{url}'}}\n"
)


@pytest.fixture
def folder(tmp_path: Path, store: Store, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spec without sources, and the sample data in the bucket below `set/`."""
    write_workspace(tmp_path)
    for split in ("train", "val"):
        archive = tmp_path / f"{split}.tar.gz"
        with tarfile.open(archive, "w:gz") as packed:
            packed.add(tmp_path / "data" / split / "images", "images")
        bucket(f"set/{split}/images.tar.gz", archive.read_bytes())
        annotations = tmp_path / "data" / split / "annotations.json"
        bucket(f"set/{split}/annotations.json", annotations.read_bytes())
        archive.unlink()
    shutil.rmtree(tmp_path / "data")
    lines = [line for line in TINY.splitlines() if "train_data_sources" not in line]
    (tmp_path / "train.yaml").write_text("\n".join(lines) + "\ntrain: {num_epochs: 1}\n")
    for staging in ("job", "login"):
        text = SITE.format(staging=staging, url=store.endpoint_url)
        (tmp_path / f"{staging}.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ask(folder: Path) -> Callable[..., Prepared]:
    def ask(*overrides: str, site: str = "job", **options: Any) -> Prepared:
        given = {"datasets": ROOTS, "automl": "off", **options}
        return prepare(folder / "train.yaml", overrides, site=f"{site}.yaml", **given)

    return ask


def test_what_is_not_there_is_refused_by_its_place(ask: Callable[..., Prepared]) -> None:
    roots = {"train": ["s3://data/sat/train"], "eval": "s3://dato/set/val"}
    with pytest.raises(RequestError) as refused:
        ask(datasets=roots)
    text = str(refused.value)
    assert "dataset.train_data_sources[0].image_dir: s3://data/sat/train/images.tar.gz" in text
    assert "dataset.train_data_sources[0].json_file" in text
    assert "there is no bucket 'dato'" in text
    assert text.count("train.yaml:") == 4


def test_annotations_are_checked_before_anything_is_queued(
    ask: Callable[..., Prepared], folder: Path
) -> None:
    """And named by their address, for nobody knows the cache."""
    with pytest.raises(RequestError, match=r"s3://data/set/train/annotations\.json.* num_classes"):
        ask("dataset.num_classes=3")
    prepared = ask()
    assert [stage.name for stage in prepared.plan.stages] == [STAGE, "train"]
    assert prepared.classes == {1: "circle", 2: "square", 3: "triangle"}
    kept = {path.name for path in (folder / "runs" / ".cache").glob("*/content/*")}
    assert kept == {"annotations.json"}, "images are the job's"


def test_a_store_that_only_jobs_reach_is_left_to_them(
    ask: Callable[..., Prepared], folder: Path
) -> None:
    for name in ("job", "login"):
        path = folder / f"{name}.yaml"
        path.write_text(path.read_text().replace("127.0.0.1", "127.0.0.2"))
    prepared = ask()
    assert prepared.plan.stages[0].name == STAGE
    assert any("s3 cannot be reached from this machine" in note for note in prepared.plan.notes)
    with pytest.raises(Exception, match="connect") as refused:
        ask(site="login")
    assert type(refused.value).__name__ == "Unreachable"


def test_submit_brings_it_where_the_profile_says_so(
    ask: Callable[..., Prepared], folder: Path
) -> None:
    dry = ask(site="login", bring_all=False)
    assert dry.plan.stages[0].name == STAGE
    prepared = ask(site="login")
    assert [stage.name for stage in prepared.plan.stages] == ["train"]
    images = Path(prepared.spec["dataset"]["train_data_sources"][0]["image_dir"])
    assert images.is_relative_to(folder / "runs" / ".cache")
    assert len([*images.glob("*.jpg")]) == 4


def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rtdetr_slurm.cli.main", *arguments],
        env=os.environ | {"RTDETR_SLURM_SITE": "job.yaml", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_from_roots_to_a_detector_and_back(folder: Path) -> None:
    roots = ["--train-data", "s3://data/set/train", "--eval-data", "s3://data/set/val"]
    given = ["--automl", "off", "--wait", "--json", "job.upload=s3://data/results"]
    done = cli("submit", "train.yaml", *roots, *given)
    assert done.returncode == 0, done.stderr
    run = open_run(Path(json.loads(done.stdout)["run_dir"]))
    staged = read_staged(run.path / "results" / STAGE)
    assert staged is not None
    places = {one.field: one.path for one in staged.fields}
    assert places["dataset.train_data_sources.0.image_dir"].endswith("content/images/images")
    secret = os.environ["AWS_SECRET_ACCESS_KEY"].encode()
    files = [path for path in run.path.rglob("*") if path.is_file()]
    assert not [path for path in files if secret in path.read_bytes()]

    # Its copy is a parent, also where nothing else of it is left.
    shutil.rmtree(folder / "runs")
    address = f"s3://data/results/{run.id}"
    more = ["--action", "evaluate", "--eval-data", "s3://data/set/val", "--wait", "--json"]
    done = cli("submit", "train.yaml", "--parent", address, *more)
    assert done.returncode == 0, done.stderr
    evaluated = open_run(Path(json.loads(done.stdout)["run_dir"]))
    assert evaluated.manifest.parent == address
    inputs = json.loads((evaluated.path / "jobs" / "evaluate" / "inputs.json").read_text())
    [used] = [one["value"] for one in inputs if one["field"] == "evaluate.checkpoint"]
    copy = Path(used).parents[2]
    assert copy.name == run.id
    assert (copy / RUN_JSON).exists()
    assert copy.is_relative_to(folder / "runs" / ".cache")


def test_an_image_that_cannot_be_decoded_ends_a_run_before_it_trains(
    folder: Path, bucket: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Annotations and archive are as they should be: it takes the job that decodes to find it."""
    other = tmp_path_factory.mktemp("other")
    write_workspace(other)
    images = other / "data" / "val" / "images"
    damaged = min(images.iterdir())
    damaged.write_bytes(damaged.read_bytes()[:-300])
    with tarfile.open(other / "val.tar.gz", "w:gz") as packed:
        packed.add(images, "images")
    bucket("set/val/images.tar.gz", (other / "val.tar.gz").read_bytes())
    roots = ["--train-data", "s3://data/set/train", "--eval-data", "s3://data/set/val"]
    done = cli("submit", "train.yaml", *roots, "--automl", "off", "--wait", "--json")
    assert done.returncode == 1
    stages = json.loads(done.stdout)["stages"]
    assert [stage["state"] for stage in stages] == ["failed", "skipped"]
    evidence = stages[0]["failure"]["evidence"]
    assert f"'{damaged.name}' cannot be decoded" in evidence


def test_weights_that_are_none_end_the_stage_that_brings_them(folder: Path, bucket: Any) -> None:
    bucket("weights/none.pth", b"no weights")
    given = ["--automl", "off", "--wait", "--json"]
    given.append("train.pretrained_model_path=s3://data/weights/none.pth")
    done = cli("submit", "train.yaml", "--train-data", "s3://data/set/train", *given)
    assert done.returncode == 1, done.stderr
    stage, train = json.loads(done.stdout)["stages"]
    assert (stage["state"], train["state"]) == ("failed", "skipped")
    said = stage["failure"]["evidence"]
    assert "train.pretrained_model_path: found s3://data/weights/none.pth" in said


def test_data_elsewhere_are_checked_by_their_annotations_or_as_a_whole(folder: Path) -> None:
    roots = ["job.datasets={train: [s3://data/set/train], eval: s3://data/set/val}"]
    few = cli("data", "check", "train.yaml", *roots, "dataset.num_classes=3", "--json")
    assert few.returncode == 2, few.stderr
    assert "not looked at before it is brought (--fetch): dataset.train_data_sources" in few.stderr
    document = json.loads(few.stdout)
    assert document["corrections"]["dataset.num_classes"] == 4
    places = [(one["kind"], one["json_file"], one["image_dir"]) for one in document["sources"]]
    assert places[0] == ("train", "s3://data/set/train/annotations.json", None)
    whole = cli("data", "check", "train.yaml", *roots, "--json", "--fetch", "--html", "page.html")
    assert whole.returncode == 0, whole.stdout
    places = [one["image_dir"] for one in json.loads(whole.stdout)["sources"]]
    assert places == [f"s3://data/set/{split}/images.tar.gz" for split in ("train", "val")]
    assert (folder / "page.html").read_bytes().count(b"<img ") > 4
