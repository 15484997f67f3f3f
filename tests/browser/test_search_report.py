"""The report of a search, as a browser shows it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from search_support import SPACE, search_in

from rtdetr_slurm.automl.history import TrialRecord, TrialState
from rtdetr_slurm.automl.leaderboard import leaderboard
from rtdetr_slurm.automl.report import SearchReport, render
from rtdetr_slurm.plan.search import Objective, Parameter, Search

from .chromium import Chromium

HOSTILE = '</script><script>alert("1")</script><img src=x onerror=alert(1)>\u202e&amp;'
"""A value that is searched, and the evidence of a failure."""
ONE = ["History", "Importances", "Parallel coordinates", "Learning curves"]

PLOTS = """[...document.querySelectorAll('h2')].map(title => {
    const plot = title.nextElementSibling?.nextElementSibling
    const box = plot?.getBoundingClientRect()
    return {
        title: title.textContent, is_plot: plot?.className == 'plot',
        width: box?.width, height: box?.height,
        traces: plot?.querySelector('.plotly-graph-div')?.data?.length ?? null,
        shapes: [...(plot?.querySelectorAll('.trace path, .point path, path.js-line') ?? [])]
            .filter(shape => shape.getBoundingClientRect().width
                + shape.getBoundingClientRect().height > 0).length,
    }}).filter(one => one.is_plot)"""


def report_of(search: Search, trials: int) -> bytes:
    """Of a search in which a higher learning rate was better; one trial in five failed."""
    records = []
    for number in range(trials):
        rate = 1e-5 * 10 ** (3 * ((number * 7) % trials) / trials)
        values = {
            "train.optim.lr": rate,
            "model.num_queries": 50 + number * 5,
            "model.backbone": ("resnet_18", HOSTILE)[number % 2],
        }
        if number % 5 == 4:
            failure = ("config", HOSTILE)
            records.append(TrialRecord(number, TrialState.FAILED, values, 6, failure=failure))
            continue
        epochs = (2, 6)[number % 3 > 0]
        curve = {epoch: rate * 50 * (1 - 0.6 ** (epoch + 1)) for epoch in range(epochs)}
        scores = {"val_mAP": curve[epochs - 1], "parameters": 1e6 * (1 + number % 4)}
        state = TrialState.COMPLETE if epochs == 6 else TrialState.PRUNED
        told = {"curve": curve, "scores": scores, "best_epoch": epochs - 1}
        records.append(TrialRecord(number, state, values, 6, **told))
    facts = [("goes by", HOSTILE)]
    return render(SearchReport(f"Search of {HOSTILE}", facts, search, leaderboard(search, records)))


def shown(browser: Chromium, file: Path) -> list[dict[str, Any]]:
    """Open a report; what it shows as plots, in order."""
    browser.open(file)
    deadline = time.monotonic() + 60
    while any(plot["traces"] is None for plot in browser.value_of(PLOTS)):
        assert time.monotonic() < deadline, "the plots are not drawn"
        time.sleep(0.1)
    assert browser.complaints() == []
    assert browser.requests() == [file.as_uri()]
    assert browser.value_of("document.images.length") == 0
    assert browser.value_of("document.documentElement.scrollWidth <= window.innerWidth")
    assert HOSTILE in browser.value_of("document.body.innerText")
    plots: list[dict[str, Any]] = browser.value_of(PLOTS)
    for plot in plots:
        assert plot["width"] > 500, plot
        assert plot["height"] > 300, plot
        assert plot["shapes"] >= 2, plot
    return plots


def test_every_plot_is_drawn(browser: Chromium, tmp_path: Path) -> None:
    backbone = Parameter("model.backbone", "categorical", HOSTILE, choices=("resnet_18", HOSTILE))
    search = search_in(tmp_path, space=(*SPACE, backbone), trials=20)
    page = tmp_path / "report.html"
    page.write_bytes(report_of(search, 20))
    plots = shown(browser, page)
    assert [plot["title"] for plot in plots] == ONE
    assert plots[-1]["traces"] == 16  # a curve for each trial that did not fail
    # Nothing of a value is taken for markup, and every value is there to read.
    assert browser.value_of("document.querySelectorAll('table')[1].rows.length") == 1 + 20
    assert browser.value_of("document.scripts.length") == 1 + len(ONE)


def test_of_several_objectives(browser: Chromium, tmp_path: Path) -> None:
    objectives = (Objective("val_mAP", "maximize"), Objective("parameters", "minimize"))
    page = tmp_path / "report.html"
    page.write_bytes(report_of(search_in(tmp_path, objectives=objectives), 12))
    plots = shown(browser, page)
    assert [plot["title"] for plot in plots] == ["Pareto front", *ONE]


def test_of_a_search_with_too_little_to_compare(browser: Chromium, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_bytes(report_of(search_in(tmp_path), 1))
    browser.open(page)
    assert browser.complaints() == []
    plots = [plot["title"] for plot in browser.value_of(PLOTS)]
    assert plots == [title for title in ONE if title != "Importances"]
    assert "fewer than 10 trials have a result" in browser.value_of("document.body.innerText")
