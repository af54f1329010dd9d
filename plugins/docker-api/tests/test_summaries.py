"""Encoded answers that are kept until a container changes."""

import json
from typing import Any

import attrs
import pytest

from linkspan.plugins.docker_api import summaries
from linkspan.plugins.docker_api.codec_container import encode_summary
from linkspan.plugins.docker_api.summaries import Inspections, Summaries
from linkspan.sdk.model.container import (
    Container,
    ContainerSpec,
    ContainerState,
    ContainerStatus,
)

STARTED = "2026-11-29T06:00:00.000000000Z"
STARTED_S = 1795932000.0


def running(name: str, **changes: Any) -> Container:
    state = ContainerState(status=ContainerStatus.RUNNING, started_at=STARTED)
    spec = ContainerSpec(image="busybox", labels={"a": 'quote " and \x00'})
    return Container(
        id=name * 64, name=name, created_at=STARTED, spec=spec, image_id="i", state=state,
        labels=spec.labels, **changes,
    )  # fmt: skip


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [STARTED_S + 3]
    monkeypatch.setattr(summaries, "now_s", lambda: now[0])
    return now


def test_a_kept_entry_is_what_is_encoded_anew(clock: list[float]) -> None:
    made = Summaries()
    both = [running("a"), running("b")]
    for _ in range(2):
        seen = json.loads(made.encode(both))
        for container, entry in zip(both, seen, strict=True):
            assert entry.pop("Status") == "Up 3 seconds"
            wanted = encode_summary(container)
            del wanted["Status"]
            assert entry == wanted
    assert made.encode([]) == b"[]\n"


@pytest.mark.parametrize(
    ("after_s", "text"),
    [
        (0.5, "Up Less than a second"),
        (59.9, "Up 59 seconds"),
        (60, "Up About a minute"),
        (120, "Up 2 minutes"),
        (3600, "Up About an hour"),
        (5400, "Up 2 hours"),
        (86400 * 3, "Up 3 days"),
    ],
)
def test_the_status_goes_with_the_time(clock: list[float], after_s: float, text: str) -> None:
    made = Summaries()
    container = running("a")
    for moment in (0.1, after_s / 2, after_s - 0.01, after_s):
        clock[0] = STARTED_S + moment
        seen = json.loads(made.encode([container]))
    assert seen[0]["Status"] == text


def test_a_change_is_seen_at_once(clock: list[float]) -> None:
    made = Summaries()
    container = running("a")
    made.encode([container])
    state = attrs.evolve(container.state, status=ContainerStatus.PAUSED)
    changed = attrs.evolve(container, name="other", state=state)
    (seen,) = json.loads(made.encode([changed]))
    assert (seen["Names"], seen["Status"]) == (["/other"], "Up 3 seconds (Paused)")


def test_sizes_are_added_where_they_are_asked(clock: list[float]) -> None:
    made = Summaries()
    container = running("a")
    (seen,) = json.loads(made.encode([container], {container.id: (5, 70)}))
    assert (seen["SizeRw"], seen["SizeRootFs"]) == (5, 70)
    assert "SizeRw" not in json.loads(made.encode([container]))[0]


def test_entries_of_removed_containers_go(clock: list[float]) -> None:
    made = Summaries()
    made.encode([attrs.evolve(running("a"), id=f"{n:064x}") for n in range(300)])
    left = [running("b")]
    made.encode(left)
    made.forget_others(left, 1)
    assert list(made._kept) == ["b" * 64]


def test_an_inspection_is_made_once_for_each_change() -> None:
    made: list[int] = []

    def make() -> dict[str, int]:
        made.append(1)
        return {"n": len(made)}

    kept = Inspections()
    container = running("a")
    assert kept.encode(container, (1,), make) == b'{"n":1}\n'
    assert kept.encode(container, (1,), make) == b'{"n":1}\n'
    assert kept.encode(container, (2,), make) == b'{"n":2}\n'
    assert kept.encode(attrs.evolve(container), (2,), make) == b'{"n":3}\n'
    for number in range(600):
        kept.encode(attrs.evolve(container, id=str(number)), (), make)
    assert len(kept._kept) == 500
