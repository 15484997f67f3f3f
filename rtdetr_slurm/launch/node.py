"""The node wrapper: one per node, run by the inner srun, replaced by apptainer if all is well."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from rtdetr_slurm.actions import DEPLOY, TAO_FOLDER, get_action
from rtdetr_slurm.contract import SPEC_YAML, Env
from rtdetr_slurm.errors import SiteError, UserError, explained
from rtdetr_slurm.files import PRIVATE_FILE, write_atomic
from rtdetr_slurm.launch import checks, tao
from rtdetr_slurm.launch.arrivals import STARTED_FILE
from rtdetr_slurm.launch.container import (
    apptainer_argv,
    apptainer_environment,
    host_command,
    host_environment,
    inside_environment,
)
from rtdetr_slurm.launch.copies import take_copies, with_copies
from rtdetr_slurm.launch.inputs import read_inputs
from rtdetr_slurm.launch.log import say
from rtdetr_slurm.launch.node_errors import node_name, write_node_error
from rtdetr_slurm.launch.patience import patiently
from rtdetr_slurm.launch.rendezvous import Layout, layout_of_task
from rtdetr_slurm.launch.scratch import scratch_folder
from rtdetr_slurm.launch.step import task_of_words
from rtdetr_slurm.places import refusal
from rtdetr_slurm.plan.model import Bind, Container, Stage, StageTask
from rtdetr_slurm.records import read_file
from rtdetr_slurm.resolved_spec import value_at
from rtdetr_slurm.runs.lineage import sources_of
from rtdetr_slurm.runs.run import Run, open_run
from rtdetr_slurm.runs.secrets import secrets_of

_FUSE_PROGRAMS = ("squashfuse_ll", "squashfuse", "fuse2fs", "fuse-overlayfs")
"""What an unprivileged Apptainer looks for on PATH, unless it has brought its own."""
_ALONE = (".pth", ".safetensors")
"""Models to which no other file belongs."""
_MAY_GO = "the image may be gone when Slurm itself ends the job, before a checkpoint is written"


def run_node(arguments: Sequence[str]) -> int:
    """Start one node of a stage; returns only where a check refuses.

    Args:
        arguments: as `on_node` has them.
    """
    return on_node(arguments, start)


def on_node(
    arguments: Sequence[str], work: Callable[[Run, StageTask, Mapping[str, str]], int]
) -> int:
    """Do the work of one node of a step; why it refuses is written down for the launch.

    Args:
        arguments: run folder, and the task (step.task_words).
        work: is given the environment, too; returns the exit code.
    """
    try:
        run = patiently(lambda: open_run(Path(arguments[0])))
        task = task_of_words(run, arguments[1:])
    except UserError as error:
        say(str(error))
        return error.exit_code
    slurm = task.stage.launch.scheduler == "slurm"
    rank = int(os.environ.get("SLURM_PROCID", "0")) if slurm else 0
    try:
        return work(run, task, os.environ)
    except (UserError, OSError) as caught:
        problem = explained(caught)
        node = node_name(os.environ)
        say(f"node {rank} ({node}): {problem}")
        try:
            write_node_error(run, task, rank, node, problem)
        except OSError as error:
            say(f"this cannot be written down: {explained(error)}")
        return problem.exit_code


def start(run: Run, task: StageTask, environ: Mapping[str, str]) -> NoReturn:
    """Check everything, then become the container (or the engine, on the host).

    Raises:
        UserError: a check failed; nothing was started.
    """
    stage = task.stage
    layout = layout_here(stage, environ)
    devices = checks.visible_devices(environ, stage)
    if stage.launch.accelerator == "cuda":
        checks.check_gpu_devices(stage.resources)
    binds = input_binds(run, task)
    if stage.container is not None:
        recorded = run.manifest.images[stage.container.image.path]
        checks.check_container(stage.container, binds, recorded)
    if get_action(stage.action).trains:
        checks.check_weights(run.manifest.models)
    checks.check_python(stage.launch.python)
    checks.check_results(task.results_dir)
    scratch = scratch_folder(stage.launch.scratch)
    checks.check_master(environ, layout)
    stage, binds = with_copies(stage, binds, take_copies(run, task, layout.rank, scratch))
    # The engine may rewrite its spec, so every node has its own.
    workdir = run.node_dir(task, layout.rank)
    write_atomic(workdir / SPEC_YAML, read_file(run.task_spec(task)), mode=PRIVATE_FILE)
    inside = inside_environment(environ, stage, rank=layout.rank, devices=devices, scratch=scratch)
    secrets = secrets_of(run.path, stage)
    if unset := [name for name in stage.launch.secrets if name not in {*secrets, *environ}]:
        say(f"{', '.join(unset)}: not set where this was submitted, so the program does without")
    inside |= secrets
    inside[Env.STARTED] = str(workdir / STARTED_FILE)
    seen_as = str(workdir)
    if stage.launch.engine == "tao":
        tao.check_master(inside, layout)
        binds, seen_as = (*binds, Bind(str(workdir), TAO_FOLDER)), TAO_FOLDER
        inside = tao.enclosed(workdir, stage, layout, inside)
    become_program(
        stage, environ, inside, workdir=workdir, seen_as=seen_as, binds=binds, scratch=scratch
    )


def layout_here(stage: Stage, environ: Mapping[str, str]) -> Layout:
    """This node's place among those of the stage.

    Raises:
        SiteError: there are not as many as it needs, or their order is another one.
    """
    layout = Layout(0, 1) if stage.launch.scheduler == "local" else layout_of_task(environ)
    checks.check_layout(layout, stage)
    return layout


def become_program(
    stage: Stage,
    environ: Mapping[str, str],
    inside: Mapping[str, str],
    *,
    workdir: Path,
    seen_as: str | None = None,
    binds: Sequence[Bind],
    scratch: str | None,
) -> NoReturn:
    """Become the stage's command, in its container or on the host.

    Args:
        inside: the environment that the command is told.
        seen_as: where the container sees `workdir`; None: at its own path.
        binds: besides those of the plan.

    Raises:
        SiteError: there is no apptainer here, or the Python does not have this package.
    """
    os.chdir(workdir)
    if stage.container is None:
        argv = host_command(stage.command, stage.launch.python)
        env = host_environment(environ, inside)
        checks.check_engine(argv[0], env)
        _become(argv, env)
    container = replace(stage.container, apptainer=apptainer_program(stage.container, environ))
    nv = stage.launch.accelerator == "cuda"
    seen = seen_as or str(workdir)
    argv = apptainer_argv(
        container, stage.command, workdir=seen, binds=binds, scratch=scratch, nv=nv
    )
    env = apptainer_environment(environ, inside)
    if stage.launch.engine == "rtdetr":
        env["PATH"] = deaf_fuse_programs(workdir / "fuse", env.get("PATH", os.defpath))
    _become(argv, env)


def deaf_fuse_programs(folder: Path, search: str) -> str:
    """A PATH whose FUSE programs ignore TERM; the same one where a folder cannot be put before it.

    Slurm sends TERM to every process of a job that it ends, also to the one that serves the image's
    files to an unprivileged Apptainer; without them the training could not write its checkpoint.

    Args:
        folder: to make, for what starts the real ones.
        search: the PATH that they are on.
    """
    if os.pathsep in str(folder):
        say(f"{folder} has a ':', so {_MAY_GO}")
        return search
    folder.mkdir(mode=0o700, exist_ok=True)
    for name in _FUSE_PROGRAMS:
        if (program := shutil.which(name, path=search)) is not None:
            script = folder / name
            script.write_text(f"#!/bin/sh\ntrap '' TERM\nexec {shlex.quote(program)} \"$@\"\n")
            script.chmod(0o700)
            if not os.access(script, os.X_OK):
                say(f"nothing in {folder} may be executed (noexec?), so {_MAY_GO}")
                return search
    return os.pathsep.join((str(folder), search))


def input_binds(run: Run, task: StageTask) -> tuple[Bind, ...]:
    """What the container must see of the inputs that the stage run has filled in, read-only."""
    values = [one.value for one in read_inputs(run, task)]
    own = (str(run.path), str(task.results_dir))
    values += deployed_from(run.spec, task.stage, values)
    outside = [v for v in values if not any(Path(v).is_relative_to(folder) for folder in own)]
    return tuple(Bind(value, value, read_only=True) for value in dict.fromkeys(outside))


def deployed_from(spec: Mapping[str, Any], stage: Stage, inputs: Sequence[str]) -> list[str]:
    """What belongs to the model of a deploy action, and what that is compared with, wherever it
    lies: the folders of engine and ONNX file, and the checkpoint.

    Args:
        inputs: what the stage run has filled in.
    """
    action = get_action(stage.action)
    if action.program != DEPLOY:
        return []
    names = (f"{action.section}.{name}" for name in ("trt_engine", "onnx_file"))
    named = [*inputs, *(value for name in names if (value := value_at(spec, name)))]
    models = [path for path in map(Path, named) if path.is_file()]
    sources = [one for model in models for one in sources_of(model) if one.is_absolute()]
    folders = [path.parent for path in (*models, *sources) if path.suffix not in _ALONE]
    found = [*sources, *(folder for folder in folders if refusal(str(folder)) is None)]
    return [str(path) for path in found if path.exists()]


def apptainer_program(container: Container, environ: Mapping[str, str]) -> str:
    """Path of the apptainer of this node."""
    program = shutil.which(container.apptainer, path=environ.get("PATH", os.defpath))
    if program is None:
        raise SiteError(
            f"there is no '{container.apptainer}' on this node; name it in the site profile "
            "(apptainer: /path, or module_lines that load it)"
        )
    return program


def _become(argv: list[str], env: Mapping[str, str]) -> NoReturn:
    say(f"becomes {' '.join(argv)}")
    os.execve(argv[0], argv, dict(env))
