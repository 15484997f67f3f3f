"""Time limits as Slurm writes them."""

from __future__ import annotations

import pytest

from rtdetr_slurm.slurm.times import format_minutes, parse_clock, parse_minutes


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        (90, 90),
        ("90", 90),
        ("01:30:00", 90),
        ("1:30:01", 91),
        ("2-0", 2880),
        ("2-12:30", 3630),
        ("1-02:03:04", 1564),
    ],
)
def test_parse_minutes(text: int | str, minutes: int) -> None:
    assert parse_minutes(text) == minutes


@pytest.mark.parametrize("text", ["", "soon", "1h", "-5", "1:2:3:4", "1-", 0, "0", "UNLIMITED"])
def test_what_is_no_time(text: int | str) -> None:
    with pytest.raises(ValueError, match="hours:minutes:seconds"):
        parse_minutes(text)


def test_minutes_and_seconds_are_refused_because_they_look_like_hours() -> None:
    with pytest.raises(ValueError, match="write 12:30:00"):
        parse_minutes("12:30")


@pytest.mark.parametrize(("minutes", "text"), [(5, "00:05:00"), (1564, "1-02:04:00")])
def test_format_minutes(minutes: int, text: str) -> None:
    assert format_minutes(minutes) == text
    assert parse_minutes(text) == minutes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("00:00:05", 5), ("2-01:00:00", 176_400), ("UNLIMITED", None), ("", None)],
)
def test_clocks(text: str, seconds: float | None) -> None:
    assert parse_clock(text) == seconds
