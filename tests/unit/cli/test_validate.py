"""`rtdetr-slurm validate` and `rtdetr-slurm default-specs`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from spec_files import NEEDED, TRAIN, write

from rtdetr_slurm.actions import ACTIONS
from rtdetr_slurm.cli.main import main
from rtdetr_slurm.spec import load_spec
from rtdetr_slurm.spec.schema import action_schema

Capture = pytest.CaptureFixture[str]


def test_validate_says_what_is_valid(tmp_path: Path, capsys: Capture) -> None:
    path = write(tmp_path, TRAIN, "train.yaml")
    assert main(["validate", str(path), "train.num_epochs=3"]) == 0
    assert capsys.readouterr().out == f"{path}: valid for action train\n"


def test_validate_says_what_is_wrong(tmp_path: Path, capsys: Capture) -> None:
    path = write(tmp_path, TRAIN + "train: {num_epochs: 0}\n")
    assert main(["validate", str(path), "train.seed=x"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{path}:5:21: train.num_epochs: found 0; allowed: ≥ 1\n" in err
    assert "override 'train.seed=x': train.seed: found 'x'" in err


def test_validate_as_json(tmp_path: Path, capsys: Capture) -> None:
    path = write(tmp_path, TRAIN + "train: {num_epochs: 0}\n")
    assert main(["validate", str(path), "train.seed=x", "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert document == {
        "valid": False,
        "problems": [
            {
                "file": str(path), "line": 5, "column": 21, "override": None,
                "field": "train.num_epochs", "message": "found 0; allowed: ≥ 1",
            },
            {
                "file": str(path), "line": None, "column": None, "override": "train.seed=x",
                "field": "train.seed", "message": "found 'x' (text); allowed: an integer",
            },
        ],
    }  # fmt: skip
    assert main(["validate", str(tmp_path / "none.yaml"), "--json"]) == 2
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert problems == [{"message": f"{tmp_path}/none.yaml: no such file"}]
    assert main(["validate", str(path), "train.num_epochs=1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["action"] == "train"


def test_validate_looks_at_the_site_that_is_named(tmp_path: Path, capsys: Capture) -> None:
    site = tmp_path / "site.yaml"
    site.write_text("image: /i.sif\nengine: tao\n")
    path = write(tmp_path, "")
    export = ["validate", str(path), *NEEDED["export"], "--action", "export"]
    assert main([*export, "--site", str(site)]) == 0
    assert "not available" not in capsys.readouterr().err


def test_validate_prints_the_notes(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTDETR_SLURM_SITE", "local")
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, "")
    arguments = ["validate", str(path), *NEEDED["evaluate"], "job.parent=r", "--action", "evaluate"]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert out == f"{path}: valid for action evaluate\n"
    note = "evaluate.checkpoint: /c is given, so evaluate does not take that of job.parent, r"
    unknown = (
        f"job.parent: there is no run 'r' in {tmp_path}/runs (there are no runs yet); so what "
        "carries over from r is left to submit"
    )
    assert err == f"note: {unknown}\nnote: {note}\n"
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == [unknown, note]
    chain = [*NEEDED["train"], *NEEDED["evaluate"], "--action", "train", "job.then=[evaluate]"]
    assert main(["validate", str(path), *chain]) == 0
    assert capsys.readouterr().out == f"{path}: valid for actions train, evaluate\n"


@pytest.mark.parametrize("action", ACTIONS)
def test_default_specs_are_ready_to_fill_in(tmp_path: Path, capsys: Capture, action: str) -> None:
    assert main(["default-specs", action]) == 0
    printed = capsys.readouterr().out
    path = tmp_path / "mine.yaml"
    assert main(["default-specs", action, "-o", str(path)]) == 0
    assert path.read_text(encoding="utf-8") == printed
    head, file = printed.splitlines()[0].split("$schema=")
    assert head == "# yaml-language-server: "
    assert json.loads(Path(file).read_text(encoding="utf-8")) == action_schema(action)
    assert load_spec(path, NEEDED[action]).action == action


def test_default_specs_overwrite_nothing(tmp_path: Path, capsys: Capture) -> None:
    path = write(tmp_path, "mine")
    assert main(["default-specs", "train", "-o", str(path)]) == 2
    assert "exists already and is left as it is" in capsys.readouterr().err
    assert path.read_text(encoding="utf-8") == "mine"
    assert main(["default-specs", "train", "-o", str(tmp_path / "no" / "x.yaml")]) == 2
    assert "cannot write" in capsys.readouterr().err
    with pytest.raises(SystemExit) as error:
        main(["default-specs", "trian"])
    assert error.value.code == 2
