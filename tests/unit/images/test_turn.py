"""One maker of an image at a time."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.images.turn import SILENT_S, turn


def write_maker(folder: Path, **facts: object) -> Path:
    maker = {"token": "t", "user": "ann", "host": "far", "pid": 7, "process_start": 1}
    path = folder / ".a.sif.maker"
    path.write_text(json.dumps({**maker, "partial": ".a.sif.t.partial", **facts}))
    return path


def test_a_turn_leaves_nothing_behind(tmp_path: Path) -> None:
    with turn(tmp_path / "a.sif") as (partial, beat):
        partial.write_text("half")
        beat()
    assert list(tmp_path.iterdir()) == []


def test_a_second_maker_is_told_of_the_first(tmp_path: Path) -> None:
    with turn(tmp_path / "a.sif") as (partial, _):
        with pytest.raises(SiteError, match=rf"at present, on .*\(process {os.getpid()}\)"):
            turn(tmp_path / "a.sif").__enter__()
        partial.touch()
        assert partial.exists()
        with turn(tmp_path / "b.sif"):
            pass


def test_a_maker_that_died_here_gives_way_with_what_it_left(tmp_path: Path) -> None:
    write_maker(tmp_path, host=os.uname().nodename, pid=2**22 + 1)
    (tmp_path / ".a.sif.t.partial").touch()
    with turn(tmp_path / "a.sif"):
        assert not (tmp_path / ".a.sif.t.partial").exists()


def test_a_maker_elsewhere_lives_as_long_as_it_says_so(tmp_path: Path) -> None:
    path = write_maker(tmp_path)
    with pytest.raises(SiteError, match="ann makes this image at present, on far"):
        turn(tmp_path / "a.sif").__enter__()
    long_ago = time.time() - SILENT_S - 5
    os.utime(path, (long_ago, long_ago))
    with turn(tmp_path / "a.sif"):
        assert json.loads(path.read_text())["host"] == os.uname().nodename


def test_a_makers_word_never_removes_a_file_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "precious").touch()
    here = os.uname().nodename
    write_maker(tmp_path / "images", host=here, pid=2**22 + 1, partial="../precious")
    with turn(tmp_path / "images" / "a.sif"):
        pass
    assert (tmp_path / "precious").exists()


def test_damage_is_named(tmp_path: Path) -> None:
    (tmp_path / ".a.sif.maker").write_text("{}")
    with pytest.raises(SiteError, match=r"\.a\.sif\.maker: .*remove it"):
        turn(tmp_path / "a.sif").__enter__()
