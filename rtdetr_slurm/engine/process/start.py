"""Starting the ranks of this node, and seeing that status.json tells how they ended."""

from __future__ import annotations

import os

import torch

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.contract import Env, ExitCode, FailureClass
from rtdetr_slurm.devices import chosen_devices
from rtdetr_slurm.engine.process.arguments import Arguments
from rtdetr_slurm.engine.process.distributed import choose_accelerator
from rtdetr_slurm.engine.process.failures import remove_notes
from rtdetr_slurm.engine.process.rendezvous import (
    check_devices,
    node_rank_variable,
    read_rendezvous,
)
from rtdetr_slurm.engine.process.session import create_results_folder, results_folder
from rtdetr_slurm.engine.process.status_end import StatusEnd
from rtdetr_slurm.engine.process.torchrun import Cancelled, run_workers
from rtdetr_slurm.errors import UserError
from rtdetr_slurm.spec import LoadedSpec


def start(loaded: LoadedSpec, arguments: Arguments) -> int:
    """Check the launch against the spec, run the workers, and return the exit code.

    Raises:
        UserError: the launch is not what the spec asks for, or this machine cannot do it.
    """
    folder = results_folder(loaded.experiment, arguments.action)
    create_results_folder(folder)
    status = StatusEnd(folder, os.environ.get(node_rank_variable(os.environ), "0"))
    try:
        rendezvous = read_rendezvous(os.environ, get_action(arguments.action), loaded.topology)
        prepare_devices(loaded, rendezvous.processes_per_node, launched=rendezvous.launched)
        if status.is_main:
            remove_notes(folder)
        end = run_workers(rendezvous, arguments.command_line())
    except UserError as error:
        status.failed(error.failure_class, str(error))
        raise
    except Cancelled as error:
        status.failed(FailureClass.CANCELLED, str(error))
        return ExitCode.FAILED
    if end.exit_code not in (ExitCode.OK, ExitCode.INTERRUPTED):
        status.explain(end.failures)
    return end.exit_code


def prepare_devices(loaded: LoadedSpec, processes: int, *, launched: bool) -> None:
    """Choose the accelerator for the workers and see that every rank has a device.

    Raises:
        SiteError: CUDA is wanted and not there, or not often enough.
    """
    wanted = os.environ.get(Env.ACCELERATOR)
    if wanted != "cpu" and not launched:
        visible = os.environ.get(Env.CUDA_VISIBLE_DEVICES)
        os.environ[Env.CUDA_VISIBLE_DEVICES] = chosen_devices(loaded.topology.gpu_ids, visible)
    accelerator = choose_accelerator(wanted)
    if not wanted:
        print(f"rtdetr: runs on {accelerator} ({Env.ACCELERATOR} is not set)", flush=True)
    if accelerator == "cuda":
        check_devices(processes, torch.cuda.device_count())
    os.environ[Env.ACCELERATOR] = accelerator
