"""Answers about containers that are encoded once for each change of a container: list and inspect.

``docker ps`` and what watches a machine ask for it all the time. A container's record is immutable and
replaced at each change, so an entry holds as long as the record is the same object. Only the status
(``Up 3 minutes``) depends on the time; it is put in between.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs
import orjson

from linkspan.plugins.docker_api.codec_container import (
    encode_summary,
    shown_sizes,
    status_since_s,
    status_text,
)
from linkspan.plugins.docker_api.timestamps import now_s
from linkspan.sdk.model.container import Container

_MARK = "\x00status"
_ENCODED_MARK = orjson.dumps(_MARK)
_SPARE = 100


@attrs.define
class _Summary:
    """An encoded entry.

    Attributes:
        head, tail: What comes before and behind its status.
        entry: With the status that holds until ``until_s``.
        links: Further names that it was encoded with.
    """

    container: Container
    head: bytes
    tail: bytes
    since_s: float
    entry: bytes = b""
    until_s: float = 0.0
    links: Sequence[str] = ()

    @classmethod
    def of(cls, container: Container, links: Sequence[str]) -> "_Summary":
        """Encode a container."""
        encoded = orjson.dumps(encode_summary(container, status=_MARK, links=links))
        head, _, tail = encoded.partition(_ENCODED_MARK)
        return cls(container, head, tail, status_since_s(container.state), links=links)

    def renew(self, now: float) -> None:
        """Put the status of now in between."""
        text = status_text(self.container.state, at_s=now)
        self.entry = self.head + orjson.dumps(text) + self.tail
        # Durations are told in seconds, later in minutes and more.
        passed = now - self.since_s
        step = 1 if passed < 60 else 60
        self.until_s = self.since_s + (passed // step + 1) * step


class Summaries:
    """Encodes entries of GET /containers/json, and keeps them."""

    def __init__(self) -> None:
        self._kept: dict[str, _Summary] = {}

    def encode(
        self,
        containers: Iterable[Container],
        sizes: Mapping[str, tuple[int, int]] | None = None,
        links: Mapping[str, Sequence[str]] | None = None,
    ) -> bytes:
        """The whole list as JSON.

        Args:
            sizes: Container's id → bytes of its own and in all; None if nobody asked.
            links: Container's id or name → what others call it.
        """
        now = now_s()
        parts = []
        for container in containers:
            found = self._kept.get(container.id)
            names = [*links.get(container.id, ()), *links.get(container.name, ())] if links else ()
            if found is None or found.container is not container or found.links != names:
                found = self._kept[container.id] = _Summary.of(container, names)
            if now >= found.until_s:
                found.renew(now)
            entry = found.entry
            if sizes is not None:
                shown = orjson.dumps(shown_sizes(*sizes[container.id]))
                if shown != b"{}":
                    entry = b"%s,%s" % (entry[:-1], shown[1:])
            parts.append(entry)
        return b"[%s]\n" % b",".join(parts)

    def forget_others(self, containers: Iterable[Container], count: int) -> None:
        """Let go of entries of containers that are gone, once there are many of them.

        Args:
            containers: All that there are.
            count: How many that is.
        """
        if len(self._kept) > count + _SPARE:
            ids = {container.id for container in containers}
            self._kept = {key: kept for key, kept in self._kept.items() if key in ids}


class Inspections:
    """Encodes answers of GET /containers/{id}/json, and keeps those that are asked for."""

    _MOST = 500

    def __init__(self) -> None:
        self._kept: dict[str, tuple[tuple[object, ...], Container, bytes]] = {}

    def encode(
        self, container: Container, facts: tuple[object, ...], make: Callable[[], Mapping[str, Any]]
    ) -> bytes:
        """The answer as JSON.

        Args:
            facts: What it depends on beside the container.
            make: Makes it.
        """
        kept = self._kept.get(container.id)
        if kept is not None and kept[1] is container and kept[0] == facts:
            return kept[2]
        body = orjson.dumps(make()) + b"\n"
        if len(self._kept) >= self._MOST:
            self._kept.pop(next(iter(self._kept)))
        self._kept[container.id] = (facts, container, body)
        return body
