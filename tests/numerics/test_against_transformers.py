"""Our model and losses equal transformers' RTDetrForObjectDetection with the same weights."""

from __future__ import annotations

import pytest
import torch
from reference import (
    NUM_CLASSES,
    images,
    our_config,
    our_model,
    targets,
    their_labels,
    their_model,
)
from torch import nn
from transformers.models.rt_detr.modeling_rt_detr import (
    build_2d_sinusoidal_position_embedding,
    get_contrastive_denoising_training_group,
)

from rtdetr_slurm.engine.losses import build_criterion
from rtdetr_slurm.engine.models.denoising import denoising_queries
from rtdetr_slurm.engine.models.positions import position_code
from rtdetr_slurm.engine.models.types import PaddedTargets


@torch.no_grad()
def check_forward(depth: int, freeze_norm: bool, height: int, width: int) -> None:
    theirs = their_model(depth, freeze_norm).eval()
    ours = our_model(theirs, depth, freeze_norm).eval()
    x = images(1, height, width)
    expected, found = theirs(x), ours(x)
    torch.testing.assert_close(found["pred_logits"], expected.logits, rtol=0, atol=1e-6)
    torch.testing.assert_close(found["pred_boxes"], expected.pred_boxes, rtol=0, atol=1e-6)
    spread = min(value.std(dim=1).mean().item() for value in found.values())
    assert spread > 0.01, f"the queries hardly differ ({spread}): this would prove nothing"


@pytest.mark.parametrize("depth", [18, 50])
def test_forward_at_640(depth: int) -> None:
    check_forward(depth, True, 640, 640)


@pytest.mark.parametrize("depth", [18, 50])
def test_forward_of_a_rectangle_with_trainable_norms(depth: int) -> None:
    check_forward(depth, False, 256, 384)


@pytest.mark.parametrize("freeze_norm", [False, True])
@pytest.mark.parametrize("depth", [18, 50])
def test_loss_terms(depth: int, freeze_norm: bool) -> None:
    """Every term: matched sets, denoising with the same noise, batch statistics or frozen ones."""
    theirs = their_model(depth, freeze_norm).train()
    ours = our_model(theirs, depth, freeze_norm).train()
    x, batch = images(2, 256, 256), targets(3, 7)

    torch.manual_seed(5)
    expected = theirs(x, labels=their_labels(batch)).loss_dict
    torch.manual_seed(5)
    found = build_criterion(our_config(depth))(ours(x, batch), batch, torch.tensor(10.0))

    last = our_config(depth).dec_layers - 1  # they count the encoder's set as one more layer
    renamed = {name.replace(f"_aux_{last}", "_enc"): value for name, value in expected.items()}
    assert found.keys() == renamed.keys()
    assert len(found) == 3 * (last + 1 + 1 + last + 1)
    for name, value in renamed.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=0, msg=name)


@pytest.mark.parametrize("freeze_norm", [False, True])
def test_batch_statistics_move_alike(freeze_norm: bool) -> None:
    theirs = their_model(18, freeze_norm).train()
    ours = our_model(theirs, 18, freeze_norm).train()
    x, batch = images(2, 160, 160), targets(2, 1)
    theirs(x, labels=their_labels(batch))
    ours(x, batch)
    after = our_model(theirs, 18, freeze_norm).state_dict()
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, after[name], rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("counts", [(3, 7), (1, 0, 2), (0, 100)])
def test_denoising_noise(counts: tuple[int, ...]) -> None:
    batch = targets(*counts)
    embed = nn.Embedding(NUM_CLASSES + 1, 16, NUM_CLASSES)
    torch.manual_seed(5)
    content, boxes, mask, meta = get_contrastive_denoising_training_group(
        their_labels(batch), NUM_CLASSES, 300, embed, 100
    )
    torch.manual_seed(5)
    found = denoising_queries(PaddedTargets.from_list(batch), 100, NUM_CLASSES, 300, embed)
    torch.testing.assert_close(found.content, content, rtol=0, atol=0)
    torch.testing.assert_close(found.box_logits, boxes, rtol=0, atol=1e-12)
    assert torch.equal(found.allowed, mask == 0)
    assert found.groups == meta["dn_num_group"]


def test_position_code() -> None:
    expected = build_2d_sinusoidal_position_embedding(5, 7, 32, 10000.0, dtype=torch.float64)
    found = position_code(5, 7, 32, 10000.0, torch.float64, torch.device("cpu"))
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("depth", [18, 50])
@torch.no_grad()
def test_fused_equals_unfused(depth: int) -> None:
    ours = our_model(their_model(depth, False), depth, False).eval()
    fused = ours.fuse()
    kinds = {type(module).__name__ for module in fused.modules()}
    assert not kinds & {"BatchNorm2d", "FrozenBatchNorm2d"}
    x = images(1, 256, 256)
    for name, value in ours(x).items():
        torch.testing.assert_close(fused(x)[name], value, rtol=0, atol=1e-10)
