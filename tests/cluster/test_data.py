"""Data in an object store: brought by a job without GPUs, before a GPU is asked for."""

from __future__ import annotations

import json
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.object_store import CREDENTIALS, client, s3_server

from .harness.cli import JOB_LIMIT_S, Cli, train_spec, write_spec
from .harness.data import Dataset
from .harness.slurm import Slurm

pytestmark = pytest.mark.cluster

TRAIN, EVAL = "s3://bucket/data/train", "s3://bucket/data/eval"


@pytest.fixture
def store(few: Dataset, tmp_path: Path) -> Iterator[str]:
    """The address of a store that has the images packed as users have them."""
    with s3_server() as url:
        s3 = client(url)
        s3.create_bucket(Bucket="bucket")
        for root, split in (("train", "train"), ("eval", "val")):
            archive = tmp_path / "images.tar.gz"
            with tarfile.open(archive, "w:gz") as packed:
                packed.add(few.images(split), "images")
            s3.upload_file(str(archive), "bucket", f"data/{root}/images.tar.gz")
            annotations = str(few.annotations(split))
            s3.upload_file(annotations, "bucket", f"data/{root}/annotations.json")
        yield url


@pytest.fixture
def remote(cli: Cli, store: str) -> Cli:
    """`rtdetr-slurm` of somebody who has the store's credentials in the environment alone."""
    profile = yaml.safe_load(Path(cli.env["RTDETR_SLURM_SITE"]).read_text())
    (cli.folder / "scratch").mkdir()
    profile |= {
        "s3": {"endpoint_url": store},
        "cache_root": str(cli.folder / "cache"),
        "scratch": str(cli.folder / "scratch"),
    }
    site = write_spec(cli.folder / "site.yaml", profile)
    return Cli({**cli.env, **CREDENTIALS, "RTDETR_SLURM_SITE": str(site)}, cli.folder)


def test_a_training_on_what_a_job_without_gpus_has_brought(
    remote: Cli, few: Dataset, cluster: Slurm
) -> None:
    spec = train_spec(few, num_epochs=1)
    del spec["dataset"]["train_data_sources"], spec["dataset"]["val_data_sources"]
    path = write_spec(remote.folder / "train.yaml", spec)
    overrides = [
        f"dataset.train_data_sources=[{sources(TRAIN)}]",
        f"dataset.val_data_sources={sources(EVAL)}",
        "job.local_copy=true",
    ]
    # Two want the same archives at once: one of them brings each, and one of them copies each.
    first, second = (remote.json("submit", path, *overrides, "--again") for _ in range(2))
    for run in (first, second):
        stages = {stage["name"]: stage for stage in ended(remote, run["run_dir"])}
        assert {name: one["state"] for name, one in stages.items()} == {
            "stage": "success",
            "train": "success",
        }
        job = cluster.command("scontrol", "show", "job", "-o", stages["stage"]["job_id"])
        assert "gres" not in job, "it has asked for a GPU"

    folder = Path(first["run_dir"])
    inputs = json.loads((folder / "jobs" / "train" / "inputs.json").read_text())
    given = {one["field"]: one["value"] for one in inputs}
    images = Path(given["dataset.train_data_sources.0.image_dir"])
    assert images.is_relative_to(remote.folder / "cache")
    assert len([*images.iterdir()]) == 24
    copies = [*(remote.folder / "scratch").glob("rtdetr-slurm-*/*/images")]
    assert sorted(len([*copy.iterdir()]) for copy in copies) == sorted(
        [24, len([*few.images("val").iterdir()])]
    )
    logs = "".join(
        path.read_text()
        for run in (first, second)
        for path in Path(run["run_dir"], "jobs", "train").glob("*_log.out")
    )
    assert [logs.count(f"source={copy},destination=") for copy in copies] == [2, 2]
    assert logs.count(", copied in ") == logs.count(" already\n") == 2
    entries = [
        json.loads(path.read_text()) for path in (remote.folder / "cache").glob("*/entry.json")
    ]
    assert len({entry["uri"] for entry in entries}) == len(entries) == 4
    said = [one for one in kept(folder) if CREDENTIALS["AWS_SECRET_ACCESS_KEY"].encode() in one]
    assert not said, "the record, a script or a log holds the secret"


def test_images_that_cannot_be_decoded_end_the_stage_and_no_gpu_is_held(
    remote: Cli, few: Dataset, store: str
) -> None:
    broken = remote.folder / "broken" / "images"
    broken.mkdir(parents=True)
    for path in few.images("train").iterdir():
        (broken / path.name).write_bytes(path.read_bytes()[:200])
    with tarfile.open(remote.folder / "broken.tar.gz", "w:gz") as packed:
        packed.add(broken, "images")
    archive = str(remote.folder / "broken.tar.gz")
    client(store).upload_file(archive, "bucket", "data/broken/images.tar.gz")
    spec = train_spec(few, num_epochs=1)
    spec["dataset"]["train_data_sources"] = [
        {
            "image_dir": "s3://bucket/data/broken/images.tar.gz",
            "json_file": f"{TRAIN}/annotations.json",
        }
    ]
    run = remote.json("submit", write_spec(remote.folder / "train.yaml", spec))
    stage, train = ended(remote, run["run_dir"])
    assert (stage["state"], stage["failure"]["class"]) == ("failed", "config")
    assert "cannot be decoded" in stage["failure"]["evidence"]
    assert train["state"] == "skipped"


def sources(root: str) -> str:
    return f"{{image_dir: {root}/images.tar.gz, json_file: {root}/annotations.json}}"


def ended(cli: Cli, folder: str) -> list[dict[str, Any]]:
    """The stages of a run once all have ended."""
    deadline = time.monotonic() + JOB_LIMIT_S
    while True:
        stages: list[dict[str, Any]] = cli.report(folder)["stages"]
        if not {stage["state"] for stage in stages} & {"queued", "running"}:
            return stages
        assert time.monotonic() < deadline, stages
        time.sleep(1)


def kept(folder: Path) -> Iterator[Any]:
    yield from (path.read_bytes() for path in folder.rglob("*") if path.is_file())
