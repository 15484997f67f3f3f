"""Many processes on one journal, which sleep in place of training."""

from __future__ import annotations

import multiprocessing
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from simulation import METRIC, SPACE

from rtdetr_slurm.automl.study import create_study, open_study
from rtdetr_slurm.plan.search import Objective, Search


def work(search: Search, index: int, epoch_seconds: float, told: Any) -> None:
    """A worker: trials whose epochs are slept through; tells what the study has cost each."""
    time.sleep(random.Random(index).uniform(0, 30))
    began = time.perf_counter()
    study = open_study(search)
    opened = time.perf_counter() - began
    while True:
        began = time.perf_counter()
        taken = study.take()
        if taken is None:
            break
        spent = time.perf_counter() - began
        for epoch in range(taken.epochs):
            time.sleep(epoch_seconds)
            began = time.perf_counter()
            study.report(taken.number, epoch, {METRIC: random.random()})
            spent += time.perf_counter() - began
        began = time.perf_counter()
        study.complete(taken.number, {"worker": index})
        spent += time.perf_counter() - began
        told.put((taken.number, opened, spent))


def journal_table(workers: int, trials: int, epochs: int, epoch_seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        search = Search(
            folder, "bayesian", 1, SPACE, (Objective(METRIC, "maximize"),), trials, epochs
        )
        study = create_study(search)
        context = multiprocessing.get_context("fork")  # Optuna is loaded once for all
        told = context.Queue()
        began = time.perf_counter()
        processes = [
            context.Process(target=work, args=(search, index, epoch_seconds, told))
            for index in range(workers)
        ]
        for process in processes:
            process.start()
        found = [told.get() for _ in range(trials)]
        for process in processes:
            process.join()
        records = study.trials()
        complete = sum(record.state == "complete" for record in records)
        spent = sorted(cost for _, _, cost in found)
        size = (Path(folder) / "journal.log").stat().st_size
        print(f"{workers} workers, {trials} trials of {epochs} epochs of {epoch_seconds} s")
        print(f"complete {complete}, run twice {trials - len({number for number, _, _ in found})}")
        print(
            f"seconds of a trial spent on the study: median {statistics.median(spent):.2f}, "
            f"95 % {spent[int(0.95 * len(spent))]:.2f}, most {spent[-1]:.2f}; "
            f"to open it: {statistics.median(opened for _, opened, _ in found):.2f}"
        )
        print(f"{time.perf_counter() - began:.0f} s in all; the journal has {size / 1024:.0f} KiB")
