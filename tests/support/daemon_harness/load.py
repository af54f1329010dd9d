"""A client that asks all the time, in a process of its own: ``python load.py PORT``."""

import http.client
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any, Self

PAUSE_S = 0.005


class Load:
    """Ask a port until the context ends; ``failed`` then says what went wrong.

    Attributes:
        asked: How many requests there were.
        failed: What happened to those that failed.
        bodies: The distinct answers, in the order in which they were first seen.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._process: subprocess.Popen[str] | None = None
        self.asked = 0
        self.failed: list[str] = []
        self.bodies: list[str] = []

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), str(self._port)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "asking\n"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        said, _ignored = self._process.communicate(timeout=30)
        result: dict[str, Any] = json.loads(said)
        self.asked, self.failed, self.bodies = result["asked"], result["failed"], result["bodies"]


def get(port: int, path: str = "/", *, timeout_s: float = 5.0) -> str:
    """The body of one request on a new connection; anything but 200 is an OSError."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode(errors="replace")
        if answer.status != 200:
            raise OSError(f"status {answer.status}: {body[:100]}")
        return body
    finally:
        connection.close()


def main(port: int) -> None:
    """Ask until SIGTERM; print what happened."""
    stop = False

    def ended(_number: int, _frame: FrameType | None) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGTERM, ended)
    print("asking", flush=True)
    asked, failed = 0, []
    bodies: dict[str, None] = {}
    while not stop:
        asked += 1
        try:
            bodies[get(port)] = None
        except (OSError, http.client.HTTPException) as error:
            failed.append(f"{type(error).__name__}: {error}")
        time.sleep(PAUSE_S)
    print(json.dumps({"asked": asked, "failed": failed, "bodies": list(bodies)}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
