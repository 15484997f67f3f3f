"""Two gloo ranks of which one has no boxes: no hang, the same gradients, none unused."""

from __future__ import annotations

import socket
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from model_support import images, small_config, small_model, targets
from torch.nn.parallel import DistributedDataParallel

from rtdetr_slurm.engine.losses import build_criterion


def run_rank(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    model = DistributedDataParallel(small_model().train(), find_unused_parameters=False)
    criterion = build_criterion(small_config())
    for step in range(2):  # DDP complains about the first step in the second
        batch = targets(3, 1) if rank == step else targets(0, 0)
        terms = criterion(model(images(), batch), batch, torch.tensor(2.0))
        model.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
    grads = {name: parameter.grad for name, parameter in model.module.named_parameters()}
    torch.save(grads, Path(folder) / f"{rank}.pth")
    dist.destroy_process_group()


def test_one_rank_without_boxes(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = mp.spawn(run_rank, (port, str(tmp_path)), nprocs=2, join=False)
    assert context is not None
    for _ in range(60):
        if context.join(timeout=2):
            break
    else:
        for process in context.processes:
            process.kill()
        raise AssertionError("the ranks hang")
    one, two = (torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in (0, 1))
    assert one.keys() == two.keys()
    for name, grad in one.items():
        assert torch.isfinite(grad).all(), name
        assert torch.equal(grad, two[name]), name
    assert sum(grad.abs().sum() > 0 for grad in one.values()) > 0.9 * len(one)
