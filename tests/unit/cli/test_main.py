"""`rtdetr-slurm` itself: finding commands, exit codes, messages."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rtdetr_slurm import __version__
from rtdetr_slurm.cli import main as main_module
from rtdetr_slurm.cli.main import COMMANDS, main

Capture = pytest.CaptureFixture[str]


def test_help_names_every_command(capsys: Capture) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for name, (_, summary) in COMMANDS.items():
        assert f"  {name} " in out
        assert summary in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as end:
        main([*name.split(), "--help"])
    assert end.value.code == 0
    assert f"rtdetr-slurm {name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_of_commands_is_right(name: str) -> None:
    module = importlib.import_module(COMMANDS[name][0])
    assert callable(module.add_arguments)
    assert callable(module.run)


def test_version(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"rtdetr-slurm {__version__}\n"


def test_without_a_command_there_is_help_and_exit_code_2(capsys: Capture) -> None:
    assert main([]) == 2
    assert "usage: rtdetr-slurm COMMAND" in capsys.readouterr().out


def test_an_unknown_command_is_named_with_the_nearest(capsys: Capture) -> None:
    assert main(["stauts"]) == 2
    assert "there is no command 'stauts'; did you mean 'status'?" in capsys.readouterr().err
    assert main(["automl", "stopp", "RUN"]) == 2
    said = "there is no command 'automl stopp'; did you mean 'automl stop'?"
    assert said in capsys.readouterr().err
    assert main(["automl"]) == 2
    assert "there is no command 'automl'" in capsys.readouterr().err


def test_a_wrong_request_is_one_line_and_exit_code_2(tmp_path: Path, capsys: Capture) -> None:
    assert main(["submit", str(tmp_path / "none.yaml"), "--site", "local"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"rtdetr-slurm: {tmp_path}/none.yaml: no such file\n"


def test_a_wrong_site_is_exit_code_3(tmp_path: Path, capsys: Capture) -> None:
    assert main(["status", "--site", str(tmp_path / "none.yaml")]) == 3
    assert "none.yaml does not exist" in capsys.readouterr().err


def test_ctrl_c_is_exit_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(main_module, "_run", interrupted)
    assert main(["status"]) == 130


def test_a_reader_that_has_gone_is_no_traceback(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-m", "rtdetr_slurm.cli.main", "--help"],
        stdout=write_end,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        text=True,
        check=False,
    )
    os.close(write_end)
    assert done.stderr == ""
    assert done.returncode == 1
