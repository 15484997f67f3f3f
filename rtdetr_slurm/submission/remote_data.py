"""A data set in an object store or on a web server, for a spec to begin with: what is where, and
its annotations, brought into the cache."""

from __future__ import annotations

import os
from collections.abc import Mapping

from rtdetr_slurm.data.layout import SplitFiles
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.staging import StagedObject, Store
from rtdetr_slurm.resolved_spec import shown_uri
from rtdetr_slurm.site.discover import FoundSite
from rtdetr_slurm.spec.dataset import PACKED_SUFFIXES
from rtdetr_slurm.spec.datasets import ANNOTATIONS, ARCHIVE, IMAGES
from rtdetr_slurm.staging.fetch import fetch, look
from rtdetr_slurm.staging.progress import Tell
from rtdetr_slurm.submission.staging import store_of

_TRAIN = "train"
_FOLDERS = {_TRAIN: ("train",), "val": ("val", "valid", "eval"), "test": ("test",)}
"""Where a split may be."""
_ARCHIVES = tuple(dict.fromkeys((ARCHIVE, *(f"{IMAGES}{suffix}" for suffix in PACKED_SUFFIXES))))


def remote_splits(root: str, found: FoundSite, tell: Tell) -> Mapping[str, SplitFiles]:
    """The splits below an address: `train/annotations.json` with `train/images.tar.gz`, or another
    archive, or in S3 a folder `train/images`; and so on.

    Raises:
        RequestError: there is no split to train on, or it may not be read; or one without images.
        Unreachable: the place does not answer.
    """
    if "?" in root:
        raise RequestError(f"{shown_uri(root)}: below an address with a query there is nothing")
    store, splits = store_of(found, os.environ), dict[str, SplitFiles]()
    for split, folders in _FOLDERS.items():
        for folder in folders:
            place = f"{root.rstrip('/')}/{folder}"
            annotations = StagedObject(f"{place}/{ANNOTATIONS}", "file")
            if split == _TRAIN:
                look(annotations, store)  # whatever is wrong with it is said
            if not _is_there(annotations, store):
                continue
            entry = fetch(annotations, found.cache_root, store, tell=tell)
            splits[split] = SplitFiles(entry.path, annotations.uri, _images(place, store))
            break
    return splits


def _images(place: str, store: Store) -> str:
    for name in _ARCHIVES:
        if _is_there(StagedObject(f"{place}/{name}", "archive"), store):
            return f"{place}/{name}"
    folder = f"{place}/{IMAGES}"
    if folder.startswith("s3://") and _is_there(StagedObject(folder, "folder"), store):
        return folder
    raise RequestError(
        f"{shown_uri(place)}: it has {ANNOTATIONS}, but no images: neither {', '.join(_ARCHIVES)} "
        f"nor, in S3, a folder {IMAGES}"
    )


def _is_there(one: StagedObject, store: Store) -> bool:
    try:
        look(one, store)
    except RequestError:
        return False
    return True
