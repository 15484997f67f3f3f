"""The objective of training on two ranks: DDP waits for the gradient of every parameter, and is not
told to look for those that have none (find_unused_parameters), which recomputation rules out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from model_support import NUM_CLASSES, images, small_config, targets
from ranks import run_ranks
from torch.nn.parallel import DistributedDataParallel

from rtdetr_slurm.engine.losses import build_criterion
from rtdetr_slurm.engine.models import build_model
from rtdetr_slurm.engine.process.distributed import Context
from rtdetr_slurm.engine.training.objective import DetectionObjective
from rtdetr_slurm.engine.training.optim import freeze

CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "all losses": ({}, []),
    "vfl alone": ({"loss_types": ["vfl"]}, []),
    "boxes alone": ({"loss_types": ["boxes"]}, []),
    "last layer alone": ({"aux_loss": False}, []),
    "frozen stage": ({}, ["backbone.res_layers.1"]),
    "frozen backbone, vfl of the last layer": (
        {"loss_types": ["vfl"], "aux_loss": False},
        ["backbone", "decoder.enc_bbox_head"],
    ),
}
"""Changes of `model`, and what is frozen."""


def gradients_of_rank(context: Context, folder: Path) -> None:
    """Rank 1 has no boxes."""
    found: dict[str, dict[str, torch.Tensor | None]] = {}
    for name, (changes, frozen) in CASES.items():
        cfg = small_config(dec_layers=2, return_interm_indices=[0, 1], feat_strides=[4, 8],
                           num_feature_levels=2, feat_channels=[32, 32], use_encoder_idx=[1],
                           **changes)  # fmt: skip
        for again in (False, True):
            torch.manual_seed(0)
            model = build_model(cfg, NUM_CLASSES, activation_checkpoint=again)
            freeze(model, frozen)
            objective = DetectionObjective(model, build_criterion(cfg), "fp32").train()
            wrapped = DistributedDataParallel(objective, find_unused_parameters=False)
            for _ in range(2):  # DDP complains about the first step in the second
                torch.manual_seed(context.rank)  # of the denoising queries
                batch = targets(3, 1) if context.rank == 0 else targets(0, 0)
                loss, _ = wrapped(images(), batch, torch.tensor(2.0))
                objective.zero_grad()
                loss.backward()
            found[f"{name}, {'recomputed' if again else 'kept'}"] = {
                name: parameter.grad for name, parameter in model.named_parameters()
            }
    torch.save(found, folder / f"{context.rank}.pth")


@pytest.fixture(scope="module")
def gradients(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Of both ranks, by case."""
    folder = tmp_path_factory.mktemp("gradients")
    run_ranks(gradients_of_rank, folder)
    return [torch.load(folder / f"{rank}.pth", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("case", CASES)
def test_every_trained_parameter_has_its_gradient(
    gradients: list[dict[str, Any]], case: str
) -> None:
    """No hang, and the same one on both ranks, finite, whether activations were kept or not."""
    one, two = (of_rank[f"{case}, kept"] for of_rank in gradients)
    again = gradients[0][f"{case}, recomputed"]
    frozen = tuple(CASES[case][1])
    assert one.keys() == two.keys() == again.keys()
    for name, grad in one.items():
        if frozen and name.startswith(frozen):
            assert grad is None, name
            assert again[name] is None, name
            continue
        assert torch.isfinite(grad).all(), name
        assert torch.equal(grad, two[name]), name
        torch.testing.assert_close(again[name], grad, msg=name)
    if case == "all losses":
        assert sum(grad.abs().sum() > 0 for grad in one.values()) > 0.9 * len(one)
