"""What a check has found: a small value that is printed as one line, and is part of the JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

VERSION = 1
"""Of the JSON document."""


class Outcome(str, Enum):
    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True)
class Finding:
    """One line.

    Attributes:
        id: of the check, such as `slurm.requeue`; it stays the same from version to version.
        outcome: a failure keeps jobs from running; with a warning they run, worse than they could.
        found: what is so.
        remedy: what to do, where the outcome asks for something.
        where: `login`, or the partition of a probe job.
    """

    id: str
    outcome: Outcome
    found: str
    remedy: str = ""
    where: str = "login"

    def __post_init__(self) -> None:
        if bool(self.remedy) != (self.outcome in (Outcome.WARNING, Outcome.FAILURE)):
            raise ValueError(f"{self.id}: a remedy exactly where something is wrong")

    def to_json(self) -> dict[str, str]:
        return {
            "id": self.id,
            "where": self.where,
            "outcome": self.outcome.value,
            "found": self.found,
            "remedy": self.remedy,
        }


def ok(check: str, found: str, where: str = "login") -> Finding:
    return Finding(check, Outcome.OK, found, where=where)


def warning(check: str, found: str, remedy: str, where: str = "login") -> Finding:
    return Finding(check, Outcome.WARNING, found, remedy, where)


def failure(check: str, found: str, remedy: str, where: str = "login") -> Finding:
    return Finding(check, Outcome.FAILURE, found, remedy, where)


def not_checked(check: str, why: str, where: str = "login") -> Finding:
    return Finding(check, Outcome.NOT_CHECKED, why, where=where)


def worst(findings: Iterable[Finding]) -> Outcome:
    """The outcome of all of them together."""
    outcomes = {finding.outcome for finding in findings}
    bad = (Outcome.FAILURE, Outcome.WARNING)
    return next((outcome for outcome in bad if outcome in outcomes), Outcome.OK)


def report(findings: Iterable[Finding], **facts: Any) -> dict[str, Any]:
    """The JSON document.

    Args:
        facts: what else it says.
    """
    listed = list(findings)
    return {
        "schema_version": VERSION,
        "outcome": worst(listed).value,
        **facts,
        "findings": [finding.to_json() for finding in listed],
    }
