"""moved.json: of a run that was copied elsewhere, the folders that its record knows it by. The
record stays as it was written, to the last byte. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from rtdetr_slurm.contract import MOVED_JSON, MOVED_VERSION
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.records import read_record


@dataclass(frozen=True)
class Moved:
    """What was where.

    Attributes:
        folders: absolute path of a folder then, to its path in the copy.
    """

    folders: Mapping[str, str]
    schema_version: int = MOVED_VERSION

    def __post_init__(self) -> None:
        for then, now in self.folders.items():
            inside = PurePosixPath(now)
            if not Path(then).is_absolute() or inside.is_absolute() or ".." in inside.parts:
                raise RequestError(f"folders: {then!r} as {now!r} is no folder of a copy")

    def text(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


def where_it_is(content: Any, folder: Path) -> Any:
    """A record's content with the paths that it has in `folder`; the same where nothing has moved.

    Raises:
        NewerVersion, BadRecord: moved.json cannot be read.
    """
    moved = read_record(Moved, folder / MOVED_JSON, MOVED_VERSION)
    if moved is None:
        return content
    return at_places(
        content, {then: str(folder.absolute() / now) for then, now in moved.folders.items()}
    )


def at_places(node: Any, places: Mapping[str, str]) -> Any:
    """Plain data with the paths that it has where folders have another place.

    Args:
        places: absolute path of a folder, to where it is now.
    """
    # The innermost first: results may have been in a folder of the run, or elsewhere.
    innermost = sorted(places.items(), key=lambda item: len(item[0]), reverse=True)
    return _replaced(node, dict(innermost))


def _replaced(node: Any, new: Mapping[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _replaced(value, new) for key, value in node.items()}
    if isinstance(node, list):
        return [_replaced(item, new) for item in node]
    if isinstance(node, str):
        for then, now in new.items():
            if node == then or node.startswith(f"{then}/"):
                return now + node[len(then) :]
    return node
