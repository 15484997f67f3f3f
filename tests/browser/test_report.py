"""The reports of a real training and a real evaluation, as a browser shows them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_support import Workspace, open_workspace

from rtdetr_slurm.engine.actions.evaluate import evaluate
from rtdetr_slurm.engine.actions.train import train

from .chromium import Chromium

HOSTILE = '<img src=x onerror=alert(1)></svg></title><script>alert("1")</script>\u202e&amp;'
"""A class's name."""

CHARTS = """[...document.querySelectorAll('svg.chart')].map(svg => ({
    name: svg.getAttribute('aria-label'),
    width: svg.getBoundingClientRect().width, height: svg.getBoundingClientRect().height,
    shapes: [...svg.querySelectorAll('polyline, rect')].map(s => s.getBoundingClientRect())
        .filter(box => box.width + box.height > 0).length,
    outside: [...svg.querySelectorAll('polyline, rect, circle')].filter(shape => {
        const box = shape.getBoundingClientRect(), all = svg.getBoundingClientRect();
        return box.left < all.left - 1 || box.right > all.right + 1
            || box.top < all.top - 1 || box.bottom > all.bottom + 1 }).length,
}))"""
IMAGES = """Promise.all([...document.images].map(image => image.decode().then(() => ({
    pixels: image.naturalWidth * image.naturalHeight, width: image.getBoundingClientRect().width,
    boxes: image.parentElement.querySelectorAll('svg rect').length,
    same: image.getBoundingClientRect().width
        == image.parentElement.querySelector('svg').getBoundingClientRect().width }))))"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A training of two epochs and an evaluation of its checkpoint; one class is hostile."""
    with open_workspace(tmp_path_factory.mktemp("work")) as opened:
        for split in ("train", "val"):
            path = opened.data / split / "annotations.json"
            content = json.loads(path.read_text())
            content["categories"][0]["name"] = HOSTILE
            path.write_text(json.dumps(content))
        train(opened.session())
        checkpoint = opened.results / "train" / "model_epoch_001.pth"
        evaluate(opened.session(f"evaluate.checkpoint={checkpoint}", name="evaluate"))
        yield opened


def shown(browser: Chromium, report: Path, copy: Path) -> dict[str, dict[str, Any]]:
    """Open a report away from the folder it was made in; its charts by name."""
    copy.write_bytes(report.read_bytes())
    browser.open(copy)
    charts = {chart["name"]: chart for chart in browser.value_of(CHARTS)}
    for name, chart in charts.items():
        assert chart["width"] > 100, name
        assert chart["height"] > 50, name
        assert chart["outside"] == 0, name
    images = browser.value_of(IMAGES)
    assert images
    for image in images:
        assert image["pixels"] == 80 * 80
        assert image["width"] > 100
        assert image["boxes"] > 0
        assert image["same"]
    assert browser.complaints() == []
    addresses = browser.requests()
    assert addresses[0] == copy.as_uri()
    assert all(one.startswith("data:") for one in addresses[1:])
    assert HOSTILE in browser.value_of("document.body.textContent")
    assert browser.value_of("document.scripts.length") == 0
    assert browser.value_of("document.documentElement.scrollWidth <= window.innerWidth")
    return charts


BOTH = {"precision by recall", "errors by kind", "mAP50 lost by kind of error"}
BOTH |= {"true classes by classes found"}


def test_of_a_training(browser: Chromium, workspace: Workspace, tmp_path: Path) -> None:
    charts = shown(browser, workspace.results / "train" / "report.html", tmp_path / "train.html")
    assert set(charts) == BOTH | {"loss by epoch", "mAP by epoch"}
    assert charts["loss by epoch"]["shapes"] >= 4  # two curves and their keys


def test_of_an_evaluation(browser: Chromium, workspace: Workspace, tmp_path: Path) -> None:
    report = workspace.results / "evaluate" / "report.html"
    charts = shown(browser, report, tmp_path / "evaluate.html")
    assert set(charts) == BOTH
    assert charts["true classes by classes found"]["shapes"] == 16  # three classes and none
    hidden = "getComputedStyle(document.querySelector('rect.missed')).display"
    assert browser.value_of(hidden) != "none"
    browser.value_of("document.getElementById('no-missed').click()")
    assert browser.value_of(hidden) == "none"
