"""Starting the ranks of this node, and seeing that status.json tells how they ended.

No torch here: this process waits for as long as the ranks work, and would hold it for nothing.
"""

from __future__ import annotations

import os

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.contract import ExitCode, FailureClass
from rtdetr_slurm.engine.process.arguments import Arguments
from rtdetr_slurm.engine.process.environment import rank_environment
from rtdetr_slurm.engine.process.failures import remove_notes
from rtdetr_slurm.engine.process.ranks import Cancelled, run_ranks
from rtdetr_slurm.engine.process.rendezvous import node_rank_variable, read_rendezvous
from rtdetr_slurm.engine.process.results import create_results_folder, results_folder
from rtdetr_slurm.engine.process.status_end import StatusEnd
from rtdetr_slurm.errors import UserError
from rtdetr_slurm.spec import LoadedSpec


def start(loaded: LoadedSpec, arguments: Arguments) -> int:
    """Check the launch against the spec, run the ranks, and return the exit code.

    Raises:
        UserError: the launch is not what the spec asks for, or this machine cannot do it.
    """
    folder = results_folder(loaded.experiment, arguments.action)
    create_results_folder(folder)
    status = StatusEnd(folder, os.environ.get(node_rank_variable(os.environ), "0"))
    try:
        rendezvous = read_rendezvous(os.environ, get_action(arguments.action), loaded.topology)
        environment = rank_environment(os.environ, loaded.topology, rendezvous)
        if status.is_main:
            remove_notes(folder)
        end = run_ranks(rendezvous, arguments.command_line(), environment)
    except UserError as error:
        status.failed(error.failure_class, str(error))
        raise
    except Cancelled as error:
        status.failed(FailureClass.CANCELLED, str(error))
        return ExitCode.FAILED
    if end.exit_code not in (ExitCode.OK, ExitCode.INTERRUPTED):
        status.explain(end.failures)
    return end.exit_code
