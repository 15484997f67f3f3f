"""Writing files."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rtdetr_slurm.files import write_atomic


def test_threads_that_write_leave_the_umask_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can be read only by setting it, and two that do so at once would lose it."""
    umask = os.umask
    before = umask(0o027)

    def interrupted(mask: int) -> int:
        old = umask(mask)
        time.sleep(0.001)
        return old

    monkeypatch.setattr(os, "umask", interrupted)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n: write_atomic(tmp_path / str(n), "x"), range(20)))
        assert umask(0o027) == 0o027
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}
    finally:
        umask(before)
