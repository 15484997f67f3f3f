"""`engine.compile`: backbone and encoder by torch.compile.

They take most of a step, and have the same shapes in every step of one image size. The decoder is
left as it is: how many queries it has changes with the boxes of each batch.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rtdetr_slurm.engine.models import RTDETR
from rtdetr_slurm.engine.models.constants import CONSTANTS
from rtdetr_slurm.errors import RequestError

MOST_SHAPES = 64
"""Of a module that are compiled: image sizes times sizes of parts of a batch. With more a run ends;
PyTorch by itself would go on without compiling, and without a word."""
CACHE = "TORCHINDUCTOR_CACHE_DIR"


@contextmanager
def compiler(device: torch.device) -> Iterator[None]:
    """Keep torch.compile ready for a device.

    Raises:
        RequestError: it does not work here.
    """
    # PyTorch's own place is one that other users of the node could have made before, and what lies
    # in it is loaded as code.
    with tempfile.TemporaryDirectory(prefix="rtdetr-compiled-") as private:
        given = os.environ.get(CACHE)
        os.environ.setdefault(CACHE, private)
        try:
            configure()
            _try_compiler(device)
            yield
        finally:
            if given is None:
                del os.environ[CACHE]


def configure() -> None:
    import torch._dynamo.config
    import torch._inductor.config

    torch._dynamo.config.recompile_limit = MOST_SHAPES
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    torch._inductor.config.fallback_random = True  # the numbers that plain modules draw
    torch._inductor.config.compile_threads = torch.get_num_threads()
    for made in CONSTANTS:
        torch.compiler.assume_constant_result(made)


def _try_compiler(device: torch.device) -> None:
    """Compile something small, before anything of a training is waited for."""
    needs = "a C++ compiler and Python's headers"
    needs += ", and Triton" if device.type == "cuda" else ""
    try:
        torch.compile(_small)(torch.ones(4, device=device))
    except Exception as error:  # of whatever kind: torch, a compiler that is missing or too old
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RequestError(
            f"engine.compile: torch.compile does not work here: {first}. It needs {needs}: set it "
            "to false, or use an image with a compiler (docs/containers.md, APT_PACKAGES)"
        ) from error


def _small(x: torch.Tensor) -> torch.Tensor:
    return x.relu() + 1


def compile_detector(model: RTDETR) -> None:
    """Have backbone and encoder compiled, once for each size of images, as they meet it first.

    Copies of the detector (averaged weights, what is scored) are not compiled.
    """
    # In place: names of parameters stay as they are.
    model.backbone.compile(dynamic=False)
    model.encoder.compile(dynamic=False)
