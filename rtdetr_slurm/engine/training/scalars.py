"""TensorBoard scalars without the weight of torch.utils.tensorboard."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter


class Scalars:
    """Writes one event file into a folder."""

    def __init__(self, folder: Path) -> None:
        self._writer = EventFileWriter(str(folder))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Record `values` at an optimizer step."""
        summary = Summary(
            value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        )
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        self._writer.close()


@contextmanager
def open_scalars(folder: Path, *, main: bool) -> Iterator[Scalars | None]:
    """Scalars for the length of a training, on the main rank, all written however it ends."""
    if not main:
        yield None
        return
    with closing(Scalars(folder)) as scalars:
        yield scalars
