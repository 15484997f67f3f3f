"""What Slurm takes where a user writes a name: for specs, site profiles and the batch script alike.

Slurm itself hardly says what a name may hold. These are the characters that its option parsers
give no other meaning, with those that clusters are known to use. Standard library only.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple


class Form(NamedTuple):
    """A regular expression that a whole text must match, and what it says in words."""

    pattern: str
    allowed: str


_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.+@:/=-]*"
_CHARACTERS = "letters, digits and _ . + - @ : / ="

NAME = Form(rf"^{_NAME}$", f"a name of {_CHARACTERS}, such as my-project")
"""An account, a wckey."""
NAMES = Form(
    rf"^{_NAME}(,{_NAME})*$",
    f"a name of {_CHARACTERS}, or several with commas between them, such as gpu,gpu-long",
)
"""A partition, a quality of service; of several, Slurm takes the first that has room."""
CONSTRAINT = Form(
    r"^[A-Za-z0-9_.+@:/=!&|,*()\[\]-]+$",
    "node features, joined by & | , with numbers and brackets as sbatch has them, without spaces, "
    "such as a100&ib",
)
GPU_TYPE = Form(
    r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$",
    "the name of a GPU type of letters, digits and _ . + -, such as a100",
)
MAIL_ADDRESS = Form(
    r"^[A-Za-z0-9_][A-Za-z0-9._%+-]*@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*$",
    "an e-mail address, such as ann@example.org",
)
TARGET = Form(
    r"^[A-Za-z][A-Za-z0-9_-]*$", "letters, digits, _ and -, beginning with a letter, such as l4"
)
"""What a site calls a kind of GPU; it ends the names of stages."""
JOB_NAME = Form(r"^[A-Za-z0-9._-]{1,64}$", "1 to 64 letters, digits and . _ -")


_HOST = re.compile(r"\w[\w.-]*")


def is_host(name: str) -> bool:
    """Whether `name`, read from a record or a log, can be the name of a node or of a cluster."""
    return _HOST.fullmatch(name) is not None


def has_control_character(text: str) -> bool:
    """Whether a text holds a line break of any kind, or another character that is not shown."""
    return any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in text)
