"""Optuna's dashboard opens the journal of a search as it is."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from search_support import search_in

from rtdetr_slurm.automl.study import create_study, journal_of

AUTOML_MD = Path(__file__).parents[2] / "docs" / "automl.md"
PATIENCE_S = 120


def ask(port: int, path: str) -> Any:
    """What the dashboard answers; None while it does not."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/{path}", timeout=30) as answer:
            return json.load(answer)
    except (urllib.error.URLError, ConnectionError):
        return None


@contextmanager
def dashboard(journal: Path) -> Iterator[int]:
    """The command that docs/automl.md shows, on a free port."""
    [words] = re.findall(r"^ *optuna-dashboard (.*)$", AUTOML_MD.read_text(), re.MULTILINE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [str(journal) if word.endswith(journal.name) else word for word in words.split()]
    program = Path(sys.executable).with_name("optuna-dashboard")
    process = subprocess.Popen(
        [program, *arguments, "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield port
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_of_a_search_that_is_under_way(tmp_path: Path) -> None:
    search = search_in(tmp_path)
    study = create_study(search)
    for number in range(2):
        assert study.take() is not None
        study.report(number, 0, {"val_mAP": 0.1 * (number + 1)})
    study.complete(0, {"seconds": 60.0})
    before = journal_of(search).read_bytes()
    with dashboard(journal_of(search)) as port:
        deadline = time.monotonic() + PATIENCE_S
        while (found := ask(port, "studies")) is None:
            assert time.monotonic() < deadline, "the dashboard does not answer"
            time.sleep(0.2)
        [listed] = found["study_summaries"]
        shown = ask(port, f"studies/{listed['study_id']}")
        assert shown["trials"][0]["values"] == [0.1]
        assert [trial["state"] for trial in shown["trials"]] == ["Complete", "Running", "Waiting"]
        assert shown["trials"][1]["intermediate_values"] == [{"step": 0, "value": 0.2}]
        names = {param["name"] for param in shown["trials"][0]["params"]}
        assert names == {parameter.field for parameter in search.space}
        # The search goes on meanwhile.
        study.report(1, 1, {"val_mAP": 0.3})
        study.complete(1, {})
    assert study.trials()[1].best_epoch == 1
    assert journal_of(search).read_bytes().startswith(before)
