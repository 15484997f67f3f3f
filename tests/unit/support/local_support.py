"""What the tests that run on this machine share: the smallest training there is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from rtdetr_slurm.data.sample import write_sample

TINY = """\
model: {backbone: resnet_18_vd, hidden_dim: 32, feat_channels: [32, 32, 32], dim_feedforward: 64,
        nheads: 4, dec_layers: 1, num_queries: 10, num_select: 10, dn_number: 5}
dataset:
  num_classes: 4
  batch_size: 2
  workers: 1
  train_data_sources: [{image_dir: data/train/images, json_file: data/train/annotations.json}]
  augmentation: {train_spatial_size: [64, 64], eval_spatial_size: [64, 64], multi_scales: []}
"""
VALIDATED = (
    "dataset.val_data_sources={image_dir: data/val/images, json_file: data/val/annotations.json}"
)
EVALUATED = (
    "dataset.test_data_sources={image_dir: data/val/images, json_file: data/val/annotations.json}"
)


def write_workspace(folder: Path) -> None:
    """Data in `folder`/data and a spec, train.yaml, that names it relative to the folder."""
    write_sample(folder / "data", train=4, val=2, size=64)
    (folder / "train.yaml").write_text(TINY)


def cli(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`rtdetr-slurm` in a folder, on this machine."""
    env = os.environ | {"RTDETR_SLURM_SITE": "local", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "rtdetr_slurm.cli.main", *arguments],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
