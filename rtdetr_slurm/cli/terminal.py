"""What is printed: results to stdout, messages to stderr. No other module of cli/ prints.

Names, reasons and logs come from files that others have written, and a terminal obeys control
characters. So what is no printable text is shown as the escape that Python writes for it.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

from rtdetr_slurm.errors import ActionError, explained

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text


def shown(text: object) -> str:
    """Text on one line, with nothing in it that a terminal would obey."""
    line = str(text)
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def shown_lines(text: str) -> str:
    """The same for text of several lines, with tabs."""
    lines = text.split("\n")
    return "\n".join("\t".join(map(shown, line.split("\t"))) for line in lines)


def out(text: object) -> None:
    """A line of the result."""
    with _writing():
        print(shown(text), flush=True)


def out_lines(text: str) -> None:
    """A result of several lines."""
    with _writing():
        print(shown_lines(text.removesuffix("\n")))


def out_log(line: str) -> None:
    """A line of a log that grows; a progress bar's, which end with \\r, become lines."""
    text = shown_lines(line.replace("\r", "\n"))
    with _writing():
        if _area is not None and sys.stdout.isatty():
            _area.print(text)
        else:
            print(text, flush=True)


def out_text(text: Text) -> None:
    """Text of several lines, coloured on a terminal, that has been through `shown`."""
    from rich.console import Console

    with _writing():
        Console(highlight=False).print(text, soft_wrap=True, end="")


def document(content: Any) -> None:
    """The result as one JSON document."""
    text = json.dumps(content, indent=2, allow_nan=False)
    with _writing():
        print(text.replace("\x7f", "\\u007f"))  # the one control character that JSON leaves


def note(text: object) -> None:
    """A message of one or several lines."""
    if _area is not None:
        _area.print(shown_lines(str(text)))
    else:
        print(shown_lines(str(text)), file=sys.stderr, flush=True)


def is_answered() -> bool:
    """Whether there is a person to ask: messages go to a terminal, and answers come from one."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def agreed(question: str) -> bool:
    """Whether the person says yes; anything else is no."""
    print(f"{shown(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def note_log(line: str) -> None:
    """A line of a log beside a result."""
    note(line.replace("\r", "\n"))


# --- a part of the terminal that is drawn anew ----------------------------------------------
class Area:
    """The last lines of a terminal, or all of it; what is printed meanwhile stands above.

    Args:
        stream: stdout or stderr.
        whole: take the whole screen, and give it back as it was.
    """

    def __init__(self, stream: TextIO, *, whole: bool) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=stream, highlight=False)
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            screen=whole,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )

    @property
    def height(self) -> int:
        """Lines of the terminal, at this moment."""
        return self._console.height

    def draw(self, content: RenderableType) -> None:
        """Show something else; its texts have been through `shown`."""
        self._live.update(content, refresh=True)

    def print(self, text: str) -> None:
        """A text that has been through `shown_lines`, above the area."""
        from rich.text import Text

        self._console.print(Text(text), soft_wrap=True)

    def __enter__(self) -> Area:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()


_area: Area | None = None


@contextmanager
def area(*, whole: bool = False) -> Iterator[Area | None]:
    """An area for the length of a block: the last lines of stderr's terminal, or the whole of
    stdout's; None where that is no terminal that can move its cursor, so that lines have to do."""
    global _area
    stream = sys.stdout if whole else sys.stderr
    if not stream.isatty() or os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        yield None
        return
    # A terminal whose program is killed would stay as it is drawn, without a cursor.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with Area(stream, whole=whole) as _area:
            yield _area
    finally:
        _area = None
        signal.signal(signal.SIGTERM, before)


# --- the streams themselves ----------------------------------------------------------------
def open_streams() -> None:
    """See that there are two streams, and that they take every text.

    Raises:
        ActionError: stdout is closed. Nothing is begun then: the next file that is opened would
            take its place, and the result be written there.
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    if sys.stdout is None:
        raise ActionError("standard output is closed; send it to a file or to /dev/null")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def flush() -> None:
    """Write out what is still held back."""
    if sys.stdout is not None:
        with _writing():
            sys.stdout.flush()


def last_words(text: str) -> None:
    """A message with which the program ends, wherever it can still be written."""
    with suppress(OSError):
        note(text)
        return
    abandon_streams()


def abandon_streams() -> None:
    """Write no more: what is held back for a stream that fails would fail again at the exit."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, AttributeError):  # no stream, or one without a file
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        with suppress(OSError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        error.filename = "standard output"
        raise ActionError(str(explained(error))) from error
