"""The optimizer and its groups, and what is frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import SGD, AdamW, Optimizer

from rtdetr_slurm.errors import RequestError

if TYPE_CHECKING:
    from rtdetr_slurm.spec.train import OptimConfig


def parameter_groups(
    model: nn.Module, cfg: OptimConfig, auxiliary: nn.Module | None = None
) -> list[dict[str, Any]]:
    """Four groups of the trainable parameters; a group without parameters is left out.

    The backbone has its own rate. Biases, norm weights and what else scales a channel have no
    weight decay, as in the published R18 and R34. Each group keeps its full rate as `base_lr`.

    Args:
        auxiliary: what is trained beside the model, at the rate of encoder and decoder.
    """
    beside = auxiliary or nn.Module()
    no_decay: dict[str, Any] = {"weight_decay": 0.0}
    groups: dict[tuple[bool, bool], dict[str, Any]] = {
        (True, False): {"name": "backbone", "lr": cfg.lr_backbone},
        (True, True): {"name": "backbone_no_decay", "lr": cfg.lr_backbone, **no_decay},
        (False, True): {"name": "no_decay", "lr": cfg.lr, **no_decay},
        (False, False): {"name": "decay", "lr": cfg.lr},
    }
    for group in groups.values():
        group |= {"params": [], "base_lr": group["lr"]}
    for name, parameter in (*model.named_parameters(), *beside.named_parameters()):
        if parameter.requires_grad:
            kind = (name.startswith("backbone."), parameter.dim() <= 1)
            groups[kind]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]


def build_optimizer(
    model: nn.Module, cfg: OptimConfig, auxiliary: nn.Module | None = None
) -> Optimizer:
    """The spec's optimizer in its fused form, one kernel per group."""
    groups = parameter_groups(model, cfg, auxiliary)
    if cfg.optimizer == "SGD":
        return SGD(groups, momentum=cfg.momentum, weight_decay=cfg.weight_decay, fused=True)
    return AdamW(groups, weight_decay=cfg.weight_decay, fused=True)


def freeze(model: nn.Module, names: list[str] | None) -> list[nn.Module]:
    """Stop training the modules or parameters that `train.freeze` names.

    Args:
        names: dotted names as in the checkpoint, whole modules (`backbone`, `encoder.fpn_blocks`)
            or single parameters.

    Returns:
        The batch norms inside: their running statistics are to stay as they are, too.

    Raises:
        RequestError: a name fits nothing, or nothing would be left to train.
    """
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
    norms: list[nn.Module] = []
    for name in names or []:
        if name in modules and name:
            modules[name].requires_grad_(False)
            norms += [m for m in modules[name].modules() if isinstance(m, _NormBase)]
        elif name in parameters:
            parameters[name].requires_grad_(False)
        else:
            parent = name.rpartition(".")[0]
            inside = modules.get(parent, model)
            raise RequestError(
                f"train.freeze names '{name}', which the model does not have; in "
                f"{parent if parent in modules and parent else 'the model'} there are "
                f"{', '.join(n for n, _ in inside.named_children()) or 'no modules'}"
            )
    if not any(p.requires_grad for p in model.parameters()):
        raise RequestError("train.freeze leaves nothing to train")
    return norms
