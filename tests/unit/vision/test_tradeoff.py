"""Accuracy against latency: which forms are on the front, and what is drawn."""

from __future__ import annotations

import math

from rtdetr_slurm.charts import Axis
from rtdetr_slurm.vision.report import Report, render_report
from rtdetr_slurm.vision.tradeoff import Latency, Measured, Tradeoff, pareto_front


def form(name: str, milliseconds: float, mean_ap: float) -> Measured:
    return Measured(name, "here", mean_ap, (Latency(1, 5, milliseconds, milliseconds, 9.0, 100.0),))


def test_the_front_holds_what_nothing_beats() -> None:
    fast, slow, best = form("fast", 1, 0.3), form("slow", 5, 0.3), form("best", 9, 0.5)
    worse, same, unknown = form("worse", 10, 0.4), form("same", 9, 0.4), form("no", 0.1, math.nan)
    alone = Measured("untimed", "here", 0.9)
    assert pareto_front([worse, best, same, slow, fast, alone, unknown]) == [fast, best]
    assert pareto_front([]) == []


def test_a_report_shows_every_form() -> None:
    hostile = form("<b>&", 1.0, 0.25)
    forms = [form("checkpoint", 100.0, 0.5), hostile, Measured("untimed", "here", 0.4)]
    page = render_report(Report("t", [], tradeoff=Tradeoff(forms, "on 5 images"))).decode()
    assert "&lt;b&gt;&amp;" in page
    assert "<b>&" not in page
    assert page.count('r="5"') == 4  # two dots, and their names' two
    assert "<td>0.2500</td>" in page
    assert "<polyline" in page
    assert page.count("<tr>") == 4
    one = render_report(Report("t", [], tradeoff=Tradeoff([hostile], ""))).decode()
    assert "nan" not in one


def test_a_logarithmic_axis_has_round_ticks() -> None:
    axis = Axis("ms", 0.8, 120, log=True)
    assert axis.ticks() == [1, 2, 5, 10, 20, 50, 100]
    assert (axis.place(0.8), axis.place(120)) == (0, 1)
    assert len(Axis("ms", 1e-6, 1e6, log=True).ticks()) <= 13
