"""What the ranks of a node find in their environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rtdetr_slurm.engine.process import environment
from rtdetr_slurm.engine.process.environment import (
    accelerated,
    node_cpus,
    rank_environment,
    short_folder,
)
from rtdetr_slurm.engine.process.rendezvous import Rendezvous
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.spec import Topology

TWO = Topology(1, 2, (2, 3))


def of(environ: dict[str, str], *, launched: bool = False) -> dict[str, str]:
    return rank_environment(environ, TWO, Rendezvous(1, 0, 2, "127.0.0.1", 20000, launched))


def test_what_asks_for_no_gpu_gets_none() -> None:
    """Whatever the machine has; TAO's export sets a CUDA device also with on_cpu."""
    alone = Rendezvous(1, 0, 1, "127.0.0.1", 20000, launched=False)
    asked = Topology(1, 1, (0,), on_cpu=True)
    found = rank_environment(accelerated({"CUDA_VISIBLE_DEVICES": ""}, asked), asked, alone)
    assert (found["RTDETR_ACCELERATOR"], found["CUDA_VISIBLE_DEVICES"]) == ("cpu", "")
    assert "RTDETR_ACCELERATOR" not in accelerated({}, TWO)


class TestThreads:
    """On a node that others use, too, a rank takes what is its own."""

    @pytest.fixture(autouse=True)
    def eight_cores(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))

    @pytest.mark.parametrize(
        ("environ", "threads"),
        [
            ({}, "4"),
            ({"RTDETR_CPUS": "6"}, "3"),
            ({"RTDETR_CPUS": "64"}, "4"),  # it may not run on all of them
            ({"RTDETR_CPUS": "1"}, "1"),
            ({"RTDETR_CPUS": "6", "OMP_NUM_THREADS": "2"}, "2"),
            ({"OMP_NUM_THREADS": "7"}, "7"),
        ],
    )
    def test_the_users_value_then_the_allocations_cpus_per_rank(
        self, environ: dict[str, str], threads: str
    ) -> None:
        assert of(environ)["OMP_NUM_THREADS"] == threads

    @pytest.mark.parametrize("told", ["", "0", "two", "-1"])
    def test_what_is_no_number_of_cores(self, told: str) -> None:
        with pytest.raises(SiteError, match=f"RTDETR_CPUS is '{told}', which is not a number of"):
            node_cpus({"RTDETR_CPUS": told})

    def test_a_rank_keeps_to_them(self) -> None:
        """Joining the others changes nothing of it."""
        program = "import torch; from rtdetr_slurm.engine.process.distributed import join; "
        program += "join('cpu'); print(torch.get_num_threads())"
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
        )
        assert done.stdout == "1\n"


class TestDevices:
    def test_gpu_ids_choose_where_no_launcher_has(self) -> None:
        assert of({"CUDA_VISIBLE_DEVICES": "4,5,6,7"})["CUDA_VISIBLE_DEVICES"] == "6,7"
        launched = of({"CUDA_VISIBLE_DEVICES": "4,5"}, launched=True)
        assert launched["CUDA_VISIBLE_DEVICES"] == "4,5"
        assert "CUDA_VISIBLE_DEVICES" not in of({"RTDETR_ACCELERATOR": "cpu"})


class TestTemporaryFiles:
    def test_a_path_that_leaves_room_for_a_socket_is_kept(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert short_folder("/scratch/" + "x" * 50) == "/scratch/" + "x" * 50
        assert capsys.readouterr().out == ""

    def test_a_longer_one_is_replaced_and_said(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", "/scratch/" + "x" * 80)
        assert of({})["TMPDIR"] == "/tmp"
        assert "rtdetr: temporary files are in /tmp: the path of TMPDIR, /scratch/xx" in (
            capsys.readouterr().out
        )

    def test_there_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(environment, "_SHORT_FOLDERS", ("/nowhere", "/nor/here"))
        with pytest.raises(
            SiteError, match=r"none of /nowhere, /nor/here takes files\. Set TMPDIR"
        ):
            short_folder("/scratch/" + "é" * 30)
