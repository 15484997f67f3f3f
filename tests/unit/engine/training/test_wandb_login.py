"""Whether there is a key for Weights & Biases, as its own package finds one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from engine_support import Workspace, workspace  # noqa: F401

from rtdetr_slurm.engine.training import wandb_login
from rtdetr_slurm.engine.training.loggers import wandb_mode
from rtdetr_slurm.engine.training.wandb_login import mode_of
from rtdetr_slurm.engine.training.wandb_run import arguments
from rtdetr_slurm.errors import RequestError

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)
NETRC = """
machine api.wandb.ai
  login user
  password secret
machine wandb.example.org login user password secret
machine other.example.org login user
"""


@pytest.mark.parametrize(
    ("environ", "mode"),
    [
        ({"WANDB_API_KEY": "k"}, "online"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "offline"}, "offline"),
        ({"WANDB_MODE": "dryrun"}, "offline"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "disabled"}, None),
        ({"WANDB_MODE": "online"}, None),
        ({}, None),
        ({"HOME": "HERE"}, "online"),
        ({"NETRC": "HERE/.netrc"}, "online"),
        ({"HOME": "HERE", "WANDB_BASE_URL": "https://wandb.example.org/"}, "online"),
        ({"HOME": "HERE", "WANDB_BASE_URL": "https://none.example.org"}, None),
        ({"HOME": "HERE", "NETRC": "/no/netrc"}, None),
    ],
)
def test_where_a_key_is(tmp_path: Path, environ: Mapping[str, str], mode: str | None) -> None:
    (tmp_path / ".netrc").write_text(NETRC)
    given = {name: value.replace("HERE", str(tmp_path)) for name, value in environ.items()}
    found, why_not = mode_of(given)
    assert found == mode
    assert bool(why_not) == (mode is None)


def test_what_is_refused_before_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError, match="WANDB_MODE: found 'of'; allowed: online, run, offline"):
        mode_of({"WANDB_MODE": "of"})
    monkeypatch.setattr(wandb_login, "find_spec", lambda _: None)
    with pytest.raises(RequestError, match=r"wandb\.enable: .* the package wandb is not installed"):
        mode_of({"WANDB_API_KEY": "k"})
    assert mode_of({})[0] is None  # nobody misses it


def test_off_is_off(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k")
    monkeypatch.delenv("WANDB_MODE")
    assert wandb_mode(workspace.session()) == "online"
    assert wandb_mode(workspace.session("wandb.enable=false")) is None
    assert capsys.readouterr().out == ""


def test_no_secret_is_sent(workspace: Workspace) -> None:
    session = workspace.session("encryption_key=hunter22")
    assert "hunter22" not in str(arguments(session, "an id"))
    assert "encryption_key" not in arguments(session, "an id")["config"]
