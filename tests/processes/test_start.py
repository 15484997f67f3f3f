"""Devices and launches that do not fit end status.json."""

from __future__ import annotations

import subprocess
import sys

import pytest
from engine_support import LAUNCH, Workspace, error_of, workspace  # noqa: F401

from rtdetr_slurm.devices import chosen_devices
from rtdetr_slurm.engine.process.distributed import check_devices, choose_accelerator
from rtdetr_slurm.engine.process.entry import command
from rtdetr_slurm.errors import SiteError

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)


class TestStart:
    def test_gpu_ids_count_within_what_is_visible(self) -> None:
        assert chosen_devices([2, 3], None) == "2,3"
        assert chosen_devices([0, 2], "4,5,GPU-abc") == "4,GPU-abc"
        with pytest.raises(SiteError, match=r"gpu_ids .* need at least 3 devices"):
            chosen_devices([0, 2], "4,5")

    def test_accelerator(self) -> None:
        assert choose_accelerator("cpu") == "cpu"
        with pytest.raises(SiteError, match="RTDETR_ACCELERATOR is 'tpu'; allowed are"):
            choose_accelerator("tpu")

    def test_mismatch_ends_status_json(
        self,
        workspace: Workspace,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        for name, value in (LAUNCH | {"NODE_RANK": "0"}).items():
            monkeypatch.setenv(name, value)
        spec = workspace.spec_file()
        before = spec.read_bytes()
        code, error = error_of(capsys, "train", "-e", str(spec))
        assert code == 3
        assert "the launch has WORLD_SIZE=2" in error
        assert spec.read_bytes() == before, "TAO writes the launch's numbers into it"
        last = workspace.status()[-1]
        assert (last["status"], last["failure_class"]) == ("FAILURE", "infra")
        assert "WORLD_SIZE=2" in last["reason"]

    @pytest.mark.parametrize("variable", ["NODE_RANK", "RANK"])
    def test_a_node_rank_that_is_no_number_is_refused(
        self,
        workspace: Workspace,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        variable: str,
    ) -> None:
        monkeypatch.delenv("NODE_RANK", raising=False)
        launch = {k: v for k, v in LAUNCH.items() if k != "NODE_RANK"}
        for name, value in (launch | {variable: "one"}).items():
            monkeypatch.setenv(name, value)
        code, error = error_of(capsys, "train", "-e", str(workspace.spec_file()))
        assert code == 3
        assert f"{variable} is 'one', which is not a whole number" in error

    def test_fewer_devices_than_ranks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
        check_devices(1, 1)
        with pytest.raises(SiteError, match=r"2 GPUs are needed .*torch sees 1 .*='3'"):
            check_devices(2, 1)

    @pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="a GPU is there")
    def test_missing_gpu_ends_status_json(
        self,
        workspace: Workspace,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        """The ranks find out; it is said once for all of them."""
        monkeypatch.setenv("RTDETR_ACCELERATOR", "cuda")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
        overrides = ["train.num_gpus=2", "train.gpu_ids=[0,1]"]
        assert command(["train", "-e", str(workspace.spec_file()), *overrides]) == 3
        assert capfd.readouterr().err.count("sees no CUDA device") == 1
        last = workspace.status()[-1]
        assert (last["status"], last["failure_class"]) == ("FAILURE", "infra")
        assert "sees no CUDA device" in last["reason"]

    def test_the_launching_process_holds_no_torch(self) -> None:
        """It waits on every node for as long as a training lasts."""
        program = "import sys, rtdetr_slurm.engine.process.entry, rtdetr_slurm.engine.process.start"
        program += "; print({'torch', 'numpy', 'PIL'} & {*sys.modules})"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
        assert done.stdout == b"set()\n"
