"""What is chosen for data sets of other sizes, and with what fields given."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from rtdetr_slurm.resolved_spec import value_at
from rtdetr_slurm.spec import load_spec
from rtdetr_slurm.spec.draft.draft import choose_fields, draft_text
from rtdetr_slurm.spec.draft.facts import DataFacts, Hardware
from rtdetr_slurm.spec.draft.given import given_fields
from rtdetr_slurm.yaml_source import parse_yaml


def facts(**other: Any) -> DataFacts:
    values: dict[str, Any] = {
        "folder": "/data",
        "sources": {
            name: (f"/data/{name}/images", f"/data/{name}.json") for name in ("train", "val")
        },
        "images": 2000,
        "boxes": 9000,
        "scored": 500,
        "classes": {1: "cell", 2: "dog"},
        "boxes_of": {1: 100, 2: 100},
        "fullest": 20,
        "small_side": 16 / 640,
        "image_side": 1280,
    }
    return DataFacts(**(values | other))


def drafted(about: DataFacts, given: dict[str, Any], gpu: Hardware) -> str:
    return draft_text(choose_fields(about, given, gpu), about)


def chosen(given: dict[str, Any] | None = None, gpu: Hardware | None = None, **other: Any) -> Any:
    """What the spec for such facts says at a dotted path."""
    text = drafted(facts(**other), given or {}, gpu or Hardware(16))
    data = parse_yaml(text, Path("train.yaml")).data
    return lambda field: value_at(data, field)


def test_every_field_has_a_reason_and_all_is_a_spec(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(drafted(facts(), {"train": {"seed": 7}}, Hardware(16)))
    loaded = load_spec(path)
    assert loaded.action == "train"
    assert loaded.experiment.train.seed == 7
    lines = path.read_text().splitlines()
    for above, line in pairwise(lines):
        is_field = ":" in line and not line.endswith(":") and "#" not in line
        inside = "image_dir" in line or "json_file" in line
        assert not is_field or inside or above.lstrip().startswith("#"), line
    assert max(map(len, lines)) <= 100


def test_classes_without_a_box_do_not_count() -> None:
    """An exporter's root class, and ids that begin with 1."""
    spec = chosen(classes={0: "root", 1: "cell", 4: "dog"}, boxes_of={1: 3, 4: 3})
    assert spec("dataset.num_classes") == 5
    assert spec("dataset.eval_class_ids") == [1, 4]


def test_the_ids_of_mscoco_are_put_together() -> None:
    spec = chosen(is_mscoco=True)
    assert spec("dataset.num_classes") == 80
    assert spec("dataset.remap_mscoco_category") is True
    assert spec("dataset.eval_class_ids") is None


def test_what_evaluate_scores_is_the_test_set_else_the_validation_set() -> None:
    assert chosen()("dataset.test_data_sources.json_file") == "/data/val.json"
    sources = {name: ("i", f"{name}.json") for name in ("train", "val", "test")}
    assert chosen(sources=sources)("dataset.test_data_sources.json_file") == "test.json"
    only = chosen(sources={"train": ("i", "j")})
    assert only("dataset.val_data_sources") is only("dataset.test_data_sources") is None


@pytest.mark.parametrize(
    ("small_side", "image_side", "side"),
    [
        (16 / 640, 1280, 640),  # MS COCO's
        (16 / 600, 1280, 608),
        (0.3, 640, 320),
        (0.005, 4000, 1280),
        (0.005, 700, 704),
        (0.3, 150, 160),
        (0.3, 30, 128),
        (0.005, 100, 128),
        (None, 0, None),
    ],
)
def test_the_size_is_for_the_small_objects(
    small_side: float | None, image_side: int, side: int | None
) -> None:
    spec = chosen(small_side=small_side, image_side=image_side)
    square = side and [side, side]
    assert spec("dataset.augmentation.train_spatial_size") == square
    assert spec("dataset.augmentation.eval_spatial_size") == (square or [640, 640])
    assert spec("export.input_height") == (None if side in (None, 640) else side)


@pytest.mark.parametrize(("fullest", "queries"), [(3, 100), (93, 200), (140, 300), (900, 900)])
def test_queries_are_for_the_fullest_image(fullest: int, queries: int) -> None:
    spec = chosen(fullest=fullest)
    assert spec("model.num_queries") == spec("model.num_select") == queries
    assert spec("model.dn_number") == (fullest if fullest > 100 else None)


def test_queries_are_no_more_than_the_cells_of_the_smallest_image() -> None:
    given = {"dataset": {"augmentation": {"train_spatial_size": [128, 128]}}}
    assert chosen(given, fullest=500)("model.num_queries") == 12**2 + 6**2 + 3**2
    given["dataset"]["augmentation"]["multi_scales"] = []
    assert chosen(given, fullest=500)("model.num_queries") == 16**2 + 8**2 + 4**2


@pytest.mark.parametrize(
    ("images", "memory", "gpus", "batch", "without_checkpoints"),
    [
        (118_000, 80, 1, 16, True),
        (118_000, 80, 8, 2, True),
        (118_000, 16, 1, 8, False),
        (118_000, 4, 1, 2, False),
        (205, 80, 1, 4, True),
        (30, 80, 1, 2, True),
        (6, 80, 4, 1, True),
    ],
)
def test_the_batch_fits_the_gpu_and_the_data(
    images: int, memory: float, gpus: int, batch: int, without_checkpoints: bool
) -> None:
    given = {"train": {"num_gpus": gpus}}
    spec = chosen(given, Hardware(memory, "site profile"), images=images)
    assert spec("dataset.batch_size") == batch
    assert (spec("train.activation_checkpoint") is False) == without_checkpoints


@pytest.mark.parametrize(
    ("images", "given", "epochs", "interval"),
    [
        (118_000, {}, 72, 2),
        (118_000, {"train": {"pretrained_model_path": "/w.pth"}}, 12, None),
        (2000, {"train": {"pretrained_model_path": "/w.pth"}}, 50, None),
        (2000, {"model": {"pretrained_backbone_path": "/w.pth"}}, 150, 3),
        (200, {}, 300, 6),
        (200, {"train": {"num_epochs": 20}}, 20, None),
    ],
)
def test_a_small_set_is_seen_more_often(
    images: int, given: dict[str, Any], epochs: int, interval: int | None
) -> None:
    spec = chosen(given, images=images)
    assert spec("train.num_epochs") == epochs
    assert spec("train.validation_interval") == spec("train.checkpoint_interval") == interval
    assert spec("train.optim.lr_steps") == [-(-85 * epochs // 100)]


def test_pretrained_weights_decide_on_backbone_and_rates() -> None:
    random = chosen()
    assert random("model.backbone") == "resnet_18"
    assert random("model.dec_layers") == 3
    assert random("train.optim.lr_backbone") == random("train.optim.lr")
    assert chosen(images=50_000)("model.backbone") is None
    named = chosen({"train": {"pretrained_model_path": "/w.pth"}})
    assert named("model.backbone") is named("model.dec_layers") is None
    assert named("train.optim.lr_backbone") == pytest.approx(named("train.optim.lr") / 10, rel=0.1)
    assert named("train.optim.lr") < random("train.optim.lr")


def test_weights_of_the_site_are_taken_a_whole_detector_first() -> None:
    models = {"resnet_50": "/r50.pth", "rtdetr_resnet_18": "/detector.pth"}
    spec = chosen(gpu=Hardware(16, models=models))
    assert spec("model.backbone") == "resnet_18"
    assert spec("train.num_epochs") == 50
    given = {"model": {"backbone": "resnet_50"}}
    assert chosen(given, Hardware(16, models=models))("train.num_epochs") == 150


def test_one_of_num_gpus_and_gpu_ids_is_enough() -> None:
    for field in ("train.num_gpus=4", "train.gpu_ids=[0,1,2,3]"):
        assert chosen(dict(given_fields([field])), images=118_000)("dataset.batch_size") == 4


def test_what_is_given_stays_and_says_so() -> None:
    text = drafted(facts(), {"train": {"optim": {"lr": 0.001}}}, Hardware(16))
    assert "    # Given.\n    lr: 0.001\n" in text
    assert "lr_backbone: 0.001" in text
