"""The sizes that images have in a spec, and what follows from them before anything is queued."""

from __future__ import annotations

from pathlib import Path

import pytest
from spec_files import NEEDED, load, only, problems

from rtdetr_slurm.spec.dataset import AugmentationConfig, scales_around

SHAPE = "dataset.augmentation.train_spatial_size=[384, 640]"
EVAL = "dataset.augmentation.eval_spatial_size=[384, 640]"
WIDE = [[288, 480], [320, 512], [320, 544], [352, 576], [352, 608], [384, 640], [416, 672],
        [416, 704], [448, 736], [448, 768], [480, 800]]  # fmt: skip
SCALES = "dataset.augmentation.multi_scales"


def train(folder: Path, *overrides: str) -> tuple[AugmentationConfig, tuple[str, ...]]:
    loaded = load(folder, "", *NEEDED["train"], *overrides, action="train")
    return loaded.experiment.dataset.augmentation, loaded.notes


def test_the_default_scales_follow_the_shape(tmp_path: Path) -> None:
    augmentation, notes = train(tmp_path, SHAPE, EVAL)
    assert augmentation.multi_scales == WIDE
    assert notes == (f"{SCALES}: [288, 480] to [480, 800], around train_spatial_size [384, 640]",)
    augmentation, notes = train(tmp_path)
    assert augmentation.multi_scales == AugmentationConfig().multi_scales
    assert augmentation.multi_scales == [*range(480, 801, 32)]
    assert notes == ()
    augmentation, _ = train(tmp_path, SHAPE, EVAL, f"{SCALES}=[]")
    assert augmentation.multi_scales == []


def test_scales_are_sizes_that_the_network_takes() -> None:
    for height, width in ((32, 32), (64, 96), (160, 160), (384, 640), (1088, 1920)):
        scales = scales_around(height, width)
        sides = [side for scale in scales for side in (scale if type(scale) is list else [scale])]
        assert all(side >= 32 and side % 32 == 0 for side in sides)
        assert (height if height == width else [height, width]) in scales


def test_scales_that_never_have_the_evaluated_shape_are_said(tmp_path: Path) -> None:
    _, notes = train(tmp_path, SHAPE, EVAL, f"{SCALES}=[480, 512, 640]")
    assert only([*notes]) == (
        "dataset.augmentation.eval_spatial_size: images are scored at [384, 640], a size that no "
        "training batch has, and are usually detected worse for it; batches have [480, 480] to "
        "[640, 640], by multi_scales (left out, it follows train_spatial_size)"
    )
    _, notes = train(tmp_path, SHAPE, f"{SCALES}=[]")
    assert "scored at [640, 640], a size" in only([*notes])
    assert only([*notes]).endswith("; batches have [384, 640], by train_spatial_size")
    _, notes = train(tmp_path, SHAPE, EVAL, f"{SCALES}=[480, [384, 640]]")
    assert notes == ()


def test_the_size_of_a_follow_up_counts_too(tmp_path: Path) -> None:
    test = NEEDED["evaluate"][0]
    size = ["evaluate.input_height=960", "evaluate.input_width=960"]
    chain = [*NEEDED["train"], test, "job.then=[evaluate]"]
    notes = load(tmp_path, "", *chain, *size, action="train").notes
    assert "evaluate.input_height: images are scored at [960, 960]" in only([*notes])
    assert load(tmp_path, "", *NEEDED["evaluate"], *size, action="evaluate").notes == ()


SMALL = ["dataset.augmentation.train_spatial_size=[160, 160]", f"{SCALES}=[]", "model.num_select=1"]


@pytest.mark.parametrize(
    ("overrides", "most"),
    [
        (["dataset.augmentation.eval_spatial_size=[96, 96]", *SMALL], 144 + 36 + 9),
        (["dataset.augmentation.eval_spatial_size=[160, 160]", *SMALL], 400 + 100 + 25),
        ([f"{SCALES}=[640, 128]"], 256 + 64 + 16),
        ([f"{SCALES}=[[64, 640]]"], 640 + 160 + 40),
        ([SHAPE, EVAL], (36 * 60) + (18 * 30) + (9 * 15)),
    ],
)
def test_queries_that_no_image_has_cells_for(
    tmp_path: Path, overrides: list[str], most: int
) -> None:
    load(tmp_path, "", *NEEDED["train"], *overrides, f"model.num_queries={most}", action="train")
    override = f"model.num_queries={most + 1}"
    lines = problems(tmp_path, "", *NEEDED["train"], *overrides, override, action="train")
    assert f"model.num_queries: found {most + 1}; allowed: ≤ {most}, the cells" in only(lines)


def test_evaluate_looks_at_its_own_size(tmp_path: Path) -> None:
    small = ["evaluate.input_height=96", "evaluate.input_width=96"]
    line = only(problems(tmp_path, "", *NEEDED["evaluate"], *small, action="evaluate"))
    assert line == (
        "override 'evaluate.input_height=96': model.num_queries: found 300; allowed: ≤ 189, the "
        "cells of the feature maps of an image of 96 × 96 pixels, the smallest of action "
        "'evaluate' (evaluate.input_height)"
    )
    # What training is shown is not its business.
    load(tmp_path, "", *NEEDED["evaluate"], *SMALL, action="evaluate")


def test_a_wrong_size_is_named_where_it_stands(tmp_path: Path) -> None:
    text = "dataset:\n  augmentation: {eval_spatial_size: [96, 96]}\n"
    line = only(problems(tmp_path, text, *NEEDED["train"], action="train"))
    assert line.startswith("spec.yaml:2:37: model.num_queries: found 300; allowed: ≤ 189")
    assert line.endswith("(dataset.augmentation.eval_spatial_size)")
    # A size that is none at all is complained of as before.
    text = "dataset:\n  augmentation: {train_spatial_size: [96, x]}\n"
    line = only(problems(tmp_path, text, *NEEDED["train"], action="train"))
    assert "train_spatial_size[1]: found 'x' (text); allowed: an integer" in line


ONE_CELL = ["dataset.augmentation.train_spatial_size=[32, 32]", "model.num_queries=1",
            "model.num_select=1", "dataset.batch_size=1"]  # fmt: skip


def test_batch_norm_needs_more_than_one_value(tmp_path: Path) -> None:
    needed = [*NEEDED["train"], *ONE_CELL]
    line = only(problems(tmp_path, "", *needed, f"{SCALES}=[64, 32]", action="train"))
    assert line == (
        "override 'dataset.batch_size=1': dataset.batch_size: found 1; allowed: ≥ 2 with images of "
        f"32 × 32 pixels ({SCALES}[1]), whose coarsest feature map has one cell: batch norm needs "
        "more than one value"
    )
    load(tmp_path, "", *needed, f"{SCALES}=[64, [32, 64]]", action="train")
    load(tmp_path, "", *needed, f"{SCALES}=[]", "train.num_gpus=2", action="train")
    load(tmp_path, "", *needed[:-1], f"{SCALES}=[]", "dataset.batch_size=2", action="train")
