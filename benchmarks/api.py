"""Measures of the API itself: requests in a second over one connection."""

import http.client
import socket
import time
from typing import Final

from measure import BOTH, Bench, Measure, Sample
from place import Broken, Engine

_COUNT: Final = 100
_SECONDS: Final = 2.0
_NAMES: Final = [f"bench-api-{number}" for number in range(_COUNT)]


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self._path)


def measures(bench: Bench) -> list[Measure]:
    """In the order of the table."""

    def hundred(engine: Engine) -> None:
        for name in _NAMES:
            engine.docker("run", "-d", "--name", name, bench.tiny, "sleep", "100000")

    def none(engine: Engine) -> None:
        engine.remove(*_NAMES)

    def rate(name: str, what: str, path: str, goal: float, many: bool = False) -> Measure:
        measure = Measure(
            name, what, _rate(path), 5, goal, unit="/s", engines=BOTH, before=hundred, after=none
        )
        if not many:
            measure.before, measure.after = (lambda _: None), (lambda _: None)
        return measure

    return [
        rate("api-version", "GET /version", "/v1.41/version", 8.0),
        rate(
            "api-list",
            f"GET /containers/json, {_COUNT} of them",
            "/v1.41/containers/json",
            4.0,
            many=True,
        ),
        rate(
            "api-inspect",
            "GET /containers/NAME/json",
            f"/v1.41/containers/{_NAMES[0]}/json",
            0.3,
            many=True,
        ),
    ]


def _rate(path: str) -> Sample:
    def sample(engine: Engine) -> float:
        connection = _Connection(str(engine.socket))
        count = 0
        began = time.perf_counter()
        while (took_s := time.perf_counter() - began) < _SECONDS:
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise Broken(f"{engine.name}: {path} answered {answer.status}")
            count += 1
        connection.close()
        return count / took_s

    return sample
