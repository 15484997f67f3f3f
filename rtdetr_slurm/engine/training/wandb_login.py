"""Whether a training logs to Weights & Biases, found out without its package."""

from __future__ import annotations

import netrc
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from rtdetr_slurm.errors import RequestError

Mode = Literal["online", "offline"]

PACKAGE = "wandb"
_HOST = "https://api.wandb.ai"
_MODES: Mapping[str, Mode | None] = {
    "": "online",
    "online": "online",
    "run": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": None,
}
"""Values of WANDB_MODE, as the package has them."""


def mode_of(environ: Mapping[str, str]) -> tuple[Mode | None, str]:
    """How an environment wants to log; else None, and why, in words.

    WANDB_MODE decides; online needs a key, of WANDB_API_KEY or of the netrc file ($NETRC, ~/.netrc)
    for the host of WANDB_BASE_URL.

    Raises:
        RequestError: WANDB_MODE is none, or the package that it takes is not installed.
    """
    asked = environ.get("WANDB_MODE", "")
    if asked not in _MODES:
        allowed = ", ".join(name for name in _MODES if name)
        raise RequestError(f"WANDB_MODE: found {asked!r}; allowed: {allowed}")
    mode = _MODES[asked]
    if mode is None:
        return None, f"WANDB_MODE is {asked}"
    host = urlsplit(environ.get("WANDB_BASE_URL") or _HOST).netloc
    if mode == "online" and not environ.get("WANDB_API_KEY") and not _in_netrc(host, environ):
        return None, f"there is no key for {host}, neither WANDB_API_KEY nor in ~/.netrc"
    if find_spec(PACKAGE) is None:
        raise RequestError(
            f"wandb.enable: there is a key for Weights & Biases or WANDB_MODE={asked}, and the "
            f"package {PACKAGE} is not installed: install the extra `{PACKAGE}` of this package, "
            "or set wandb.enable to false"
        )
    return mode, ""


def _in_netrc(host: str, environ: Mapping[str, str]) -> bool:
    """Whether the netrc file has a password for a host; one that cannot be read has none."""
    home = Path(environ.get("HOME") or "/")
    path = Path(environ.get("NETRC") or home / ".netrc")
    try:
        found = netrc.netrc(path).authenticators(host)
    except (OSError, netrc.NetrcParseError):
        return False
    return found is not None and bool(found[2])
