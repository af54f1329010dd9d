"""Joins this process's terminal or pipes with a container's: attach, exec, run.

One loop over file descriptors, no threads: stdin, the connection, and a pipe that signals write to.
"""

import os
import selectors
import signal
import socket
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from typing import Final

from linkspan.core.client.frames import STDERR, Demultiplexer

_READ: Final = 32 * 1024
# As in Docker: so often a process is told to end before it is left to itself.
_PATIENCE: Final = 3
DEFAULT_DETACH_KEYS: Final = "ctrl-p,ctrl-q"


class BadDetachKeysError(ValueError):
    """The keys cannot be read."""


def parse_detach_keys(text: str) -> bytes:
    """Bytes of ``ctrl-p,ctrl-q`` or ``a,ctrl-x`` (Docker's notation).

    Raises:
        BadDetachKeysError: A part is neither a character nor ``ctrl-`` and one of ``a-z@[\\]^_``.
    """
    keys = bytearray()
    for part in filter(None, text.split(",")):
        name = part.strip()
        if len(name) == 1 and name.isascii():
            keys += name.encode()
        elif name.startswith("ctrl-") and len(name) == 6 and name[5].upper() in _CONTROL:
            keys.append(ord(name[5].upper()) & 0x1F)
        else:
            raise BadDetachKeysError(f"unknown key '{name}'; write a letter or ctrl-a to ctrl-z")
    return bytes(keys)


_CONTROL: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ@[\\]^_"


class DetachFilter:
    """Finds the detach keys in what is typed; holds back a part that may become them."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What to send on, and whether the keys were complete."""
        if not self._keys:
            return data, False
        out = bytearray()
        for byte in data:
            if byte == self._keys[self._held]:
                self._held += 1
                if self._held == len(self._keys):
                    return bytes(out), True
                continue
            out += self._keys[: self._held]
            self._held = 0
            if byte == self._keys[0]:
                self._held = 1
            else:
                out.append(byte)
        return bytes(out), False


@contextmanager
def raw_terminal(fd: int) -> Iterator[None]:
    """Every key goes to the container as it is typed; the terminal is as before afterwards."""
    before = termios.tcgetattr(fd)
    tty.setraw(fd, termios.TCSANOW)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def terminal_size(fd: int) -> tuple[int, int]:
    """Rows and columns."""
    size = os.get_terminal_size(fd)
    return size.lines, size.columns


@contextmanager
def _signals(
    handled: dict[signal.Signals, Callable[[], None]],
) -> Iterator[tuple[int, Callable[[], None]]]:
    """Signals become readable bytes: a descriptor to wait for, and what to do when it is readable."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    before_fd = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    before = {number: signal.signal(number, lambda *_: None) for number in handled}

    def dispatch() -> None:
        for number in os.read(reading, 256):
            action = handled.get(signal.Signals(number))
            if action is not None:
                action()

    try:
        yield reading, dispatch
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before_fd)
        os.close(reading)
        os.close(writing)


class _Stdin:
    """Sends stdin on without ever waiting for the other side.

    A process that writes without reading (``cat`` of a large file) would otherwise block both ends.
    """

    def __init__(
        self,
        fd: int,
        sock: socket.socket,
        detach: DetachFilter,
        selector: selectors.BaseSelector,
    ) -> None:
        self._fd, self._sock, self._detach, self._selector = fd, sock, detach, selector
        self._pending = bytearray()
        self._ended = False
        self._closed = False
        self._registered = False
        try:
            selector.register(fd, selectors.EVENT_READ)
            self._registered = self._pollable = True
        except PermissionError:  # a regular file cannot be polled: it is always readable
            self._pollable = False
        self._watch()

    def step(self, ready: Mapping[int, int], sock_events: int) -> bool:
        """Read and send what is possible now; True when the user has detached."""
        if not self._ended and not self._pending and (not self._pollable or self._fd in ready):
            data = os.read(self._fd, _READ)
            typed, detached = self._detach.feed(data)
            if detached:
                return True
            self._pending += typed
            self._ended = not data
        if self._pending or sock_events & selectors.EVENT_WRITE:
            self._flush()
        self._watch()
        return False

    def _flush(self) -> None:
        try:
            sent = self._sock.send(self._pending) if self._pending else 0
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):
            self._ended, sent = True, len(self._pending)
        del self._pending[:sent]

    def _watch(self) -> None:
        """Wait for stdin only while nothing is left to send, for the connection only while it is."""
        reading = self._pollable and not self._pending and not self._ended
        if reading and not self._registered:
            self._selector.register(self._fd, selectors.EVENT_READ)
        elif self._registered and not reading:
            self._selector.unregister(self._fd)
        self._registered = reading
        writing = self._pending or (not self._pollable and not self._ended)
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0)
        self._selector.modify(self._sock, wanted)
        if self._ended and not self._pending and not self._closed:
            self._closed = True
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)


class Session:
    """One attached process."""

    def __init__(
        self,
        sock: socket.socket,
        early: bytes,
        *,
        tty: bool,
        stdin: bool,
        resize: Callable[[int, int], None] | None = None,
        kill: Callable[[str], None] | None = None,
        detach_keys: bytes = b"",
    ) -> None:
        """Describe a session; ``run`` is it.

        Args:
            sock: The hijacked connection.
            early: What came with the answer's head.
            tty: The process has a terminal: its output is raw, not in frames.
            stdin: Send this process's stdin.
            resize: Tells the process's terminal rows and columns.
            kill: Sends a signal to the process.
            detach_keys: End the session and leave the process running; needs a terminal here.
        """
        self._sock = sock
        self._early = early
        self._tty = tty
        self._stdin = stdin
        self._resize = resize
        self._kill = kill
        self._in = sys.stdin.fileno() if stdin else -1
        self._in_is_tty = stdin and os.isatty(self._in)
        self._detach = DetachFilter(detach_keys if tty and self._in_is_tty else b"")
        self._frames = Demultiplexer()
        self._told_to_end = 0

    def run(self, started: Callable[[], None] | None = None) -> bool:
        """Pass bytes both ways until the process's output ends.

        Args:
            started: Called when the terminal is raw, before the first byte is passed: starts what
                was attached to.

        Returns:
            False if the user has detached.

        Raises:
            KeyboardInterrupt: The process was told to end three times, and goes on.
        """
        handled: dict[signal.Signals, Callable[[], None]] = {}
        if self._tty and self._resize is not None:
            handled[signal.SIGWINCH] = self.send_size
        elif self._kill is not None:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
                handled[number] = self._proxy(number)
        sys.stdout.flush()
        raw = self._tty and self._in_is_tty
        terminal = raw_terminal(self._in) if raw else nullcontext()
        with _signals(handled) as (signalled, dispatch), terminal:
            if started is not None:
                started()
            if self._tty:
                self.send_size()
            return self._loop(signalled, dispatch)

    def _proxy(self, number: signal.Signals) -> Callable[[], None]:
        def send() -> None:
            if self._kill is not None:
                with suppress(Exception):  # the process may have ended meanwhile
                    self._kill(number.name)
            self._told_to_end += number in (signal.SIGINT, signal.SIGTERM)
            if self._told_to_end == _PATIENCE:
                raise KeyboardInterrupt

        return send

    def send_size(self) -> None:
        """Tell the process's terminal how large this one is."""
        if self._resize is not None:
            with suppress(Exception):  # not started yet, or ended already
                self._resize(*terminal_size(self._in if self._in_is_tty else sys.stdout.fileno()))

    def _loop(self, signalled: int, dispatch: Callable[[], None]) -> bool:
        self._output(self._early)
        self._sock.setblocking(False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._sock, selectors.EVENT_READ)
            selector.register(signalled, selectors.EVENT_READ)
            stdin = _Stdin(self._in, self._sock, self._detach, selector) if self._stdin else None
            while True:
                ready = {key.fd: events for key, events in selector.select()}
                if signalled in ready:
                    dispatch()
                events = ready.get(self._sock.fileno(), 0)
                if events & selectors.EVENT_READ and not self._receive():
                    return True
                if stdin is not None and stdin.step(ready, events):
                    return False

    def _receive(self) -> bool:
        """Pass on output that has come; False at its end."""
        try:
            data = self._sock.recv(_READ)
        except BlockingIOError:
            return True
        except ConnectionResetError:
            return False
        self._output(data)
        return bool(data)

    def _output(self, data: bytes) -> None:
        if not data:
            return
        if self._tty:
            write_all(sys.stdout.fileno(), data)
            return
        for stream, payload in self._frames.feed(data):
            write_all(sys.stderr.fileno() if stream == STDERR else sys.stdout.fileno(), payload)


def write_all(fd: int, data: bytes) -> None:
    """Write everything, also to a descriptor that takes only part of it at once."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
