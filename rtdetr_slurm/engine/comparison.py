"""The images on which several forms of a detector are compared."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.engine.datasets.sources import OpenSource, open_sources, table_of
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.vision.scoring import EvaluationData, evaluation_data


@dataclass(frozen=True)
class Compared:
    """What forms of a detector are compared on.

    Attributes:
        kind: of the data source, as the action table names it.
        data: None: nothing; `why` says the reason.
        images: of the source, of which those of `data` are some.
    """

    kind: str = ""
    data: EvaluationData | None = None
    images: int = 0
    why: str = ""

    @property
    def source(self) -> str:
        """The field of the spec."""
        return f"dataset.{self.kind}_data_sources"


def comparison(session: Session, size: tuple[int, int], most: int) -> Compared:
    """Images of the action's validation source, else of its test source.

    Args:
        size: (height, width) that they are resized to.
        most: so many at most, spread evenly over the source.
    """
    problems = []
    for kind in (one for one in get_action(session.name).may_read if one in ("val", "test")):
        try:
            for source in open_sources(session, [kind])[kind]:
                return images_of(session, kind, source, size, most)
        except RequestError as error:
            problems.append(str(error))
    why = "; ".join(problems)
    return Compared(
        why=why or "neither dataset.val_data_sources nor dataset.test_data_sources is set"
    )


def images_of(
    session: Session, kind: str, source: OpenSource, size: tuple[int, int], most: int
) -> Compared:
    """Images of a source that is open; arguments as those of `comparison`.

    Raises:
        RequestError: as table_of.
    """
    data = evaluation_data(session.experiment, table_of(session, [source]), size=size)
    return Compared(kind, replace(data, table=data.table.spread(most)), len(data.table))
