"""Two ranks find what one finds."""

from __future__ import annotations

import json
from pathlib import Path

from engine_support import Workspace, fresh_weights, session_of, workspace  # noqa: F401
from ranks import run_ranks

from rtdetr_slurm.engine.actions.inference import inference
from rtdetr_slurm.engine.process.distributed import Context
from rtdetr_slurm.spec import load_spec

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)


def on_rank(context: Context, spec: Path, overrides: list[str]) -> None:
    inference(session_of(load_spec(spec, overrides, action="inference"), context))


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.glob("*/*")}


def test_two_ranks_find_what_one_finds(workspace: Workspace, tmp_path: Path) -> None:
    images = json.dumps([str(workspace.data / "val" / "images")])
    overrides = [
        f"dataset.infer_data_sources.image_dir={images}",
        f"inference.checkpoint={fresh_weights(workspace)}",
        "inference.conf_threshold=0",
        "inference.batch_size=2",
    ]
    inference(workspace.session(*overrides, name="inference"))
    on_two = [f"results_dir={tmp_path / 'two'}", "inference.num_gpus=2"]
    run_ranks(on_rank, workspace.spec_file(), [*overrides, *on_two])
    alone, both = workspace.results / "inference", tmp_path / "two" / "inference"
    for name in ("predictions.json", "images.json"):
        assert json.loads((both / name).read_text()) == json.loads((alone / name).read_text())
    assert files(both) == files(alone)
    assert len(files(both)) == 10
