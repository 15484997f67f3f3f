"""TensorBoard scalars without the weight of torch.utils.tensorboard."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer import event_file_writer


class TensorBoard:
    """Writes one event file into a folder."""

    def __init__(self, folder: Path) -> None:
        # Looked up in its module, where W&B puts itself in its place (wandb.sync_tensorboard).
        self._writer = event_file_writer.EventFileWriter(str(folder))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Record `values` at an optimizer step."""
        summary = Summary(
            value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        )
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        self._writer.close()
