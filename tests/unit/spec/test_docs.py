"""docs/spec.md."""

from __future__ import annotations

from rtdetr_slurm.spec.docs import spec_markdown
from rtdetr_slurm.spec.experiment import ExperimentConfig
from rtdetr_slurm.spec.fields import walk
from rtdetr_slurm.spec.generate import REPOSITORY
from rtdetr_slurm.yaml_source import dotted


def test_docs_have_every_field_once() -> None:
    text = (REPOSITORY / "docs/spec.md").read_text(encoding="utf-8")
    for ref in walk(ExperimentConfig):
        name = dotted(ref.path)
        if ref.nested is None and not name.startswith("distill.teacher."):
            assert text.count(f"\n| `{name}` | ") == 1, name


def test_docs_say_what_a_field_does_where() -> None:
    rows = {line.split("`")[1]: line for line in spec_markdown().splitlines() if line[:3] == "| `"}
    assert "| train, distill; no effect in evaluate, " in rows["model.dn_number"]
    assert "| no effect in train, evaluate, " in rows["dataset.dataset_type"]
    assert "| train, distill; no effect in evaluate, " in rows["wandb.enable"]
    assert "| train, evaluate, " in rows["model.backbone"]
    assert "| not yet |" in rows["quantize.backend_kwargs"]
    assert "| must be given |" in rows["job.then[].action"]
    assert rows["job.parent"].endswith("Also called `parent_job_id`. |")
