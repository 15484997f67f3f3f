"""What a rank runs. ranks.py starts it, and so can torchrun:

torchrun --nproc-per-node=2 -m rtdetr_slurm.engine.process.worker train -e spec.yaml [key=value ...]

Python runs it in each loading process too, but for the end; so it imports nothing by itself.
"""

if __name__ == "__main__":
    import os
    import sys

    from rtdetr_slurm.engine.process.rank import main
    from rtdetr_slurm.engine.process.stop import ignore_signals

    code = main()
    ignore_signals()  # the request is repeated until all ranks have ended; it must kill none
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # what is open is closed; Python's own end takes torch apart, for a second
