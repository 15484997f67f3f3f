"""Where a detector is deployed, and what the job asks of the program that does it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rtdetr_slurm.actions import DEPLOY, Action, get_action
from rtdetr_slurm.contract import ONNX_SUFFIX
from rtdetr_slurm.errors import RequestError, near
from rtdetr_slurm.plan.model import Launch
from rtdetr_slurm.resolved_spec import value_at

if TYPE_CHECKING:
    from rtdetr_slurm.site.profile import Site, Target
    from rtdetr_slurm.spec import LoadedSpec

_ON_CPU, _BUILDS_WITHOUT_GPU = "onnxruntime", "tensorrt_rtx"


def targets_of(loaded: LoadedSpec, spec: Mapping[str, Any], site: Site) -> Sequence[Target]:
    """The kinds of GPU that the deploy actions of a spec run on; none where the site lists none.

    Args:
        spec: frozen, of `loaded`.

    Raises:
        RequestError: job.targets names another, or one engine would be that of several.
    """
    listed = site.roles.tensorrt.targets
    names = [target.name for target in listed]
    for name in loaded.job.targets:
        if name not in names:
            there = ", ".join(names) or "none"
            raise RequestError(
                f"job.targets: found '{name}'; roles.tensorrt.targets of site '{site.name}' has: "
                f"{there}{near(name, names)}"
            )
    chosen = [target for target in listed if target.name in (loaded.job.targets or names)]
    for action in map(get_action, loaded.actions):
        named = _engine_of(action, spec) if action.program == DEPLOY else ""
        if named and len(chosen) > 1:
            several = ", ".join(target.name for target in chosen)
            raise RequestError(
                f"{action.section}.trt_engine: found {named}, one engine for {several} "
                "(roles.tensorrt.targets of the site profile); leave it empty, so that each has "
                "its own, or name one of them in job.targets"
            )
    return chosen


def deploy_options(
    action: Action, loaded: LoadedSpec, launch: Launch, target: Target | None
) -> tuple[str, ...]:
    """What the job asks of a deploy action, as its program's arguments.

    Raises:
        RequestError: it needs a GPU, and its job has none.
    """
    if action.program != DEPLOY or launch.engine == "tao":
        return ()
    given = _building if action.leaves == "engine" else _running
    named: dict[str, object] = {
        **dict(given(action, loaded, launch, target)),
        "max_map_drop": loaded.job.max_map_drop,
    }
    return tuple(
        f"--{name.replace('_', '-')}={value}" for name, value in named.items() if value is not None
    )


def _building(
    action: Action, loaded: LoadedSpec, launch: Launch, target: Target | None
) -> Iterator[tuple[str, str | None]]:
    runtime, capability = loaded.job.runtime, loaded.job.compute_capability
    if capability is not None and len(loaded.job.targets) != 1 and target is not None:
        raise RequestError(
            f"job.compute_capability: found {capability}, one for every target; leave it out, and "
            "set compute_capability of each in roles.tensorrt.targets of the site profile, or "
            "name one target in job.targets"
        )
    if launch.accelerator == "cpu":
        capability = capability or (target.compute_capability if target else None)
        if capability is None:
            place = f"of target {target.name}" if target else "or one for each of its targets"
            raise RequestError(
                f"job.compute_capability: missing; {action.name} builds for the GPU of its job, "
                "and this one has none (accelerator is cpu): name the one to build for, such as "
                f"8.9, here or in the site profile (compute_capability {place})"
            )
        if runtime == "tensorrt":
            raise RequestError(
                "job.runtime: found 'tensorrt', which builds on a GPU alone, and the job of "
                f"{action.name} has none (accelerator is cpu); allowed: {_BUILDS_WITHOUT_GPU}"
            )
    yield "runtime", None if runtime == _ON_CPU else runtime
    yield "compute_capability", capability


def _running(
    action: Action, loaded: LoadedSpec, launch: Launch, _target: Target | None
) -> Iterator[tuple[str, str | None]]:
    runtime = loaded.job.runtime
    named = _engine_of(action, loaded.resolved())
    if launch.accelerator == "cpu" and runtime != _ON_CPU and not named.endswith(ONNX_SUFFIX):
        found = f"found '{runtime}'" if runtime else "missing"
        raise RequestError(
            f"job.runtime: {found}; {action.name} runs an engine on the GPU of its job, and this "
            f"one has none (accelerator is cpu); allowed: {_ON_CPU}, which computes on the CPU "
            "what the engine was built from"
        )
    yield "runtime", runtime


def _engine_of(action: Action, spec: Mapping[str, Any]) -> str:
    """The engine that a spec names for a deploy action to make or to run; empty: none."""
    return str(value_at(spec, f"{action.section}.trt_engine") or "")
