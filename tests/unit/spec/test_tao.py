"""What is refused of a spec for TAO's images, and what is said."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from spec_files import NEEDED, TRAIN, write

from rtdetr_slurm.actions import EngineName
from rtdetr_slurm.model_check import InvalidInput
from rtdetr_slurm.spec import LoadedSpec, load_spec
from rtdetr_slurm.spec.experiment import ExperimentConfig
from rtdetr_slurm.spec.fields import walk
from rtdetr_slurm.spec.tao import IGNORED, REFUSED, REFUSED_IN_TENSORRT
from rtdetr_slurm.yaml_source import dotted


def tao(_action: str) -> EngineName:
    return "tao"


def load(folder: Path, *overrides: str, action: str = "train") -> LoadedSpec:
    return load_spec(write(folder, TRAIN), overrides, action, engine_of=tao)


def test_every_field_that_is_spoken_of_exists() -> None:
    fields = {dotted(ref.path).replace("[]", "") for ref in walk(ExperimentConfig)}
    assert {*IGNORED, *REFUSED, *REFUSED_IN_TENSORRT} <= fields


def test_what_our_engine_lacks_taos_image_has(tmp_path: Path) -> None:
    load(tmp_path, "model.backbone=fan_tiny_8_p4_hybrid", *NEEDED["export"])
    overrides = [*NEEDED["export"], "export.batch_size=2"]
    load(tmp_path, *overrides, action="export")


def test_convnext_has_three_levels_there(tmp_path: Path) -> None:
    two = ("model.return_interm_indices=[2, 3]", "model.feat_strides=[16, 32]",
           "model.feat_channels=[256, 256]", "model.num_feature_levels=2",
           "model.use_encoder_idx=[1]", "model.backbone=convnextv2_atto")  # fmt: skip
    message = "return_interm_indices: found [2, 3]; allowed with TAO's image and convnextv2_atto"
    with pytest.raises(InvalidInput, match=re.escape(message)):
        load(tmp_path, *two)
    load_spec(write(tmp_path, TRAIN), two, "train")


@pytest.mark.parametrize(
    ("action", "override", "message"),
    [
        ("train", "model.backbone=resnet_50_vd", "does not have it; the nearest is 'resnet_50'"),
        ("train", "model.backbone=fan_small", "the nearest is 'fan_small_12_p4_hybrid'"),
        ("train", "model.expansion=0.5", "a whole number"),
        ("train", "train.optim.optimizer=SGD", "'AdamW'; its RT-DETR has no other"),
        ("train", "train.checkpoint_interval=3", "divides train.num_epochs, 10"),
        ("train", "train.checkpoint_interval_unit=step", "takes all for epochs"),
        ("train", "engine.recipe=deim", "TAO's image has no such option"),
        ("train", "engine.early_stopping.patience=3", "TAO's image has no such option"),
        (
            "train",
            "dataset.augmentation={preserve_aspect_ratio: true, eval_spatial_size: [320, 640]}",
            "it pads to a square",
        ),
        ("trt_evaluate", "dataset.augmentation.preserve_aspect_ratio=true", "stretches images"),
        ("evaluate", "evaluate.num_nodes=2", "1; it uses no more"),
        ("evaluate", "evaluate.conf_threshold=0.1", "against the wrong images"),
        ("inference", "dataset.infer_data_sources.image_dir=[/i, /a.TGZ]", "image: folders, with"),
        ("inference", "dataset.infer_data_sources.image_dir=[/list.txt]", "image: folders, with"),
        ("trt_evaluate", "evaluate.num_gpus=2", "1; it uses no more"),
        ("quantize", "quantize.layers=[]", "quantize nothing, and call it a success"),
        ("gen_trt_engine", "gen_trt_engine.tensorrt.workspace_size=512", "makes 0 GiB of less"),
    ],
)
def test_what_ends_in_an_error_or_is_worth_nothing(
    tmp_path: Path, action: str, override: str, message: str
) -> None:
    with pytest.raises(InvalidInput) as error:
        load(tmp_path, *NEEDED[action], override, action=action)
    assert message in str(error.value)


def test_what_has_no_effect_is_said(tmp_path: Path) -> None:
    loaded = load(tmp_path, "train.optim.lr_backbone=2e-5", "train.checkpoint_interval=5")
    notes = "\n".join(loaded.notes)
    assert "train.optim.lr_backbone: without effect here, as TAO passes over it" in notes
    assert "goes on from its last checkpoint, written after every 5 epochs" in notes
    assert "TAO" not in "\n".join(load_spec(write(tmp_path, TRAIN), (), "train").notes)
