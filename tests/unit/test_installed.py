"""What a job outside a container finds installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import optuna
import pytest

import rtdetr_slurm
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.installed import see_installed

PROGRAM = """
import sys; sys.path.insert(0, sys.argv[1])
from rtdetr_slurm.installed import see_installed
see_installed(sys.argv[2:], 'optuna')
"""


def test_a_job_finds_a_users_own_installation() -> None:
    """Which an isolated Python does not look for."""
    ours = str(Path(rtdetr_slurm.__file__).parent.parent)
    at = [str(Path(optuna.__file__).parent.parent)]
    for path, code in ((at, 0), ([], 1)):
        argv = [sys.executable, "-I", "-S", "-c", PROGRAM, ours, *path]
        done = subprocess.run(argv, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
    assert "has no optuna" in done.stderr


def test_a_node_without_it_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SiteError, match="this node has no optuna"):
        see_installed((), "optuna")


def test_a_library_is_not_found_for_a_while() -> None:
    program = (
        "import sys\nfrom rtdetr_slurm.installed import without\n"
        "with without('wave'):\n    try: import wave\n    except ImportError: print('none')\n"
        "import wave\nwith without('wave'): import wave\nprint(wave.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["none", "wave"], done.stderr
