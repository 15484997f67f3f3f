"""Who hears of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.plan.make import frozen_spec, make_plan
from rtdetr_slurm.plan.model import Plan
from rtdetr_slurm.site.profile import Site
from rtdetr_slurm.slurm.script import batch_parameters
from rtdetr_slurm.spec import load_spec

SPEC = """\
dataset:
  train_data_sources: [{image_dir: /d/train, json_file: /d/train.json}]
  val_data_sources: {image_dir: /d/val, json_file: /d/val.json}
  test_data_sources: {image_dir: /d/val, json_file: /d/val.json}
"""
ANN = "job.notify=ann@example.org"


def plan(folder: Path, *overrides: str, **profile: Any) -> Plan:
    path = folder / "train.yaml"
    path.write_text(SPEC)
    at = Site.model_validate({"accelerator": "cpu", "image": "/i.sif"} | profile)
    loaded = load_spec(path, overrides)
    spec = frozen_spec(loaded, run_dir=Path("/runs/x"), cwd=folder)
    return make_plan(loaded, spec, at, run_dir=Path("/runs/x"))


def mails(made: Plan) -> list[tuple[str, str]]:
    facts = {"chdir": "/", "job_dir": "/", "comment": "c", "job_name": "n"}
    asked = [batch_parameters(stage, **facts) for stage in made.stages]
    return [(one["mail_user"], one["mail_type"]) for one in asked]


def test_a_chain_sends_its_start_its_failures_and_its_end(tmp_path: Path) -> None:
    then = "job.then=[evaluate, {action: evaluate, name: again}]"
    user = "ann@example.org"
    expected = [(user, "BEGIN,FAIL"), (user, "FAIL"), (user, "END,FAIL")]
    assert mails(plan(tmp_path, ANN, then)) == expected
    made = plan(tmp_path, ANN)
    assert mails(made) == [(user, "BEGIN,END,FAIL")]
    mail = made.stages[0].resources.mail
    assert mail is not None
    assert mail.of_further_starts == ("END", "FAIL")


def test_nobody_is_told_unasked(tmp_path: Path) -> None:
    made = plan(tmp_path, notify_command=["/bin/hook"])
    assert mails(made) == [(None, None)]
    assert made.notify_command == ()


def test_the_sites_command_is_the_profiles(tmp_path: Path) -> None:
    made = plan(tmp_path, "job.notify=command", notify_command=["/bin/hook", "a b"])
    assert made.notify_command == ("/bin/hook", "a b")
    assert mails(made) == [(None, None)]
    with pytest.raises(SiteError, match=r"job\.notify: found command.*no notify_command"):
        plan(tmp_path, "job.notify=command")


def test_this_machine_sends_no_mail(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"job\.notify: found ann@.*'cluster' has none"):
        plan(tmp_path, ANN, scheduler="local", image=None)


@pytest.mark.parametrize("value", ["-x@y", "a b@c", "ann", "a@b\\n", "a@b,c@d", "a@b;rm"])
def test_what_is_no_address(tmp_path: Path, value: str) -> None:
    with pytest.raises(RequestError, match=r"job\.notify: .*allowed: an e-mail address"):
        plan(tmp_path, f'job.notify="{value}"')
