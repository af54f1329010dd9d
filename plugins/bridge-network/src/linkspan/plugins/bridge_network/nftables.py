"""Firewall transactions: by libnftables in a child process, by ``nft -f -`` where the library is missing.

A text is one transaction: all of it or nothing. The child (see ``nft_child``) stays up, so one takes two tenths of
a millisecond; as a program it takes two to twelve. When it crashes, the daemon and its containers go on, whoever
asked is told why, and the next transaction has a new child.
"""

import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading

from linkspan.plugins.bridge_network import nft_child as program
from linkspan.plugins.bridge_network.descriptors import open_thread_namespace
from linkspan.sdk.errors import Internal, NotUsable

log = logging.getLogger(__name__)

_PATIENCE_S = 60.0
_FAULTS = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE})
_HEAD = 5


class NftablesError(Internal):
    """nftables refused a transaction: nothing was changed."""


class NftablesCrashed(NftablesError):
    """nftables ended in the middle of a transaction, which may be done or not."""


def _crashed(status: int) -> NftablesCrashed:
    """The error for a child that has ended so (negative: by a signal)."""
    how = (
        (signal.strsignal(-status) or f"signal {-status}")
        if status < 0
        else f"exit status {status}"
    )
    if -status in _FAULTS:
        return NftablesCrashed(
            f"nftables has crashed ({how}); rules that a newer nft has written do that to this machine's",
            code="nftables_crashed",
            help="look for them with that newer nft (in a container with the machine's network, say) and remove"
            " them, or bring a newer libnftables1 and nftables. Running containers are not affected.",
        )
    return NftablesCrashed(
        f"nftables was ended in the middle of its work ({how})",
        code="nftables_crashed",
        help="did somebody kill it, or is the machine out of memory (dmesg)? Running containers are not affected.",
    )


class Nftables:
    """Runs transactions in the network namespace of the thread that starts it first, or in another.

    Threads may use it at once; one waits for the other. Nothing is started before it is used.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: socket.socket | None = None
        self._pid = 0
        self._home: int | None = None
        self._greeted = False
        self._missing = False
        self._owner: socket.socket | None = None

    def start(self) -> None:
        """Start the child, and do not wait until it is up: others are working meanwhile."""
        with self._lock:
            self._start()

    def run(self, text: str, *, namespace: int | None = None) -> str:
        """Run commands (nft(8)) as one transaction; return what they print.

        Args:
            namespace: Descriptor of the network namespace, if it is another one; the calling thread is in it.

        Raises:
            NftablesError: Nothing was changed.
            NftablesCrashed: It may be changed or not.
            NotUsable: There is neither the library nor the program.
        """
        with self._lock:
            self._greet()
            if self._missing:
                return _run_program(text)
            order = b"r" if namespace is None else b"n"
            return self._order(order, text.encode(), namespace)

    @property
    def owner(self) -> socket.socket | None:
        """The netlink socket by which the child changes rules, and so can own a table; ours to keep.

        None if there is none that lasts.
        """
        with self._lock:
            self._greet()
            return self._owner

    def own_by(self, kept: socket.socket) -> None:
        """Change rules by another socket from now on; it stays the caller's.

        Raises:
            NftablesCrashed: The child cannot be told.
        """
        with self._lock:
            self._greet()
            if self._owner is None:
                return
            self._owner.close()
            self._owner = socket.socket(fileno=os.dup(kept.fileno()))
            self._hand_over(self._owner)

    def close(self) -> None:
        """End the child, if there is one."""
        with self._lock:
            self._end()
            if self._owner is not None:
                self._owner.close()
                self._owner = None
            if self._home is not None:
                os.close(self._home)
                self._home = None

    # With the lock from here on.

    def _start(self) -> None:
        if self._child is not None or self._missing:
            return
        if self._home is None:
            self._home = open_thread_namespace()
        ours, theirs = socket.socketpair()
        ours.settimeout(_PATIENCE_S)
        with theirs:
            files: list[tuple[object, ...]] = [
                # The next child may be started by a thread that is elsewhere just then.
                (os.POSIX_SPAWN_DUP2, self._home, program.HOME),
                (os.POSIX_SPAWN_DUP2, theirs.fileno(), program.DAEMON),
            ]
            files += [(os.POSIX_SPAWN_OPEN, n, os.devnull, os.O_RDWR, 0) for n in (1, 2)]
            arguments = [sys.executable, "-I", "-S", program.__file__]
            self._pid = os.posix_spawn(
                sys.executable, arguments, {}, file_actions=files, setsid=True
            )
        self._child, self._greeted = ours, False

    def _greet(self) -> None:
        """Wait until the child is up, and give it the socket that its predecessor had."""
        self._start()
        if self._greeted or self._child is None:
            return
        try:
            said, got, _, _ = socket.recv_fds(self._child, 1, 1, socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            raise self._fallen(error) from error
        self._greeted = True
        if said == b"-":
            log.info("libnftables.so.1 is not here: the program nft is used")
            self._missing = True
            self._end()
        elif said != b"L":
            raise self._fallen(None)
        for descriptor in got:
            fresh = socket.socket(fileno=descriptor)
            if self._owner is None:
                self._owner = fresh
            else:
                fresh.close()
                self._hand_over(self._owner)

    def _hand_over(self, owner: socket.socket) -> None:
        # An answer that a crashed child has not taken would be read as the next one's.
        with contextlib.suppress(BlockingIOError):
            while True:
                owner.recv(1 << 16, socket.MSG_DONTWAIT)
        self._order(b"o", b"", owner.fileno())

    def _order(self, order: bytes, text: bytes, descriptor: int | None) -> str:
        assert self._child is not None
        head = order + len(text).to_bytes(4, "little")
        try:
            if descriptor is None:
                self._child.sendall(head + text)
            else:
                # The stream may take less than all at once; the descriptor goes with the first byte.
                socket.send_fds(self._child, [head[:1]], [descriptor])
                self._child.sendall(head[1:] + text)
            answer = self._receive(_HEAD)
            said = self._receive(int.from_bytes(answer[1:], "little")).decode(errors="replace")
        except OSError as error:
            raise self._fallen(error) from error
        if answer[:1] != b"+":
            raise NftablesError(_first_line(said))
        return said

    def _receive(self, size: int) -> bytes:
        assert self._child is not None
        parts = bytearray()
        while len(parts) < size:
            part = self._child.recv(size - len(parts))
            if not part:
                raise ConnectionResetError
            parts += part
        return bytes(parts)

    def _fallen(self, error: OSError | None) -> NftablesCrashed:
        """Bury the child, and say what became of it."""
        if isinstance(error, TimeoutError):
            log.error("nftables has not answered for %d s and is ended", _PATIENCE_S)
        crashed = _crashed(self._end(kill=isinstance(error, TimeoutError)))
        log.error("%s", crashed.message)
        return crashed

    def _end(self, *, kill: bool = False) -> int:
        """Let the child go, which ends with its socket; return how it ended."""
        if self._child is not None:
            self._child.close()
            self._child = None
        if not self._pid:
            return 0
        if kill:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        pid, self._pid = self._pid, 0
        try:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except ChildProcessError:
            return 0


def _run_program(text: str) -> str:
    """By the program, in the namespace of the calling thread."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    found = shutil.which("nft", path=path)
    if found is None:
        raise NotUsable(
            "nftables cannot be used: neither the library libnftables.so.1 nor the program nft is here",
            help="apt-get install nftables",
        )
    done = subprocess.run(
        [found, "-f", "-"], input=text, capture_output=True, text=True, check=False
    )
    if done.returncode < 0:
        raise _crashed(done.returncode)
    if done.returncode != 0:
        raise NftablesError(_first_line(done.stderr))
    return done.stdout


def _first_line(said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    return f"nftables refused the rules: {lines[0] if lines else 'no reason given'}"
