"""Memory that the annotations take on a node, beside a list of dicts.

    python benchmarks/memory.py [--images N] [--boxes N] [--ranks N] [--workers N]
                                [--plain-ranks N] [--plain-workers N]

Writes a COCO file, by default as large as MS COCO's train2017 without segmentations, and has ranks
(processes over gloo) open it as training does; each of their loading processes then looks at all of
it. The plain way is that of torchvision's CocoDetection: each rank reads dicts with pycocotools,
and forks loading processes, in which whatever is looked at is copied, for that changes its
reference counts. Printed is what these processes have more in memory than as many with a file of
one box: the sum of proportional set sizes, which counts once what is shared. As many of the plain
ones as of ours may not fit into the memory; their figure is per process. Linux only.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import tempfile
import warnings
from collections.abc import Callable
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from annotations import write_coco
from torch.utils.data import DataLoader, Dataset

from rtdetr_slurm.data.coco import Source, read_annotations
from rtdetr_slurm.engine.datasets.sharing import share_table
from rtdetr_slurm.engine.process import distributed, loading
from rtdetr_slurm.engine.process.rendezvous import free_port
from rtdetr_slurm.vision.table import Table, open_table

SPAWN = multiprocessing.get_context("spawn")


class Look(Dataset[float]):
    """Each item is a look at all there is."""

    def __init__(self, look: Callable[[], float]) -> None:
        self.look = look

    def __getitem__(self, _: int) -> float:
        return self.look()


class LookAtTable:
    def __init__(self, table: Table) -> None:
        self.table = table

    def __call__(self) -> float:
        return float(sum(array.sum() for array in self.table.arrays.values()))


class LookAtDicts:
    def __init__(self, path: Path) -> None:
        from pycocotools.coco import COCO

        self.coco = COCO(path)

    def __call__(self) -> float:
        boxes = sum(
            one["bbox"][0] for image in self.coco.imgs for one in self.coco.imgToAnns[image]
        )
        return float(boxes + sum(len(one["file_name"]) for one in self.coco.imgs.values()))


def our_rank(context: distributed.Context, path: Path) -> tuple[Callable[[], float], Any]:
    loading.start_server()
    read = [] if context.rank else [Source(path.parent, read_annotations(path))]
    table = share_table(context, lambda: open_table(read, 91))
    read.clear()
    return LookAtTable(table), loading.CONTEXT


def plain_rank(_: distributed.Context, path: Path) -> tuple[Callable[[], float], Any]:
    return LookAtDicts(path), multiprocessing.get_context("fork")


def be_rank(
    rank: int, path: Path, args: argparse.Namespace, ready: Queue[int], done: Event
) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(args.ranks),
        "LOCAL_WORLD_SIZE": str(args.ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(args.port),
    }
    warnings.filterwarnings("ignore", "This DataLoader will create")  # more than there are cores
    context = distributed.join("cpu")
    look, start = (plain_rank if args.plain else our_rank)(context, path)
    look()
    loader = DataLoader(
        Look(look),
        sampler=range(args.workers),
        batch_size=None,
        num_workers=args.workers,
        multiprocessing_context=start,
        persistent_workers=True,
    )
    assert len(list(loader)) == args.workers
    ready.put(rank)
    done.wait()
    del loader
    distributed.leave()


def measure(path: Path, args: argparse.Namespace) -> float:
    """MiB of all ranks and their loading processes."""
    args.port = free_port()
    ready, done = SPAWN.Queue(), SPAWN.Event()
    ranks = [
        SPAWN.Process(target=be_rank, args=(rank, path, args, ready, done))
        for rank in range(args.ranks)
    ]
    for one in ranks:
        one.start()
    for _ in ranks:
        ready.get(timeout=1200)
    found = sum(map(proportional_set_size, descendants()))
    done.set()
    for one in ranks:
        one.join()
    return found / 1024


def descendants() -> list[int]:
    """Processes that come of this one."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int(
                (folder / "stat").read_text().rsplit(")", 1)[1].split()[1]
            )
        except OSError:
            continue  # it has ended
    found = [os.getpid()]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found[1:]


def proportional_set_size(process: int) -> int:
    """KiB."""
    match = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{process}/smaps_rollup").read_text(), re.M)
    return int(match[1]) if match else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=118_000)
    parser.add_argument("--boxes", type=int, default=860_000)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--plain-ranks", type=int, default=1)
    parser.add_argument("--plain-workers", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        large, small = Path(folder, "large.json"), Path(folder, "small.json")
        write_coco(large, args.boxes, args.images)
        write_coco(small, 1, 1)
        print(f"{args.images} images, {args.boxes} boxes, {large.stat().st_size >> 20} MiB of JSON")
        print(f"{'':<16}ranks  loading processes of each      MiB  MiB per process")
        for name, plain in (("mapped arrays", False), ("list of dicts", True)):
            args.plain = plain
            if plain:
                args.ranks, args.workers = args.plain_ranks, args.plain_workers
            taken = measure(large, args) - measure(small, args)
            each = taken / (args.ranks * (args.workers + 1))
            print(f"{name:<16}{args.ranks:5}{args.workers:27}{taken:9.0f}{each:17.1f}")


if __name__ == "__main__":
    main()
