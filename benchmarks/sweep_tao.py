"""NVIDIA TAO's search for benchmarks/sweep.py, which starts this in an interpreter that has
nvidia-tao-automl, and asks it by lines of JSON."""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from typing import Any

from tao_automl import AutoML

EPOCHS = "train.num_epochs"


def begin(asked: dict[str, Any], workspace: str) -> AutoML:
    specs: dict[str, Any] = {"train": {"num_epochs": asked["epochs"]}}
    for name, value in asked["defaults"].items():
        *sections, last = name.split(".")
        node = specs
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = value
    ranges = {
        name: {"valid_min": low, "valid_max": high} for name, (low, high) in asked["ranges"].items()
    }
    return AutoML(
        workspace=workspace,
        network="rtdetr",
        train_specs=specs,
        settings={  # and its own defaults
            "algorithm": asked["algorithm"],
            "metric": asked["metric"],
            "session_id": f"sweep{asked['seed']}",
            "automl_max_epochs": asked["epochs"],
        },
        automl_hyperparameters=list(asked["defaults"]),
        custom_param_ranges=ranges or None,
    )


def recommended(search: AutoML, asked: dict[str, Any]) -> list[dict[str, Any]] | None:
    if search.is_complete():
        return None
    return [
        {
            "id": one.id,
            "values": {
                name: one.specs.get(name, asked["defaults"][name]) for name in asked["defaults"]
            },
            "first": one.resume_from_epoch or 0,
            "epochs": int(one.specs.get(EPOCHS, asked["epochs"])),
        }
        for one in search.next_recommendation()
    ]


def main() -> None:
    logging.disable(logging.CRITICAL)
    out, sys.stdout = sys.stdout, sys.stderr
    with tempfile.TemporaryDirectory() as folder:
        for number, line in enumerate(sys.stdin):
            message = json.loads(line)
            if "begin" in message:
                asked = message["begin"]
                search = begin(asked, f"{folder}/{number}")
                print("[]", file=out, flush=True)
                continue
            for identity, score in message["results"]:
                search.report_result(identity, score)
            print(json.dumps(recommended(search, asked)), file=out, flush=True)


if __name__ == "__main__":
    main()
