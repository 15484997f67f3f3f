"""CPU time and memory of reading an annotation file, as `submit` and rank 0 do.

    python benchmarks/annotations.py [--boxes N]

Writes a COCO file of N boxes to a temporary folder and prints one table: seconds and what the
memory grows by at most, each in a process of its own, of `json.load` (for comparison), of
`read_annotations`, and of that and `count_boxes`. Linux only.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

MEASURE = """
import re, sys, time
from pathlib import Path
{imports}
def peak():  # unlike getrusage's without what this process was forked from
    return int(re.search("VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
path, before, start = Path(sys.argv[1]), peak(), time.process_time()
{work}
print(f"{{time.process_time() - start:8.2f}}  {{peak() - before:10.0f}}")
"""
READ = "from rtdetr_slurm.data.coco import read_annotations"
COUNT = f"{READ}\nfrom rtdetr_slurm.data.boxes import count_boxes"
WORK = {
    "json.load": ("import json", "content = json.loads(path.read_text())"),
    "read_annotations": (READ, "read = read_annotations(path)"),
    "and count_boxes": (COUNT, "read = read_annotations(path); count_boxes(read, (640, 640))"),
}


def write_coco(path: Path, boxes: int, images: int | None = None) -> None:
    """A file like MS COCO's without segmentations: seven boxes per image of 640 x 480, or as many
    as there are images for."""
    draw = random.Random(0)
    images = images or boxes // 7 + 1
    content = {
        "images": [
            {"id": i, "file_name": f"{i:012d}.jpg", "width": 640, "height": 480}
            for i in range(images)
        ],
        "annotations": [
            {
                "id": i,
                "image_id": draw.randrange(images),
                "category_id": draw.randrange(1, 81),
                "bbox": [round(draw.uniform(1, 300), 2) for _ in range(4)],
                "area": round(draw.uniform(1, 9000), 4),
                "iscrowd": 0,
            }
            for i in range(boxes)
        ],
        "categories": [{"id": i, "name": f"class {i}"} for i in range(1, 81)],
    }
    path.write_text(json.dumps(content))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--boxes", type=int, default=800_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "annotations.json")
        write_coco(path, args.boxes)
        print(f"{args.boxes} boxes, {path.stat().st_size >> 20} MiB")
        print(f"{'':<18}   CPU s    peak MiB")
        for name, (imports, work) in WORK.items():
            program = MEASURE.format(imports=imports, work=work)
            command = [sys.executable, "-c", program, str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            print(f"{name:<18}{done.stdout}", end="")


if __name__ == "__main__":
    main()
