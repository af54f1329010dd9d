"""The daemon's side of the keeper: starting it, finding it again, giving it sockets.

See ``keeper``. The calls block for a fraction of a millisecond; they are made in the firewall's
thread, and the keeper is in that thread's network namespace.
"""

import json
import logging
import os
import select
import socket
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from linkspan.plugins.bridge_network import keeper as program
from linkspan.plugins.bridge_network.descriptors import opened_folder
from linkspan.plugins.bridge_network.keeper import (
    MOST_DESCRIPTORS,
    receive_with_descriptors,
    send_with_descriptors,
)

log = logging.getLogger(__name__)

_PATIENCE_S = 20.0
_NAME = "keeper.sock"
_GONE = (BrokenPipeError, ConnectionResetError, TimeoutError)


class KeeperGone(Exception):
    """The keeper does not answer: it was killed."""


class Keeping:
    """A connection to the keeper.

    Args:
        folder: Where its socket is.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pid = 0
        self._unanswered = 0
        self._new = False
        self._socket = self._connect() or self._start()

    def _connect(self) -> socket.socket | None:
        found = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        found.settimeout(_PATIENCE_S)
        try:
            # By the folder's descriptor: a socket's path has little room.
            with opened_folder(self._folder) as folder:
                found.connect(f"/proc/self/fd/{folder}/{_NAME}")
        except (FileNotFoundError, ConnectionRefusedError):
            found.close()
            return None
        return found

    def _start(self) -> socket.socket:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            with suppress(FileNotFoundError):
                (self._folder / _NAME).unlink()
            with opened_folder(self._folder) as folder:
                listener.bind(f"/proc/self/fd/{folder}/{_NAME}")
            listener.listen(4)
            listener.set_inheritable(True)
            # The folder is named for people, and for whoever looks after us.
            arguments = [sys.executable, "-I", "-S", program.__file__, str(listener.fileno())]
            # Not as a child to be waited for: it outlives us.
            self._pid = os.posix_spawn(
                sys.executable,
                [*arguments, str(self._folder)],
                {},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)
                ],
                setsid=True,
            )
        connected = self._connect()
        if connected is None:
            raise KeeperGone("the keeper has ended at once")
        self._new = True
        return connected

    def close(self) -> None:
        """Leave the keeper alone with what it has."""
        self._socket.close()

    def end(self) -> None:
        """End the keeper; what it held is held by nobody then."""
        with suppress(KeeperGone):
            self._order({"do": "end"})
        with suppress(FileNotFoundError):
            (self._folder / _NAME).unlink()
        self._socket.close()
        self._reap()

    def renew(self) -> None:
        """Start another keeper in place of one that has gone; it holds nothing."""
        self._socket.close()
        self._reap()
        self._unanswered = 0
        self._socket = self._connect() or self._start()

    def _reap(self) -> None:
        if self._pid:
            with suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
            self._pid = 0

    def hold(self, sockets: Mapping[str, socket.socket]) -> None:
        """Have sockets held by their names; a name's former socket is let go. Waits for nothing."""
        self._new = False
        names = list(sockets)
        for start in range(0, len(names), MOST_DESCRIPTORS):
            part = names[start : start + MOST_DESCRIPTORS]
            descriptors = [sockets[name].fileno() for name in part]
            self._send({"do": "hold", "names": part}, descriptors)

    def release(self, names: Iterable[str]) -> None:
        """Have sockets closed; silent about names that are not there. Waits for nothing."""
        wanted = list(names)
        for start in range(0, len(wanted), MOST_DESCRIPTORS):
            self._send({"do": "release", "names": wanted[start : start + MOST_DESCRIPTORS]})

    def relay(self, name: str, address: str, port: int) -> None:
        """Lead what comes to a held socket to an address; again, to lead it elsewhere.

        Waits for nothing.
        """
        self._send({"do": "relay", "name": name, "to": [address, port]})

    def settle(self) -> None:
        """Wait until all is done that the keeper was told."""
        while self._unanswered:
            self._take_answer({})

    def fetch(self) -> dict[str, socket.socket]:
        """All sockets that are held, as duplicates."""
        if self._new:  # it holds nothing: no need to wait until it has started
            return {}
        return self._order({"do": "fetch"})

    def _order(self, order: dict[str, object]) -> dict[str, socket.socket]:
        self._send(order)
        found: dict[str, socket.socket] = {}
        while self._unanswered:
            self._take_answer(found)
        return found

    def _send(self, order: dict[str, object], descriptors: Iterable[int] = ()) -> None:
        try:
            # Answers are taken as they come, so that they never fill the way back.
            ready = select.poll()
            ready.register(self._socket, select.POLLIN)
            while self._unanswered and ready.poll(0):
                self._take_answer({})
            send_with_descriptors(self._socket, order, descriptors)
        except _GONE as error:
            raise KeeperGone(str(error)) from error
        self._unanswered += 1

    def _take_answer(self, found: dict[str, socket.socket]) -> None:
        try:
            data, got = receive_with_descriptors(self._socket)
        except _GONE as error:
            raise KeeperGone(str(error)) from error
        if not data:
            raise KeeperGone("the keeper has hung up")
        answer = json.loads(data)
        if "error" in answer:
            log.warning("the keeper could not do as told", extra={"reason": answer["error"]})
        if not answer.get("names"):
            self._unanswered -= 1
        for name, descriptor in zip(answer.get("names", ()), got, strict=True):
            found[name] = socket.socket(fileno=descriptor)
