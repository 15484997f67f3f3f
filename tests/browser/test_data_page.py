"""The page about the data of a spec, as a browser shows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rtdetr_slurm.cli.main import main
from rtdetr_slurm.data.sample import write_sample

from .chromium import Chromium
from .test_report import CHARTS, HOSTILE, IMAGES


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """Of four images to train on and two to score, with a hostile class and a wrong num_classes."""
    write_sample(tmp_path / "data", 4, 2, 80, 0)
    for split in ("train", "val"):
        path = tmp_path / "data" / split / "annotations.json"
        content = json.loads(path.read_text())
        content["categories"][0]["name"] = HOSTILE
        path.write_text(json.dumps(content))
    source = "{{image_dir: {0}/images, json_file: {0}/annotations.json}}"
    train, val = (source.format(tmp_path / "data" / split) for split in ("train", "val"))
    spec = tmp_path / "train.yaml"
    spec.write_text(
        f"dataset: {{num_classes: 3, batch_size: 1, train_data_sources: [{train}], "
        f"val_data_sources: {val}}}\nresults_dir: {tmp_path}\n"
    )
    file = tmp_path / "page.html"
    assert main(["data", "check", str(spec), "--site", "local", "--html", str(file)]) == 2
    return file


def test_a_page_about_data(browser: Chromium, page: Path) -> None:
    browser.open(page)
    charts = {chart["name"]: chart for chart in browser.value_of(CHARTS)}
    kinds = ("boxes by class", "boxes by image", "sides of objects", "width by height of objects")
    assert set(charts) == {f"{kind}, {split}" for kind in kinds for split in ("train", "val")}
    for name, chart in charts.items():
        assert chart["width"] > 100, name
        assert chart["shapes"] > 0, name
        assert chart["outside"] == 0, name
    images = browser.value_of(IMAGES)
    assert len(images) == 6
    for image in images:
        assert image["pixels"] == 80 * 80
        assert image["boxes"] > 0
        assert image["same"]
    text = browser.value_of("document.body.textContent")
    assert HOSTILE in text
    assert "set dataset.num_classes to 4" in text
    assert browser.complaints() == []
    addresses = browser.requests()
    assert addresses[0] == page.as_uri()
    assert all(one.startswith("data:") for one in addresses[1:])
    assert browser.value_of("document.scripts.length") == 0
    assert browser.value_of("document.documentElement.scrollWidth <= window.innerWidth")
