"""A process that is killed at one of its writes, each in its turn."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_KILLED, _FAILED = 137, 99
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_CHANGES = frozenset(
    {"os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.symlink"}
)


def kills(do: Callable[[], object], below: Path) -> Iterator[int]:
    """Have `do` done by a child process that dies at its first write, its second, and so on; ends
    when one has lived to the end.

    A write is whatever changes a folder or a file below `below`, and the beginning and the answer
    of a command. The child dies just before it; of a line that is appended it still writes half.

    Yields:
        the number of the write, after the death.
    """
    number = 0
    while True:
        number += 1
        code = _in_child(do, below, number)
        assert code in (0, _KILLED), f"at write {number} it failed by itself"
        yield number
        if code == 0:
            return


def _in_child(do: Callable[[], object], below: Path, number: int) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        code = _FAILED
        try:
            _die_at(number, str(below))
            do()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def _die_at(number: int, below: str) -> None:
    left = number
    write, communicate = os.write, subprocess.Popen.communicate

    def is_over() -> bool:
        nonlocal left
        left -= 1
        return left == 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            counts = bool((arguments[2] or 0) & _WRITES) and _is_below(arguments[0], below)
        elif event in _CHANGES:
            counts = _is_below(arguments[0], below)
        else:
            counts = event == "subprocess.Popen"
        if counts and is_over():
            os._exit(_KILLED)

    def torn(fd: int, data: Any) -> int:
        if fd > 2 and is_over():
            write(fd, bytes(data)[: len(data) // 2])
            os._exit(_KILLED)
        return write(fd, data)

    def unheard(self: Any, *args: Any, **kwargs: Any) -> Any:
        if is_over():
            os._exit(_KILLED)
        return communicate(self, *args, **kwargs)

    sys.addaudithook(hook)
    os.write = torn
    subprocess.Popen.communicate = unheard  # type: ignore[method-assign]


def _is_below(path: Any, below: str) -> bool:
    return isinstance(path, (str, bytes, os.PathLike)) and os.fsdecode(path).startswith(below)
