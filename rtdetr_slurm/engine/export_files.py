"""The files of an export: nothing is overwritten, and they get their names whole, all or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from rtdetr_slurm.engine.onnx_graph import DATA_SUFFIX
from rtdetr_slurm.engine.process.failures import writing_error
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.files import folder_beside, keep_all, sha256_of
from rtdetr_slurm.records import BadRecord, checked, read_json
from rtdetr_slurm.runs.claim import Start


class _Told(TypedDict, total=False):
    """What export.json says of the files."""

    onnx_file: str
    claim: str | None
    files: Mapping[str, str]


@dataclass(frozen=True)
class ExportFiles:
    """What an export writes.

    Attributes:
        target: the ONNX file.
        extra: names of further files, beside it.
    """

    target: Path
    extra: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Of all files that there may be, in the order in which they get their names: where the
        ONNX file is, all is there."""
        return (self.target.name + DATA_SUFFIX, *self.extra, self.target.name)

    def refuse_existing(self) -> None:
        """Before any work.

        Raises:
            RequestError: one of the files is there already.
        """
        for path in map(self.target.with_name, self.names):
            if path.exists():
                raise RequestError(
                    f"{path} exists already, and is not overwritten: remove it, or name another "
                    "file in export.onnx_file"
                )

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A folder to make the files in; they are kept at its end.

        Raises:
            ActionError: it cannot be made, or takes no more files.
            RequestError: one of the files has come to be there meanwhile.
        """
        try:
            with folder_beside(self.target) as folder:
                yield folder
                made = [folder / name for name in self.names if (folder / name).exists()]
                keep_all(made, self.target.parent)
        except FileExistsError as error:
            raise RequestError(
                f"{error.filename2} has come to exist meanwhile, and is kept"
            ) from None
        except OSError as error:
            raise writing_error(error, self.target) from None

    def record(self, folder: Path, start: Start | None) -> dict[str, Any]:
        """What export.json says of the files made in `folder`."""
        digests = {
            name: sha256_of(folder / name) for name in self.names if (folder / name).exists()
        }
        return {
            "onnx_file": str(self.target),
            "onnx_sha256": digests[self.target.name],
            "files": digests,
            "claim": start and start.claim,
        }

    def left_by(self, start: Start | None, record: Path) -> list[Path]:
        """The files that an earlier start of the same job has left, by its export.json."""
        try:
            told = checked(_Told, read_json(record), record)
        except (FileNotFoundError, BadRecord):
            return []
        digests = told.get("files", {})
        if start is None or (told.get("claim"), told.get("onnx_file")) != (
            start.claim,
            str(self.target),
        ):
            return []
        paths = [self.target.with_name(name) for name in self.names if name in digests]
        return [path for path in paths if path.is_file() and sha256_of(path) == digests[path.name]]
