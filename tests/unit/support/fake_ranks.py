"""Ranks that are shell scripts, under the real launching process: what happens around ranks costs
no torch.

python fake_ranks.py SCRIPT [RANKS [SECONDS [HANG FOLDER]]]: run that many ranks (2), with so many
seconds for last words, and a hang after so many without a step. A rank's script finds its place in
the environment.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from rtdetr_slurm.engine.process import ranks
from rtdetr_slurm.engine.process.hangs import HangWatch
from rtdetr_slurm.engine.process.rendezvous import Rendezvous
from rtdetr_slurm.engine.process.stop import hold_signals


def start_fake(script: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    """A launching process whose ranks run `script`."""
    command = [sys.executable, __file__, script, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


def main(
    script: str, number: str = "2", last_words: str = "30", hang: str = "0", folder: str = "/"
) -> int:
    for signum in (signal.SIGHUP, signal.SIGQUIT):  # ignored by what nohup or a script's & starts
        signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    hold_signals()
    ranks._LAST_WORDS_SECONDS = float(last_words)
    ranks.rank_command = lambda *_: ["/bin/bash", "-c", script]  # type: ignore[assignment]
    rendezvous = Rendezvous(1, 0, int(number), "127.0.0.1", 20000, launched=False)
    watch = HangWatch(
        float(hang) / 60,
        ranks=int(number),
        nodes=1,
        node_rank=0,
        start=3,
        folder=Path(folder),
        environ={"RTDETR_NODE": "node7"},
    )
    try:
        end = ranks.run_ranks(rendezvous, [], os.environ, watch)
    except ranks.Cancelled as error:
        print(error)
        return 1
    print([str(failure) for failure in end.failures])
    return end.exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
