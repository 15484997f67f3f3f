"""CPU time (user + sys) of the login commands, each as a whole process.

    python benchmarks/cli.py [--runs N]

Prints one table: the median over N runs of `rtdetr-slurm --help` and of
`rtdetr-slurm submit SPEC --dry-run`, and of the bare interpreter for comparison.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def cpu_seconds(command: list[str]) -> float:
    """User plus system seconds of one run of `command`, which must succeed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--spec", default="specs/quickstart.yaml")
    args = parser.parse_args()
    tool = str(Path(sys.executable).with_name("rtdetr-slurm"))
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "rtdetr-slurm --help": [tool, "--help"],
        f"rtdetr-slurm submit {args.spec} --dry-run": [
            tool,
            "submit",
            args.spec,
            "--site",
            "local",
            "--dry-run",
        ],
    }
    width = max(map(len, commands))
    print(f"{'command':<{width}}  median CPU s  (of {args.runs} runs)")
    for name, command in commands.items():
        cpu_seconds(command)  # warm the page cache and byte code
        median = statistics.median(cpu_seconds(command) for _ in range(args.runs))
        print(f"{name:<{width}}  {median:.3f}")


if __name__ == "__main__":
    main()
