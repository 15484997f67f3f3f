"""Inference on two nodes, in a container that sees only what is bound."""

from __future__ import annotations

import json
import tarfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch

from rtdetr_slurm.engine.models import build_model
from rtdetr_slurm.spec import load_spec

from .harness.cli import Cli, submit, train_spec, write_spec
from .harness.data import Dataset

pytestmark = pytest.mark.cluster


def test_two_nodes_share_folders_archives_and_lists(cli: Cli, dataset: Dataset) -> None:
    names = [path.name for path in sorted(dataset.images("test").iterdir())][:7]
    for place in ("folder", "listed"):
        (cli.folder / place).mkdir()
        for name in names:
            (cli.folder / place / name).write_bytes((dataset.images("test") / name).read_bytes())
    (cli.folder / "folder" / "broken.jpg").write_bytes(b"no image")
    (cli.folder / "listed" / "of.txt").write_text("".join(f"{name}\n" for name in names))
    with tarfile.open(cli.folder / "packed.tar.gz", "w:gz") as archive:
        archive.add(cli.folder / "listed", "night")
    run = submit(cli, spec(cli.folder, dataset))
    stage = run.wait_for_end()
    assert stage["state"] == "success", run.log()

    listed = json.loads((run.results / "images.json").read_text())["images"]
    found: dict[int, list[Any]] = defaultdict(list)
    for row in json.loads((run.results / "predictions.json").read_text()):
        found[row["image_id"]].append([row["category_id"], *row["bbox"], row["score"]])
    of_name: dict[str, list[Any]] = defaultdict(list)
    for image in listed:
        if "label" not in image:
            assert image["file_name"] == "broken.jpg"
            continue
        of_name[Path(image["file_name"]).name].append(found[image["id"]])
        lines = (run.results / image["label"]).read_text().splitlines()
        assert len(lines) == len(found[image["id"]]) == 30
        assert (run.results / image["picture"]).stat().st_size
    assert {*of_name} == {*names}
    for same in of_name.values():
        assert len(same) == 3
        for other in same[1:]:
            torch.testing.assert_close(
                torch.tensor(other), torch.tensor(same[0]), rtol=0, atol=2e-2
            )
    warned = [line["message"] for line in run.status_lines() if line["verbosity"] == "WARNING"]
    assert any("broken.jpg cannot be decoded" in message for message in warned)


def spec(folder: Path, dataset: Dataset) -> Path:
    """Of an inference on two nodes, with weights that have learned nothing."""
    content = train_spec(dataset)
    given = content["dataset"]
    del content["train"], given["train_data_sources"], given["val_data_sources"]
    sources = [folder / name for name in ("folder", "listed/of.txt", "packed.tar.gz")]
    given["infer_data_sources"] = {"image_dir": [*map(str, sources)]}
    content["inference"] = {
        "checkpoint": str(folder / "weights.pth"),
        "num_nodes": 2,
        "num_gpus": 2,
        "batch_size": 1,
        "conf_threshold": 0.0,
    }
    path = write_spec(folder / "inference.yaml", content)
    if not (folder / "weights.pth").exists():
        experiment = load_spec(path, action="inference").experiment
        torch.manual_seed(0)
        model = build_model(experiment.model, experiment.dataset.num_classes)
        torch.save(model.state_dict(), folder / "weights.pth")
    return path
