"""How long a rank waits for the others."""

from __future__ import annotations

from datetime import timedelta

import pytest

from rtdetr_slurm.engine.process.rank import timeouts


@pytest.mark.parametrize(
    ("minutes", "collective", "joining"),
    [(None, 30, 30), ("25", 130, 30), ("2", 15, 8), ("0", 24 * 60, 30)],
)
def test_to_begin_no_longer_than_loading_may_take(
    minutes: str | None, collective: int, joining: int
) -> None:
    environ = {"RTDETR_HEARTBEATS": "3", "RTDETR_HANG_MINUTES": minutes} if minutes else {}
    assert timeouts(environ) == (timedelta(minutes=collective), timedelta(minutes=joining))
