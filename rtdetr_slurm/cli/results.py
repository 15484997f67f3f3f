"""The files that a stage has left, as lines; pure."""

from __future__ import annotations

from rtdetr_slurm.runs.summary import StageReport


def result_lines(stage: StageReport) -> list[tuple[str, str]]:
    """The files of a stage that exist, with what they are."""
    results = stage.results
    lines = []
    if results.best is not None:
        scored = results.best_metric
        said = "" if scored is None else f" (val_mAP {scored:.4f})"
        lines.append(("best", f"{results.best}{said}"))
    if results.last is not None:
        lines.append(("last", str(results.last)))
    if results.picture is not None:
        lines.append(("picture", str(results.picture)))
    if results.report is not None:
        lines.append(("report", str(results.report)))
    return lines
