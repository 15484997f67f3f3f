"""Slurm's time strings. Standard library only."""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import Any

_DAYS = re.compile(r"(\d+)-(\d{1,2})(?::(\d{1,2}))?(?::(\d{1,2}))?")
_CLOCK = re.compile(r"(\d+):(\d{1,2})(?::(\d{1,2}))?")
_PRINTED = re.compile(r"(?:(\d+)-)?(\d+):(\d+):(\d+)")

TIME_FORMS = (
    "minutes (120), hours:minutes:seconds (2:00:00), or days-hours (1-12), which minutes and "
    "seconds may follow (1-12:30:00)"
)


def parse_minutes(value: int | str) -> int:
    """Minutes of a time limit, seconds rounded up; the forms are sbatch's `--time`.

    `minutes:seconds`, which sbatch also takes, is refused: it is nearly always meant as
    hours and minutes.

    Raises:
        ValueError: not a time, or not at least one minute; the text says what is allowed.
    """
    minutes = value if isinstance(value, int) else _parse(value.strip())
    if minutes < 1:
        raise ValueError(f"at least one minute, as {TIME_FORMS}")
    return minutes


def minutes_of_field(value: Any) -> Any:
    """For a model's field: minutes of a number or text; anything else is left to its type.

    Raises:
        ValueError: as parse_minutes.
    """
    # true is one to Python.
    return parse_minutes(value) if isinstance(value, str) or type(value) is int else value


def format_minutes(minutes: float) -> str:
    """`days-hh:mm:00`, without the days where there are none."""
    days, rest = divmod(math.ceil(minutes), 24 * 60)
    clock = f"{rest // 60:02d}:{rest % 60:02d}:00"
    return f"{days}-{clock}" if days else clock


def parse_clock(text: str) -> float | None:
    """Seconds of `[days-]hours:minutes:seconds`, as Slurm prints times; None for UNLIMITED and the
    like."""
    match = _PRINTED.fullmatch(text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def parse_moment(text: str | None) -> datetime | None:
    """The moment that Slurm prints in local time (`2026-01-02T03:04:05`); None where it prints
    none, or one in a form that only the site knows (SLURM_TIME_FORMAT)."""
    try:
        return datetime.fromisoformat(text).astimezone() if text else None
    except (ValueError, OverflowError):
        return None


def _parse(text: str) -> int:
    if text.isdigit():
        return int(text)
    if match := _DAYS.fullmatch(text):
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return (days * 24 + hours) * 60 + minutes + (seconds > 0)
    if match := _CLOCK.fullmatch(text):
        if match[3] is None:
            raise ValueError(
                f"{TIME_FORMS}; {text} can be read as hours and minutes or as minutes and "
                f"seconds, so write {text}:00 for the former"
            )
        return int(match[1]) * 60 + int(match[2]) + (int(match[3]) > 0)
    raise ValueError(TIME_FORMS)
