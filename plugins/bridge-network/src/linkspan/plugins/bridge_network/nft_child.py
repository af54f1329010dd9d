"""The process in which libnftables runs, so that a crash of it is not the daemon's.

libnftables 1.0.6 reads past its memory where a newer nft has written any of the machine's rules. It also ends a
process that has a thousand files open, as it waits with select(2). Here it can do both: the daemon starts another.

Run as a program, with little of the standard library: it is started with the daemon, and stays small. Descriptor 0
is a stream socket to the daemon, and it ends with that; descriptor 3 is its network namespace. First it says what
it is, then it answers each order::

    L | -                     whether the library is here; with the socket by which it changes rules, if known
    r LENGTH text             run the text as one transaction → + LENGTH what it prints | - LENGTH why not
    n LENGTH text             the same, in the network namespace whose descriptor comes along
    o 0                       change rules by the socket that comes along, in place of the own one → + 0

A length is four bytes, little-endian.
"""

import _socket
import array
import ctypes
import os
import signal

DAEMON, HOME = 0, 3
"""Descriptors that it is started with."""
_LIBRARY = "libnftables.so.1"
_CLONE_NEWNET = 0x40000000
_NETFILTER = (_socket.AF_NETLINK, 12)
_HEAD = 5
_ONE_DESCRIPTOR = _socket.CMSG_SPACE(4)
_MOST_DESCRIPTORS = 64
"""Of its own that it looks through: it has just begun and has no more."""


class _Library:
    """A context of libnftables, in the namespace in which it was made."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._context = library.nft_ctx_new(0)
        library.nft_ctx_buffer_output(self._context)
        library.nft_ctx_buffer_error(self._context)

    def run(self, text: bytes) -> tuple[bytes, bytes]:
        """Run a transaction; return how it went (``+``, ``-``) and what is to be said about it."""
        failed = self._library.nft_run_cmd_from_buffer(self._context, text)
        # Reading a buffer empties it for the next run.
        said: bytes = self._library.nft_ctx_get_error_buffer(self._context)
        printed: bytes = self._library.nft_ctx_get_output_buffer(self._context)
        return (b"-", said) if failed else (b"+", printed)

    def close(self) -> None:
        self._library.nft_ctx_free(self._context)


def _load() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_free.argtypes = [ctypes.c_void_p]
    for getter in (library.nft_ctx_get_error_buffer, library.nft_ctx_get_output_buffer):
        getter.restype = ctypes.c_char_p
        getter.argtypes = [ctypes.c_void_p]
    for switch in (library.nft_ctx_buffer_error, library.nft_ctx_buffer_output):
        switch.argtypes = [ctypes.c_void_p]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    return library


def _netfilter_sockets() -> set[int]:
    found = set()
    for number in range(_MOST_DESCRIPTORS):
        try:
            borrowed = _socket.socket(fileno=number)
        except OSError:
            continue
        if (borrowed.family, borrowed.proto) == _NETFILTER:
            found.add(number)
        borrowed.detach()
    return found


def _is_here(namespace: int) -> bool:
    """Whether this process is in a namespace already: entering it takes more rights than it may have."""
    here = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.path.sameopenfile(here, namespace)
    finally:
        os.close(here)


class _Child:
    def __init__(self, daemon: _socket.socket, library: ctypes.CDLL) -> None:
        self._daemon = daemon
        self._library = library
        self._libc = ctypes.CDLL(None)
        if not _is_here(HOME):
            self._enter(HOME)
        before = _netfilter_sockets()
        self._context = _Library(library)
        found = _netfilter_sockets() - before
        self._descriptor = found.pop() if len(found) == 1 else None

    def greet(self) -> None:
        rights = [] if self._descriptor is None else [self._descriptor]
        ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", rights))]
        self._daemon.sendmsg([b"L"], ancillary if rights else [])

    def serve(self) -> None:
        """Obey until the daemon is gone."""
        while True:
            head, descriptor = self._head()
            if not head:
                return
            text = self._receive(int.from_bytes(head[1:], "little"))
            status, said = self._obey(head[:1], text, descriptor)
            self._daemon.sendall(status + len(said).to_bytes(4, "little") + said)

    def _obey(self, order: bytes, text: bytes, descriptor: int) -> tuple[bytes, bytes]:
        try:
            match order:
                case b"r":
                    return self._context.run(text)
                case b"n":
                    return self._run_inside(descriptor, text)
                case b"o" if self._descriptor is not None:
                    os.dup2(descriptor, self._descriptor, inheritable=False)
                    return b"+", b""
            return b"-", b"unknown order " + order
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def _run_inside(self, namespace: int, text: bytes) -> tuple[bytes, bytes]:
        self._enter(namespace)
        try:
            inside = _Library(self._library)
            try:
                return inside.run(text)
            finally:
                inside.close()
        finally:
            self._enter(HOME)

    def _enter(self, namespace: int) -> None:
        if self._libc.setns(namespace, _CLONE_NEWNET):
            os._exit(os.EX_NOPERM)  # it would change the wrong rules

    def _head(self) -> tuple[bytes, int]:
        head, ancillary, _, _ = self._daemon.recvmsg(
            _HEAD, _ONE_DESCRIPTOR, _socket.MSG_CMSG_CLOEXEC
        )
        descriptor = -1
        for level, kind, content in ancillary:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                descriptor = int.from_bytes(content[:4], "little")
        while 0 < len(head) < _HEAD:
            head += self._receive(_HEAD - len(head))
        return head, descriptor

    def _receive(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            part = self._daemon.recv(size - len(parts))
            if not part:
                os._exit(0)
            parts += part
        return bytes(parts)


def _main() -> None:
    os.chdir("/")  # it would keep what is mounted there from going
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it is needed until the daemon has ended
    daemon = _socket.socket(fileno=DAEMON)
    library = _load()
    if library is None:
        daemon.sendall(b"-")
        return
    child = _Child(daemon, library)
    child.greet()
    child.serve()


if __name__ == "__main__":
    _main()
