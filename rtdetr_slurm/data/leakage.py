"""Images that are both trained on and scored. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rtdetr_slurm.data.coco import Source
from rtdetr_slurm.data.findings import Findings

Digests = Mapping[tuple[Path, Path], Mapping[bytes, Sequence[str]]]
"""Source, as folder and annotation file, to content of a file to names of images."""
SCORED = ("val", "test")
_SHOWN = 3


def find_leaks(sources: Sequence[tuple[str, Source]], digests: Digests, found: Findings) -> None:
    """Warn of files that training and scores have in common, by what is in them.

    Args:
        sources: kind and source.
    """

    def of(source: Source) -> Mapping[bytes, Sequence[str]]:
        if source.image_dir is None:
            return {}
        return digests.get((source.image_dir, source.annotations.path), {})

    trained: dict[bytes, Path] = {}
    for kind, source in sources:
        if kind == "train":
            for digest, names in of(source).items():
                trained.setdefault(digest, source.folder / names[0])
    for kind, source in sources:
        if kind not in SCORED:
            continue
        shared = [(n, trained[d]) for d, names in of(source).items() if d in trained for n in names]
        if shared:
            shown = ", ".join(f"{name!r} is {path}" for name, path in shared[:_SHOWN])
            found.warn(
                ("dataset", f"{kind}_data_sources"),
                f"{len(shared)} of {source.annotations.num_images} images of "
                f"{source.annotations.path} are trained on, too, by the content of their files: "
                f"{shown}{', ...' * (len(shared) > _SHOWN)}. Scores on them say little about "
                "images that the detector has not seen; take them out of one of the two",
            )
