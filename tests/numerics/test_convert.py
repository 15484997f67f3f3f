"""`rtdetr convert`: transformers computes what this engine does with the same checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import NUM_CLASSES, images, our_config, randomise, their_model
from transformers import AutoImageProcessor, RTDetrForObjectDetection

from rtdetr_slurm.engine.models import build_model
from rtdetr_slurm.engine.models.keymap import load_weights
from rtdetr_slurm.engine.process.entry import command
from rtdetr_slurm.engine.training.checkpoint import read_checkpoint, save_new
from rtdetr_slurm.spec import ExperimentConfig
from rtdetr_slurm.spec.model import ModelConfig

CLASSES = {1: "red blood cell", 79: "Thrombozyt"}


def checkpoint_of(path: Path, model: ModelConfig, **train: Any) -> Path:
    """Randomised weights as a training leaves them, in float32."""
    spec = ExperimentConfig.model_validate(
        {
            "model": model.model_dump(),
            "dataset": {
                "num_classes": NUM_CLASSES,
                "augmentation": {"eval_spatial_size": [256, 384]},
            },
        }
    )
    detector = build_model(model, NUM_CLASSES).float()
    randomise(detector)
    weights = {
        "epoch": 3,
        "model": {},
        "ema": detector.state_dict(),
        "classes": CLASSES,
        "spec": spec.model_dump(include={"model", "dataset"}),
        "optimizer": {},
    }
    save_new(path, weights)
    return path


MODELS: dict[str, dict[str, Any]] = {
    "vd": {},
    "plain": {"backbone": "resnet_18"},
    "constant norms": {"train_backbone": False},
    "cut": {"eval_idx": 1, "dn_number": 0},
    "two levels": {
        "return_interm_indices": [1, 2],
        "num_feature_levels": 2,
        "feat_strides": [8, 16],
        "feat_channels": [128, 128],
        "use_encoder_idx": [1],
        "enc_act": "relu",
        "act": "leaky_relu",
        "nheads": 4,
    },
}


@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS)
@torch.no_grad()
def test_there_and_back(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = our_config(18, **changes)
    path = checkpoint_of(tmp_path / "model.pth", config)
    folder = tmp_path / "hf"
    assert command(["convert", str(path), "-o", str(folder), "--to", "huggingface"]) == 0

    theirs, info = RTDetrForObjectDetection.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager", dtype=torch.float32
    )
    assert not any(info.values()), info
    assert theirs.config.id2label[79] == "Thrombozyt"
    assert theirs.config.num_labels == NUM_CLASSES
    ours = build_model(config, NUM_CLASSES)
    load_weights(ours, path, part="detector")
    ours = ours.double().eval()
    x = images(1, 256, 384)
    expected, found = ours(x), theirs.double().eval()(x)
    torch.testing.assert_close(found.logits, expected["pred_logits"], rtol=0, atol=1e-6)
    torch.testing.assert_close(found.pred_boxes, expected["pred_boxes"], rtol=0, atol=1e-6)

    back = tmp_path / "back.pth"
    assert command(["convert", str(folder), "-o", str(back), "--to", "rtdetr"]) == 0
    content = read_checkpoint(back)
    assert content["classes"] == CLASSES
    spec = ExperimentConfig.model_validate(content["spec"])
    assert spec.dataset.augmentation.eval_spatial_size == [256, 384]
    again = build_model(spec.model, spec.dataset.num_classes)
    load_weights(again, back, part="detector")
    for name, value in again.double().eval()(x).items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-12)


def test_the_image_processor_makes_our_input(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    from rtdetr_slurm.vision.preprocess import Resize, preprocess

    path = checkpoint_of(tmp_path / "model.pth", our_config(18))
    command(["convert", str(path), "-o", str(tmp_path / "hf"), "--to", "huggingface"])
    image = np.random.default_rng(1).integers(0, 256, (300, 500, 3), dtype=np.uint8)
    made = AutoImageProcessor.from_pretrained(tmp_path / "hf")(
        images=Image.fromarray(image), return_tensors="pt"
    )
    expected = preprocess(image, Resize((256, 384)))
    assert made["pixel_values"].shape == expected.shape
    assert (made["pixel_values"] - expected).abs().max() <= 1.01 / 255
    assert json.loads((tmp_path / "hf" / "preprocessor_config.json").read_text())["do_pad"] is False


@pytest.mark.parametrize("second", [False, True], ids=["RTDetr", "RTDetrV2"])
@torch.no_grad()
def test_what_transformers_saves(tmp_path: Path, second: bool) -> None:
    """Its own file is read as it is, and converted."""
    theirs = their_model(18, freeze_norm=True, second=second).float()
    theirs.save_pretrained(tmp_path / "hf")
    back = tmp_path / "back.pth"
    assert command(["convert", str(tmp_path / "hf"), "-o", str(back), "--to", "rtdetr"]) == 0
    model = ExperimentConfig.model_validate(read_checkpoint(back)["spec"]).model
    assert model == our_config(18)
    x = images(1, 256, 384)
    expected = theirs.double().eval()(x)
    for path in (back, tmp_path / "hf" / "model.safetensors"):
        ours = build_model(model, NUM_CLASSES)
        load_weights(ours, path, part="detector")
        found = ours.double().eval()(x)
        torch.testing.assert_close(found["pred_logits"], expected.logits, rtol=0, atol=1e-6)
        torch.testing.assert_close(found["pred_boxes"], expected.pred_boxes, rtol=0, atol=1e-6)
