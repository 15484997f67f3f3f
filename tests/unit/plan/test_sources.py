"""What is brought before a stage begins, and what a plan makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.chain import Searching
from rtdetr_slurm.plan.make import frozen_spec, make_plan
from rtdetr_slurm.plan.model import Array, Dependency, Input, Origin, Plan
from rtdetr_slurm.plan.search import Objective, Parameter, Search
from rtdetr_slurm.plan.sources import staged_fields
from rtdetr_slurm.plan.staging import STAGE, StagedField, StagedObject, Staging, Store
from rtdetr_slurm.resolved_spec import value_at, with_values
from rtdetr_slurm.site.profile import Site
from rtdetr_slurm.spec import LoadedSpec, load_spec

SEED = """\
dataset:
  num_classes: 5
  train_data_sources:
  - {image_dir: s3://b/train/images.tar.gz, json_file: s3://b/train/annotations.json}
  - {image_dir: /data/more.zip, json_file: /data/more.json}
  val_data_sources: {image_dir: /data/val, json_file: /data/val.json}
"""
RUN_DIR = Path("/runs/train-1")
SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def loaded_from(folder: Path, text: str, *overrides: str, action: str = "train") -> LoadedSpec:
    path = folder / "spec.yaml"
    path.write_text(text)
    return load_spec(path, overrides, action)


def site(**values: Any) -> Site:
    given = {"name": "here", "accelerator": "cuda", "image": "/t.sif", "partition": "gpu"}
    roles = {"cpu": {"partition": "cpus", "time": 90}}
    return Site.model_validate({**given, "roles": roles, **values})


def made(folder: Path, loaded: LoadedSpec, searching: Searching | None = None) -> Plan:
    at = site()
    spec = frozen_spec(loaded, run_dir=RUN_DIR, cwd=folder)
    actions = (*loaded.actions, *(["evaluate"] if searching else []))
    fields = staged_fields(spec, actions, at.engine_of)
    staging = Staging("/shared/cache", Store(), fields, secrets=SECRETS) if fields else None
    return make_plan(loaded, spec, at, run_dir=RUN_DIR, searching=searching, staging=staging)


def uris(folder: Path, text: str, *overrides: str, action: str, engine: str = "rtdetr") -> set[str]:
    loaded = loaded_from(folder, text, *overrides, action=action)
    spec = frozen_spec(loaded, run_dir=RUN_DIR, cwd=folder)
    at = site(engine=engine)
    return {one.object.uri for one in staged_fields(spec, loaded.actions, at.engine_of)}


def test_addresses_and_archives_are_brought_and_folders_are_not(tmp_path: Path) -> None:
    loaded = loaded_from(tmp_path, SEED)
    spec = frozen_spec(loaded, run_dir=RUN_DIR, cwd=tmp_path)
    first = "dataset.train_data_sources.0"
    second = "dataset.train_data_sources.1"
    assert staged_fields(spec, loaded.actions, site().engine_of) == (
        StagedField(
            f"{first}.image_dir",
            StagedObject("s3://b/train/images.tar.gz", "archive"),
            f"{first}.json_file",
        ),
        StagedField(
            f"{second}.image_dir",
            StagedObject("/data/more.zip", "archive"),
            f"{second}.json_file",
        ),
        StagedField(f"{first}.json_file", StagedObject("s3://b/train/annotations.json", "file")),
    )


def test_of_an_archive_only_what_annotations_name_where_that_is_asked(tmp_path: Path) -> None:
    loaded = loaded_from(tmp_path, SEED, "job.unpack=named")
    spec = frozen_spec(loaded, run_dir=RUN_DIR, cwd=tmp_path)
    fields = staged_fields(spec, loaded.actions, site().engine_of, only_named=True)
    assert [one.object.names_from for one in fields] == [
        "s3://b/train/annotations.json",
        "/data/more.json",
        None,
    ]


def test_archives_of_an_inference_stay_where_the_engine_reads_them_there(tmp_path: Path) -> None:
    text = "dataset: {infer_data_sources: {image_dir: [/a.zip, /b.tar.zst, s3://c/new], classmap: s3://c/l.txt}}"
    given = ["inference.checkpoint=s3://c/model.pth"]
    remote = {"s3://c/new", "s3://c/l.txt", "s3://c/model.pth"}
    assert uris(tmp_path, text, *given, action="inference") == {"/b.tar.zst", *remote}
    text = text.replace("s3://c/new", "s3://c/new.tar")
    found = uris(tmp_path, text, "inference.checkpoint=/m.pth", action="inference", engine="tao")
    assert found == {"/a.zip", "/b.tar.zst", "s3://c/new.tar", "s3://c/l.txt"}


def test_a_first_stage_without_gpu_brings_what_the_others_wait_for(tmp_path: Path) -> None:
    overrides = (
        "job.then=[evaluate]",
        "dataset.test_data_sources={image_dir: /data/val, json_file: /data/val.json}",
    )
    stage, train, evaluate = made(tmp_path, loaded_from(tmp_path, SEED, *overrides)).stages
    assert (stage.name, stage.runs_action, stage.container) == (STAGE, False, None)
    assert stage.resources.gpus_per_node == 0
    assert (stage.resources.partition, stage.resources.time_min) == ("cpus", 90)
    assert (stage.launch.secrets, train.launch.secrets) == (SECRETS, ())
    assert stage.results_dir == "/runs/train-1/results/stage"
    assert train.depends_on == (Dependency(Origin(STAGE)),)
    fetched = [one for one in train.inputs if one.origin == Origin(STAGE)]
    assert [(one.field, one.uri) for one in fetched] == [
        ("dataset.train_data_sources.0.image_dir", "s3://b/train/images.tar.gz"),
        ("dataset.train_data_sources.1.image_dir", "/data/more.zip"),
        ("dataset.train_data_sources.0.json_file", "s3://b/train/annotations.json"),
    ]
    # Its nodes bind what has been brought, where that is.
    assert train.container is not None
    assert not [bind for bind in train.container.binds if bind.source.startswith("/shared")]
    # It reads folders that are there already, and waits for the training alone.
    assert evaluate.depends_on == (Dependency(Origin("train")),)


def test_images_that_are_brought_are_what_nodes_copy(tmp_path: Path) -> None:
    """Whoever brings them; and no annotations, and no folders that the spec names itself."""
    overrides = (
        "job.then=[evaluate]",
        "dataset.test_data_sources={image_dir: s3://b/val.zip, json_file: s3://b/val.json}",
    )
    loaded = loaded_from(tmp_path, SEED, *overrides)
    spec = frozen_spec(loaded, run_dir=RUN_DIR, cwd=tmp_path)
    fields = staged_fields(spec, loaded.actions, site().engine_of)
    for staging in (Staging("/shared/cache", Store(), fields), None):
        plan = make_plan(loaded, spec, site(), run_dir=RUN_DIR, staging=staging, copied=fields)
        assert {stage.name: stage.local_copy for stage in plan.stages if stage.runs_action} == {
            "train": tuple(f"dataset.train_data_sources.{n}.image_dir" for n in (0, 1)),
            "evaluate": ("dataset.test_data_sources.image_dir",),
        }


def test_a_stage_that_takes_no_model_still_waits_for_the_one_before(tmp_path: Path) -> None:
    """And not only for its data."""
    overrides = (
        "job.then=[evaluate]",
        "evaluate.checkpoint=s3://b/model.pth",
        "dataset.test_data_sources={image_dir: s3://b/val.zip, json_file: /data/val.json}",
    )
    _, _, evaluate = made(tmp_path, loaded_from(tmp_path, SEED, *overrides)).stages
    assert evaluate.depends_on == (Dependency(Origin("train")), Dependency(Origin(STAGE)))
    assert Input("evaluate.checkpoint", "fetch", Origin(STAGE), "s3://b/model.pth") in (
        evaluate.inputs
    )


def test_a_search_brings_once_for_all_its_trials(tmp_path: Path) -> None:
    search = Search(
        "/runs/train-1/results/automl",
        "random",
        1,
        (Parameter("train.optim.lr", "float", 1e-4, 1e-5, 1e-3),),
        (Objective("val_mAP", "maximize"),),
        4,
        10,
    )
    overrides = (
        "train.pretrained_model_path=s3://b/first.pth",
        "dataset.test_data_sources={image_dir: s3://b/val.zip, json_file: /data/val.json}",
    )
    loaded = loaded_from(tmp_path, SEED, *overrides)
    searching = Searching(search, Array(2), has_baseline=True)
    stages = {stage.name: stage for stage in made(tmp_path, loaded, searching).stages}
    assert list(stages) == [STAGE, "train", "best", "evaluate_best", "baseline"]
    waits = Dependency(Origin(STAGE))
    assert stages["best"].depends_on == (Dependency(Origin("train"), "afterany"), waits)
    assert stages["evaluate_best"].depends_on == (Dependency(Origin("best")), waits)
    assert stages["baseline"].depends_on == (waits,)
    given = {one.field: one.uri for one in stages["baseline"].inputs if one.uri}
    assert given == {
        "dataset.test_data_sources.image_dir": "s3://b/val.zip",
        "evaluate.checkpoint": "s3://b/first.pth",
    }


def test_paths_reach_into_lists() -> None:
    spec = {"a": [{"b": 1}, {"b": 2}], "c": {"d": ["x", "y"]}}
    filled = with_values(spec, {"a.1.b": 3, "c.d.0": "z"})
    assert filled == {"a": [{"b": 1}, {"b": 3}], "c": {"d": ["z", "y"]}}
    assert spec["a"] == [{"b": 1}, {"b": 2}]
    assert [value_at(filled, path) for path in ("a.1.b", "a.2.b", "a.b", "c.d.1")] == [
        *(3, None, None, "y")
    ]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ftp://h/images.zip", "nothing here fetches ftp://"),
        ("https://me:secret@h/images.zip", "a spec holds no passwords"),
        ("https://h/images.zip?X-Amz-Signature=abc", "a signed address is a secret"),
        ("https://h/images/", "only object stores tell what is below an address"),
        ("s3:///images.zip", "it names no bucket"),
        ("s3://b/images.zip?versionId=1", "without '?' and '#'"),
    ],
)
def test_addresses_that_cannot_be_are_refused_by_their_place(
    tmp_path: Path, address: str, said: str
) -> None:
    text = SEED.replace("s3://b/train/images.tar.gz", address)
    with pytest.raises(RequestError, match=r"spec\.yaml:4:") as refused:
        loaded_from(tmp_path, text)
    assert said in str(refused.value)
    assert "secret@" not in str(refused.value)
    assert "=abc" not in str(refused.value)


def test_weights_that_need_a_file_beside_them_are_refused_by_address(tmp_path: Path) -> None:
    given = "train.pretrained_model_path=s3://b/rtdetr/model.safetensors"
    with pytest.raises(RequestError, match=r"config\.json beside it"):
        loaded_from(tmp_path, SEED, given)
