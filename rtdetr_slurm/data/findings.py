"""What is wrong with data, collected until all is known. Standard library only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from rtdetr_slurm.errors import RequestError

FieldPath: TypeAlias = tuple[str | int, ...]
"""Of a spec: `("dataset", "train_data_sources", 0, "json_file")`."""


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        level: an error makes a run fail or worthless; a warning does no great harm.
        field: of the spec, that it is about.
        correction: dotted fields and the values that would be right, where that is known.
    """

    level: Literal["error", "warning"]
    field: FieldPath
    message: str
    correction: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class BadData(RequestError):
    """Data that an action cannot use: everything that is wrong with them, a line for each."""

    def __init__(self, findings: list[Finding]) -> None:
        self.findings = findings
        super().__init__("\n".join(finding.message for finding in findings))

    def __reduce__(self) -> tuple[type[BadData], tuple[list[Finding]]]:
        """For another process: one rank reads, and all fail."""
        return BadData, (self.findings,)


@dataclass(frozen=True)
class _Check:
    findings: Findings
    field: FieldPath

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: object, _trace: object) -> bool:
        if not isinstance(error, RequestError):
            return False
        self.findings.error(self.field, str(error))
        return True


class Findings(list[Finding]):
    """What checks have found; each may stop at its first error, and the next one begins."""

    def error(
        self, field: FieldPath, message: str, correction: Mapping[str, Any] | None = None
    ) -> None:
        self._add(Finding("error", field, message, correction or {}))

    def warn(
        self, field: FieldPath, *messages: str, correction: Mapping[str, Any] | None = None
    ) -> None:
        for message in messages:
            self._add(Finding("warning", field, message, correction or {}))

    def about(self, field: FieldPath) -> _Check:
        """A block that checks a field: its RequestError is a finding, and all goes on behind it."""
        return _Check(self, field)

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self if finding.level == "error"]

    @property
    def warnings(self) -> list[Finding]:
        return [finding for finding in self if finding.level == "warning"]

    def raise_errors(self) -> None:
        """Raises:
        BadData: there are errors.
        """
        if self.errors:
            raise BadData(self.errors)

    def _add(self, finding: Finding) -> None:
        if finding not in self:  # several actions look at the same
            self.append(finding)
