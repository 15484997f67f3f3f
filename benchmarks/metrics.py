"""Our scoring beside pycocotools', from the same two files to COCO's twelve numbers.

    python benchmarks/metrics.py [--images N] [--classes N] [--detections N] [--repeats N]

Writes ground truth and detections in COCO's formats to a temporary folder: seven boxes per image,
some of them crowds, and 100 detections, some of them near a box. Both sides read the files, score,
and take turns; each turn is a process of its own. What is printed is the seconds of each turn,
decoding included, their ratio, and whether the twelve numbers, and precision, recall and scores of
every class, are equal to the last bit. Ends with 1 where they are not.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ARRAYS = ("precision", "recall", "scores")
TRUTH, FOUND = "annotations.json", "detections.json"
SIDES = ("pycocotools", "rtdetr_slurm")


def write_files(folder: Path, images: int, classes: int, per_image: int) -> None:
    """Ground truth and detections in COCO's formats."""
    draw = np.random.default_rng(0)
    annotations, found = [], []
    for image in range(1, images + 1):
        count = min(draw.poisson(7), per_image)
        boxes = draw.uniform([0, 0, 5, 5], [400, 300, 200, 200], (count, 4))
        labels = draw.integers(1, classes + 1, count)
        crowds = draw.random(count) < 0.02
        for box, label, crowd in zip(boxes.tolist(), labels.tolist(), crowds.tolist(), strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": label,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(crowd),
                }
            )
        guesses = draw.uniform([0, 0, 5, 5], [400, 300, 200, 200], (per_image, 4))
        guesses[:count] = boxes + draw.normal(0, 5, boxes.shape)
        named = draw.integers(1, classes + 1, per_image)
        named[:count] = labels
        scores = draw.random(per_image)
        found += [
            {"image_id": image, "category_id": label, "bbox": box, "score": score}
            for label, box, score in zip(
                named.tolist(), guesses.tolist(), scores.tolist(), strict=True
            )
        ]
    content = {
        "info": {},
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 480}
            for i in range(1, images + 1)
        ],
        "categories": [{"id": i, "name": f"class {i}"} for i in range(1, classes + 1)],
        "annotations": annotations,
    }
    (folder / TRUTH).write_text(json.dumps(content))
    (folder / FOUND).write_text(json.dumps(found))


def by_pycocotools(folder: Path) -> dict[str, np.ndarray]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(str(folder / TRUTH))
    evaluation = COCOeval(truth, truth.loadRes(str(folder / FOUND)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return {"stats": np.array(evaluation.stats), **{n: evaluation.eval[n] for n in ARRAYS}}


def by_us(folder: Path) -> dict[str, np.ndarray]:
    from rtdetr_slurm.data.classes import class_names
    from rtdetr_slurm.data.coco import Source, read_annotations
    from rtdetr_slurm.vision.metrics import coco_evaluation
    from rtdetr_slurm.vision.table import build_table

    annotations = read_annotations(folder / TRUTH)
    classes = class_names([annotations], max(annotations.categories) + 1)
    table = build_table([Source(folder, annotations)], classes)
    position = {int(number): place for place, number in enumerate(table.image_ids)}
    found = json.loads((folder / FOUND).read_bytes())
    detections = np.array(
        [(position[d["image_id"]], *d["bbox"], d["score"], d["category_id"]) for d in found]
    )
    evaluation = coco_evaluation(table, detections)
    assert evaluation.eval is not None
    arrays = {name: np.asarray(evaluation.eval[name]) for name in ARRAYS}
    return {"stats": np.array(evaluation.stats), **arrays}


def turn(side: str, folder: Path) -> float:
    """Seconds of a side in a process of its own, which leaves its results beside the files."""
    command = [sys.executable, __file__, "--turn", side, str(folder)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def take_turn(side: str, folder: Path) -> None:
    import pycocotools.cocoeval  # noqa: F401  (imports are no part of either's time)

    import rtdetr_slurm.vision.metrics  # noqa: F401

    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        results = by_us(folder) if side == SIDES[1] else by_pycocotools(folder)
    print(time.perf_counter() - start)
    np.savez(folder / f"{side}.npz", **results)  # type: ignore[arg-type]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("images", 5000), ("classes", 80), ("detections", 100), ("repeats", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--turn", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.turn:
        take_turn(args.turn[0], Path(args.turn[1]))
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder, args.images, args.classes, args.detections)
        times: dict[str, list[float]] = {side: [] for side in SIDES}
        for number in range(args.repeats):
            for side in SIDES:
                times[side].append(turn(side, folder))
                print(f"turn {number + 1}  {side:<12}  {times[side][-1]:8.2f} s", flush=True)
        ratio = statistics.median(a / b for a, b in zip(*times.values(), strict=True))
        print(f"pycocotools takes {ratio:.1f} times as long")
        theirs, ours = (np.load(folder / f"{side}.npz") for side in SIDES)
        equal = {key: np.array_equal(theirs[key], ours[key]) for key in theirs}
        print("mAP " + " / ".join(repr(float(one["stats"][0])) for one in (theirs, ours)))
        for key, same in equal.items():
            shape = "x".join(map(str, theirs[key].shape))
            print(f"{key:<10} {shape:<16} {'equal to the last bit' if same else 'DIFFERENT'}")
    return 0 if all(equal.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
