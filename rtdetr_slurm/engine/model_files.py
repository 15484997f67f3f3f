"""What an action leaves as its model: nothing is overwritten, and all files get their names whole,
or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rtdetr_slurm.engine.process.failures import writing_error
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.files import folder_beside, keep_all, sha256_of
from rtdetr_slurm.runs.claim import Start


@dataclass(frozen=True)
class ModelFiles:
    """What an action writes.

    Attributes:
        target: the model.
        field: of the spec, that names it.
        beside: names of further files that there may be in its folder, in the order in which they
            get them. The model comes last: where it is, all is there.
    """

    target: Path
    field: str
    beside: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.beside, self.target.name)

    def refuse_existing(self) -> None:
        """Before any work.

        Raises:
            RequestError: one of the files is there already.
        """
        for path in map(self.target.with_name, self.names):
            if path.exists():
                raise RequestError(
                    f"{path} exists already, and is not overwritten: remove it, or name another "
                    f"file in {self.field}"
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

    def digests(self, folder: Path) -> dict[str, str]:
        """SHA-256 of the files made in `folder`, by their names."""
        return {name: sha256_of(folder / name) for name in self.names if (folder / name).exists()}

    def left_by(
        self, start: Start | None, claim: str | None, digests: Mapping[str, str]
    ) -> list[Path]:
        """The files that an earlier start of the same job has left.

        Args:
            claim, digests: of those that have left them, by their record.
        """
        if start is None or start.claim != claim:
            return []
        paths = [self.target.with_name(name) for name in self.names if name in digests]
        return [path for path in paths if path.is_file() and sha256_of(path) == digests[path.name]]
