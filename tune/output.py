"""What is printed: as text, whatever stands in it; and where nobody may read it any more, for output can fail, and what
trains may not notice."""

import errno
import io
import os
import re
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

# What a terminal obeys instead of showing it (but line ends and tabs), and what turns the order of the text around it.
_ORDERS = re.compile(
    r"[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]"
)


def plain(text: str) -> str:
    """The text with escapes, such as \\x1b, in place of the characters that are orders to a terminal."""
    return _ORDERS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class Outlet(io.TextIOBase):
    """A text stream that takes all that is printed: what it cannot write is lost, and `failure` says why.

    What it is given may come from a storage, where others write: it is `plain`. A character that its encoding lacks is
    written as an escape, too. Without a stream, all is lost.
    """

    def __init__(self, stream: TextIO | None):
        self.stream: Any = stream
        self.failure: OSError | None = None
        self._on_terminal = self.isatty()

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of the stream."""
        return getattr(self.stream, "encoding", None) or "utf-8"

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)  # buffer, say

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        try:
            return self.stream is not None and self.stream.isatty()
        except ValueError:  # it is closed
            return False

    def fileno(self) -> int:
        """As the stream's. Raises io.UnsupportedOperation, an OSError, if it has none."""
        return super().fileno() if self.stream is None else self.stream.fileno()

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, text: str) -> int:
        """Write the text, plain, or lose it."""
        self.draw(plain(text))
        return len(text)

    def draw(self, text: str) -> None:
        """Write text and orders to the terminal, or lose them."""
        if self.stream is not None:
            try:
                self.stream.write(text)
            except UnicodeEncodeError:
                self.draw(text.encode(self.encoding, "backslashreplace").decode(self.encoding))
            except (OSError, ValueError) as error:
                self._note(error)

    def flush(self) -> None:
        """Write what the stream has buffered, or lose it."""
        if self.stream is not None:
            try:
                self.stream.flush()
            except (OSError, ValueError) as error:
                self._note(error)

    def _note(self, error: OSError | ValueError) -> None:
        if self.failure is None:  # a ValueError says that the stream is closed
            self.failure = error if isinstance(error, OSError) else OSError(errno.EBADF, str(error))

    @property
    def unread(self) -> bool:
        """Whether nobody reads it: the pipe's reader or the terminal is gone, or it was closed from the start."""
        gone = {errno.EPIPE, errno.EBADF} | ({errno.EIO} if self._on_terminal else set())
        if self.stream is None or (self.failure is not None and self.failure.errno in gone):
            return True
        try:
            poll = select.poll()
            poll.register(self.stream.fileno(), 0)
            return any(event & (select.POLLERR | select.POLLHUP | select.POLLNVAL) for _, event in poll.poll(0))
        except (OSError, ValueError):  # a notebook's has no descriptor
            return False

    def let_go(self) -> None:
        """After a failure: what is still buffered goes nowhere, or the interpreter would stumble over it at its end."""
        self.flush()
        if self.failure is not None and self.stream is not None:
            try:
                descriptor = self.stream.fileno()
            except (OSError, ValueError):
                return
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)


def outlet(stream: TextIO | None) -> Outlet:
    """The stream as an outlet, which it may be already."""
    return stream if isinstance(stream, Outlet) else Outlet(stream)


@contextmanager
def outlets() -> Iterator[tuple[Outlet, Outlet]]:
    """This process's stdout and stderr as outlets; at the end they are again what they were."""
    _open_standard_descriptors()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = outs = outlet(before[0]), outlet(before[1])
    try:
        yield outs
    finally:
        sys.stdout, sys.stderr = before
        for out in outs:
            out.let_go()


def _open_standard_descriptors() -> None:
    """Let 0, 1 and 2 be open (`rrm ... >&-`): a file that got such a number would take what others print."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def redraws() -> bool:
    """Whether stdout is a terminal where lines can be drawn again.

    A log or a pipe is none, whatever FORCE_COLOR says; nor is the terminal that a notebook gives to `!rrm ...`, whose
    cell keeps every line.
    """
    dumb = os.environ.get("TERM", "").lower() in ("dumb", "unknown")
    return outlet(sys.stdout).isatty() and not dumb and "JPY_PARENT_PID" not in os.environ


class _Drawing(io.TextIOBase):
    """An outlet's stream, for a console, whose own orders to the terminal pass."""

    def __init__(self, out: Outlet):
        self.out: Any = out

    def __getattr__(self, name: str) -> Any:
        return getattr(self.out, name)  # encoding, say

    def isatty(self) -> bool:
        return self.out.isatty()

    def fileno(self) -> int:
        return self.out.fileno()

    def write(self, text: str) -> int:
        self.out.draw(text)
        return len(text)

    def flush(self) -> None:
        self.out.flush()


class _Console(Console):
    """A console that shows each str that it is given, in a table or alone, as text: markup is none, and it is plain."""

    def render_str(self, text: str, **style: Any) -> Text:
        return super().render_str(plain(text), **style)


def console() -> Console:
    """A console on stdout. In a pipe or a log there is no width to fit, and tables stay whole."""
    out = outlet(sys.stdout)
    width = None if out.isatty() else 200
    file: Any = _Drawing(out)
    return _Console(file=file, width=width, highlight=False, markup=False, emoji=False, force_jupyter=False)
