"""`job.datasets`: roots of datasets, from which the sources that an action needs are filled.

A root holds `images.tar.gz` and `annotations.json`, and for an inference `label_map.txt`; it may
hold a folder `images` in place of the archive, which is looked for on the file system alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rtdetr_slurm.actions import ACTIONS, Action
from rtdetr_slurm.places import expanded
from rtdetr_slurm.resolved_spec import is_uri, value_at, with_value
from rtdetr_slurm.spec.fields import QUANTIZE

IMAGES, ARCHIVE, ANNOTATIONS, LABELS = (
    "images",
    "images.tar.gz",
    "annotations.json",
    "label_map.txt",
)
"""What a root holds."""
_RAW = "coco_raw"
ROOTS: Mapping[str, str] = {
    "train": "train",
    "val": "eval",
    "test": "eval",
    "infer": "inference",
    "quant_calibration": "calibration",
}
"""By what the table of actions calls a kind of sources: the key in job.datasets."""


def complete_sources(data: Mapping[str, Any], actions: Sequence[str]) -> dict[str, Any]:
    """A copy of a spec with the data sources that its actions need and that it leaves out, as
    job.datasets has them. What the spec gives wins.

    Args:
        data: plain, before it is validated.
    """
    completed = dict(data)
    roots = value_at(data, "job.datasets")
    if not isinstance(roots, Mapping):
        return completed
    for kind in dict.fromkeys(kind for name in actions for kind in _needed(ACTIONS[name], roots)):
        path = f"dataset.{kind}_data_sources"
        root = _root(roots, kind)
        if root and isinstance(data.get("dataset") or {}, Mapping) and _is_open(data, path):
            completed = with_value(completed, path, _source(kind, root, roots.get("format")))
    return completed


def chain_of(data: Mapping[str, Any], action: str | None) -> Iterator[str]:
    """The actions of a spec that is not yet validated: those that there are."""
    then = value_at(data, "job.then")
    entries = then if isinstance(then, list) else []
    words = (entry.get("action") if isinstance(entry, Mapping) else entry for entry in entries)
    return (name for name in (action, *words) if isinstance(name, str) and name in ACTIONS)


def _needed(action: Action, roots: Mapping[str, Any]) -> Iterator[str]:
    """What is opened, and what a quantization may make use of; for the calibration of engines only
    what is given for it."""
    yield from action.reads
    if action.name in QUANTIZE:
        yield from (kind for kind in action.may_read if kind in ROOTS)
    elif "quant_calibration" in action.may_read and roots.get(ROOTS["quant_calibration"]):
        yield "quant_calibration"


def _root(roots: Mapping[str, Any], kind: str) -> Any:
    """A quantization calibrates on what was trained on, where nothing else is given."""
    root = roots.get(ROOTS[kind])
    return root or (roots.get(ROOTS["train"]) if kind == "quant_calibration" else None)


def _is_open(data: Mapping[str, Any], path: str) -> bool:
    """Whether a source is left out, or is a placeholder."""

    def texts(node: Any) -> Iterator[Any]:
        if isinstance(node, Mapping | list):
            for item in node.values() if isinstance(node, Mapping) else node:
                yield from texts(item)
        else:
            yield node

    return all(text in ("", None, "???") for text in texts(value_at(data, path)))


def _source(kind: str, root: Any, form: Any) -> Any:
    """A list of sources for a training, one for all else; of several roots it is the first."""
    roots = [str(one) for one in (root if isinstance(root, list) else [root])]
    if kind == "infer":
        images = [_images(one, form) for one in roots]
        return {"image_dir": images, "classmap": _below(roots[0], LABELS)}
    sources = [
        {"image_dir": _images(one, form), "json_file": _below(one, ANNOTATIONS)} for one in roots
    ]
    return sources if kind == "train" else sources[0]


def _images(root: str, form: Any) -> str:
    folder = _below(root, IMAGES)
    if form is None and not is_uri(root) and Path(expanded(folder)).is_dir():
        return folder
    return folder if form == _RAW else _below(root, ARCHIVE)


def _below(root: str, name: str) -> str:
    return f"{root.rstrip('/')}/{name}"
