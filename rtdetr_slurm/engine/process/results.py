"""The folder that an action writes to."""

from __future__ import annotations

from pathlib import Path

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.errors import ActionError, RequestError
from rtdetr_slurm.files import write_atomic
from rtdetr_slurm.spec import ExperimentConfig


def results_folder(experiment: ExperimentConfig, action: str) -> Path:
    """Where an action writes: `<its section>.results_dir`, else `results_dir`/<action>.

    Raises:
        RequestError: neither is set.
    """
    section = get_action(action).section
    own = getattr(experiment, section).results_dir
    if own:
        return Path(own)
    if experiment.results_dir:
        return Path(experiment.results_dir, action)
    raise RequestError(f"results_dir is not set: set it, or {section}.results_dir")


def create_results_folder(folder: Path) -> None:
    """Make the folder and see that files can be written there.

    Raises:
        ActionError: they cannot.
    """
    probe = folder / ".write-test"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(probe, "rtdetr\n")
        probe.unlink(missing_ok=True)  # another rank may be doing the same
    except OSError as error:
        if error.errno is not None and error.strerror:
            raise ActionError(
                f"results_dir {folder} is not writable: {error.strerror}. Choose one that can "
                "be written on every node"
            ) from None
        raise
