"""Firewall transactions: libnftables in process, ``nft -f -`` where the library is missing.

A text is one transaction: all of it or nothing. In process it takes a tenth of a millisecond, as a
program two to twelve. A context belongs to one thread, and to the network namespace in which it was
made.
"""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from linkspan.sdk.errors import Internal, NotUsable

_LIBRARIES = ("libnftables.so.1",)
_READING_S = 30.0


class NftablesError(Internal):
    """nftables refused a transaction."""


class Nftables(Protocol):
    """Runs transactions."""

    def run(self, text: str) -> str:
        """Run commands (nft(8)) as one transaction; return what they print.

        Raises:
            NftablesError: Nothing was changed.
        """

    @property
    def descriptor(self) -> int | None:
        """Its netlink socket, by which a table can be owned; None if it has none that lasts."""

    def close(self) -> None:
        """Let go of the namespace."""


def _load() -> ctypes.CDLL | None:
    for name in _LIBRARIES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        library.nft_ctx_free.argtypes = [ctypes.c_void_p]
        for getter in ("nft_ctx_get_error_buffer", "nft_ctx_get_output_buffer"):
            getattr(library, getter).restype = ctypes.c_char_p
            getattr(library, getter).argtypes = [ctypes.c_void_p]
        for switch in ("nft_ctx_buffer_error", "nft_ctx_buffer_output"):
            getattr(library, switch).argtypes = [ctypes.c_void_p]
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        return library
    return None


_library = _load()
# The library waits with select(2): a socket numbered 1024 or more ends the whole process.
_LIBRARY_DESCRIPTORS = 1000
_NETFILTER = (socket.AF_NETLINK, 12)


def _netfilter_sockets() -> list[int]:
    """Descriptors of this process that are netfilter sockets."""
    found = []
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # it was closed meanwhile
            if str(path.readlink()).startswith("socket:"):
                with socket.socket(fileno=os.dup(int(path.name))) as duplicate:
                    if (duplicate.family, duplicate.proto) == _NETFILTER:
                        found.append(int(path.name))
    return found


class LibNftables:
    """Through the library."""

    def __init__(self, library: ctypes.CDLL, *, owning: bool) -> None:
        self._library = library
        self._descriptor: int | None = None
        before = _netfilter_sockets() if owning else []
        self._context = library.nft_ctx_new(0)
        after = _netfilter_sockets() if owning else []
        mine = set(after) - set(before)
        if len(mine) == 1:
            self._descriptor = mine.pop()
        library.nft_ctx_buffer_output(self._context)
        library.nft_ctx_buffer_error(self._context)

    def run(self, text: str) -> str:
        """See ``Nftables``."""
        assert self._context is not None, "used after close"  # NULL would end the process
        failed = self._library.nft_run_cmd_from_buffer(self._context, text.encode())
        # Reading a buffer empties it for the next run.
        said = self._library.nft_ctx_get_error_buffer(self._context).decode(errors="replace")
        printed: str = self._library.nft_ctx_get_output_buffer(self._context).decode()
        if failed:
            raise NftablesError(_first_line(said))
        return printed

    @property
    def descriptor(self) -> int | None:
        """See ``Nftables``. None if another socket was opened in the same moment."""
        return self._descriptor

    def close(self) -> None:
        """See ``Nftables``."""
        if self._context:
            self._library.nft_ctx_free(self._context)
            self._context = None


class NftCommand:
    """Through the program, in the namespace of the calling thread."""

    def __init__(self, program: str) -> None:
        self._program = program

    def run(self, text: str) -> str:
        """See ``Nftables``."""
        done = subprocess.run(
            [self._program, "-f", "-"], input=text, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise NftablesError(_first_line(done.stderr))
        return done.stdout

    @property
    def descriptor(self) -> int | None:
        """See ``Nftables``: each transaction has a socket of its own."""
        return None

    def close(self) -> None:
        """Nothing is held."""


def _first_line(said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    return f"nftables refused the rules: {lines[0] if lines else 'no reason given'}"


def _next_descriptor() -> int:
    """The number that the next opened file gets, if nobody else is faster."""
    probe = os.open("/", os.O_PATH | os.O_CLOEXEC)
    os.close(probe)
    return probe


def open_nftables(*, owning: bool = False) -> Nftables:
    """Open nftables in the namespace of the calling thread.

    Args:
        owning: Its ``descriptor`` is needed, and it will be used for long: what is there must be readable.

    Raises:
        NotUsable: There is neither the library nor the program, or they end at the rules that are there.
    """
    program = shutil.which("nft", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if owning and program is not None:
        _check_that_it_reads(program)
    if _library is not None and _next_descriptor() < _LIBRARY_DESCRIPTORS:
        return LibNftables(_library, owning=owning)
    if program is None:
        raise NotUsable(
            "nftables cannot be used: libnftables.so.1 is missing, or too many files are open for"
            " it, and the program nft is not here",
            help="apt-get install nftables",
        )
    return NftCommand(program)


def _check_that_it_reads(program: str) -> None:
    """Let a process of its own read what is there.

    libnftables 1.0.6 reads past its memory where a newer nft (in a container with the machine's network, say) has
    made a map of verdicts or a set of intervals. In this process that would end the daemon, again at each start.
    """
    done = subprocess.run(
        [program, "list", "tables"], capture_output=True, text=True, check=False, timeout=_READING_S
    )
    if done.returncode < 0:
        raise NotUsable(
            "nftables cannot be used: this machine's nft ends at the rules that are there, which a newer nft"
            f" has written (`nft list tables`: {signal.strsignal(-done.returncode)})",
            help="remove them with the nft that made them, or bring a newer libnftables1 and nftables",
        )
