"""The node wrapper: one per node, run by the inner srun, replaced by apptainer if all is well.

`python -m rtdetr_slurm.launch.node RUN_DIR STAGE`
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from rtdetr_slurm.contract import SPEC_YAML
from rtdetr_slurm.errors import SiteError, UserError
from rtdetr_slurm.launch import checks
from rtdetr_slurm.launch.container import (
    apptainer_argv,
    apptainer_environment,
    inside_environment,
    local_command,
    local_environment,
)
from rtdetr_slurm.launch.host import say
from rtdetr_slurm.launch.records import write_node_error
from rtdetr_slurm.launch.topology import Layout, layout_of_task
from rtdetr_slurm.plan.model import Container, Stage
from rtdetr_slurm.runs.run import Run, open_run


def main() -> int:
    run = open_run(Path(sys.argv[1]))
    stage = run.stage(sys.argv[2])
    rank = int(os.environ.get("SLURM_PROCID", "0")) if stage.launch.scheduler == "slurm" else 0
    try:
        start(run, stage, os.environ)
    except UserError as error:
        error.args = (f"node {rank} ({socket.gethostname()}): {error}",)
        say(str(error))
        write_node_error(run, stage.name, rank, error)
        return error.exit_code
    raise AssertionError("start() replaces this process or raises")


def start(run: Run, stage: Stage, environ: Mapping[str, str]) -> None:
    """Check everything, then become the container (or the engine, on the local machine).

    Raises:
        UserError: a check failed; nothing was started.
    """
    layout = Layout(0, 1) if stage.launch.scheduler == "local" else layout_of_task(environ)
    checks.check_layout(layout, stage)
    devices = checks.visible_devices(environ, stage)
    if stage.launch.accelerator == "cuda":
        checks.check_gpu_devices(stage.resources)
    if stage.container is not None:
        checks.check_container(stage.container, run)
    checks.check_python(stage.launch.python)
    checks.check_results(stage)
    scratch = _scratch(stage.launch.scratch)
    checks.check_master(environ, layout)
    # The engine may rewrite its spec, so every node has its own.
    workdir = run.node_dir(stage.name, layout.rank)
    shutil.copyfile(run.spec, workdir / SPEC_YAML)
    inside = inside_environment(environ, stage, rank=layout.rank, devices=devices, scratch=scratch)
    os.chdir(workdir)
    if stage.container is None:
        argv = local_command(stage.command, stage.launch.python)
        _become(argv, local_environment(environ, inside))
    else:
        _become(*_contained(stage, stage.container, environ, inside, str(workdir), scratch))


def _contained(
    stage: Stage,
    container: Container,
    environ: Mapping[str, str],
    inside: Mapping[str, str],
    workdir: str,
    scratch: str | None,
) -> tuple[list[str], dict[str, str]]:
    nv = stage.launch.accelerator == "cuda"
    argv = apptainer_argv(container, stage.command, workdir=workdir, scratch=scratch, nv=nv)
    program = shutil.which(container.apptainer, path=environ.get("PATH", os.defpath))
    if program is None:
        raise SiteError(
            f"there is no '{container.apptainer}' on this node; name it in the site profile "
            "(apptainer: /path, or module_lines that load it)"
        )
    return [program, *argv[1:]], apptainer_environment(environ, inside)


def _scratch(name: str | None) -> str | None:
    """The site's scratch folder on this node, with `$VAR` filled in here."""
    if name is None:
        return None
    path = os.path.expandvars(name)
    if "$" in path:
        raise SiteError(f"scratch '{name}' names a variable that is not set on this node")
    if not os.access(path, os.W_OK | os.X_OK):
        raise SiteError(f"scratch folder {path} is missing on this node, or not writable")
    return path


def _become(argv: list[str], env: Mapping[str, str]) -> None:
    say(f"becomes {' '.join(argv)}")
    os.execve(argv[0], argv, dict(env))


if __name__ == "__main__":
    sys.exit(main())
