"""Detections on images as files: label files in KITTI's manner, and COCO's JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from rtdetr_slurm import __version__
from rtdetr_slurm.contract import PREDICTIONS_VERSION
from rtdetr_slurm.data.json_stream import NotJson, stream_object
from rtdetr_slurm.errors import NewerVersion, RequestError
from rtdetr_slurm.vision.output_names import LABELS, PICTURES, OutputFiles
from rtdetr_slurm.vision.scoring import Detected
from rtdetr_slurm.vision.table import Table


def clipped_rows(detected: Detected) -> NDArray[np.float64]:
    """The rows of a batch, [D, 7], with their boxes clipped to their images."""
    rows: NDArray[np.float64] = detected.rows.copy()
    position = {image: place for place, image in enumerate(detected.batch.images)}
    places = [position[int(image)] for image in rows[:, 0]]
    limits = detected.batch.sizes.double().cpu().numpy()[places].reshape(-1, 2)
    corner = (rows[:, 1:3] + rows[:, 3:5]).clip(0, limits)
    rows[:, 1:3] = rows[:, 1:3].clip(0, limits)
    rows[:, 3:5] = corner - rows[:, 1:3]
    return rows


def label_lines(rows: NDArray[np.float64], classes: Mapping[int, str]) -> str:
    """The label file of one image, as TAO writes it: sixteen fields, with a space between two.

    Args:
        rows: [D, 7] of `clipped_rows`, of this image.
        classes: class id to name.
    """
    return "".join(
        f"{label_name(classes[int(label)])} 0.00 0 0.00 {x:.3f} {y:.3f} {x + width:.3f} "
        f"{y + height:.3f} {'0.00 ' * 7}{score:.3f}\n"
        for _, x, y, width, height, score, label in rows.tolist()
    )


def label_name(name: str) -> str:
    """A class name as one field: spaces and other blanks, what cannot be printed and the per cent
    sign as in an address (`%20`); `urllib.parse.unquote` gives the name back."""
    return "".join(
        quote(one, errors="surrogatepass")
        if one.isspace() or one == "%" or not one.isprintable()
        else one
        for one in name
    )


# --- predictions.json ----------------------------------------------------------------------
def predictions_json(rows: NDArray[np.float64]) -> Iterator[bytes]:
    """All detections as COCO's results, piece by piece; the ids of images are those of
    `images_json`."""
    return _json_list(
        {
            "image_id": int(image) + 1,
            "category_id": int(label),
            "bbox": [round(side, 3) for side in box],
            "score": round(score, 6),
        }
        for image, *box, score, label in (row.tolist() for row in rows)
    )


def images_json(
    table: Table,
    outputs: Sequence[OutputFiles],
    facts: Mapping[str, Any],
    sizes: Mapping[int, tuple[int, int]] | None = None,
    problems: Mapping[int, str] | None = None,
) -> Iterator[bytes]:
    """What the ids of predictions.json mean, piece by piece: a COCO file without annotations.

    Args:
        facts: about the inference.
        sizes: width and height of images, by position, as far as they are known.
        problems: why an image could not be used, by position.
    """
    info = {"schema_version": PREDICTIONS_VERSION, "version": __version__, **facts}
    categories = [{"id": i, "name": name} for i, name in table.classes.items()]
    yield b'{"info": ' + _json(info) + b',\n"categories": ' + _json(categories)
    yield b',\n"annotations": [],\n"images": '
    yield from _json_list(
        {
            "id": image + 1,
            "file_name": table.name(image),
            "path": str(table.path(image)),
            **dict(zip(("width", "height"), (sizes or {}).get(image, ()), strict=False)),
            **(
                {"problem": problems[image]}
                if problems and image in problems
                else outputs[image]._asdict()
            ),
        }
        for image in range(len(table))
    )
    yield b"}\n"


def written_before(path: Path) -> Iterator[str]:
    """The label files and pictures that an earlier images.json names, relative to its folder.

    Raises:
        RequestError: it cannot be read, is of a newer version, or names anything else.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise ValueError("it is not a file")
        for key, value in stream_object(path):
            if key == "info" and isinstance(value, dict):
                version = value.get("schema_version")
                if isinstance(version, int) and version > PREDICTIONS_VERSION:
                    raise NewerVersion(path, version, PREDICTIONS_VERSION)
            elif key == "images":
                for image in value:
                    yield from _outputs(image)
    except FileNotFoundError:
        return
    except (OSError, ValueError, NotJson) as error:
        raise RequestError(
            f"{path}, which says what an inference has written here before, cannot be read: "
            f"{error}. Remove it with the files of that inference, or choose another results_dir"
        ) from None


def _outputs(image: Any) -> Iterator[str]:
    for kind in OutputFiles._fields if isinstance(image, dict) else ():
        name = image.get(kind)
        if name is None:  # of an image that could not be used
            continue
        parts = PurePosixPath(name).parts if isinstance(name, str) else ("..",)
        if {"/", ".."} & {*parts} or not {LABELS, PICTURES} & {*parts[:-1]}:
            raise ValueError(f"it has {name!r} as the {kind} of an image")
        yield str(name)


def _json_list(entries: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """A JSON list, an entry on a line."""
    start = b"[\n"
    for entry in entries:
        yield start + _json(entry)
        start = b",\n"
    yield b"[]\n" if start == b"[\n" else b"\n]\n"


def _json(value: object) -> bytes:
    """Plain ASCII: a file name may hold what is no character."""
    return json.dumps(value).encode()
