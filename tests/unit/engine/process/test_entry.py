"""The `rtdetr` command up to the start of its workers."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_support import Workspace, error_of, workspace  # noqa: F401

from rtdetr_slurm.engine.process.entry import command
from rtdetr_slurm.spec import load_spec

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)


class TestDefaultSpecs:
    def test_writes_what_loads(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert command(["default_specs", f"results_dir={tmp_path}/new"]) == 0
        path = Path(capsys.readouterr().out.strip())
        assert path == tmp_path / "new" / "experiment.yaml"
        source = "dataset.train_data_sources=[{image_dir: /i, json_file: /j}]"
        assert load_spec(path, [source], action="train").experiment.train.num_epochs == 10

    def test_never_overwrites(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "experiment.yaml").write_text("mine")
        code, error = error_of(capsys, "default_specs", f"results_dir={tmp_path}")
        assert (code, (tmp_path / "experiment.yaml").read_text()) == (2, "mine")
        assert "exists already and is left as it is" in error

    @pytest.mark.parametrize("argv", [[], ["results_dir="], ["results_dir=a", "b=c"]])
    def test_needs_a_folder(self, argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert error_of(capsys, "default_specs", *argv)[0] == 2


class TestResultsFolder:
    def test_unwritable(self, workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
        """Below a file: for root, too."""
        (workspace.root / "file").write_text("")
        folder = workspace.root / "file" / "results"
        spec = workspace.spec_file(results_dir=str(folder))
        code, error = error_of(capsys, "train", "-e", str(spec))
        assert code == 1
        assert f"results_dir {folder}/train is not writable" in error
        assert "Traceback" not in error

    def test_unset(self, workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
        code, error = error_of(capsys, "train", "-e", str(workspace.spec_file(results_dir="")))
        assert code == 2
        assert "results_dir is not set: set it, or train.results_dir" in error
