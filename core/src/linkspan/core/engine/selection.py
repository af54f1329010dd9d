"""Which containers a query selects."""

import re
from collections.abc import Callable, Mapping

from linkspan.sdk.model.container import Container, ContainerFilter, ContainerStatus

Test = Callable[[Container], bool]

_ENDED = (ContainerStatus.EXITED, ContainerStatus.DEAD, ContainerStatus.RESTARTING)


def tests_of(
    query: ContainerFilter, descends: Callable[[Container, tuple[str, ...]], bool]
) -> list[Test]:
    """What a container must pass; parts of a query that are not given cost nothing.

    Args:
        descends: Whether a container was made from one of some images.
    """
    tests: list[Test] = []
    if not (query.all or query.limit or query.statuses or query.exited):
        tests.append(_is_shown)
    if query.labels:
        tests.append(lambda c: all(has_label(c.labels, label) for label in query.labels))
    if query.names:
        names = [*map(_searcher, query.names)]
        tests.append(lambda c: any(s(f"/{c.name}") or s(c.name) for s in names))
    if query.ids:
        ids = [*map(_searcher, query.ids)]
        tests.append(lambda c: any(s(c.id) for s in ids))
    if query.statuses:
        tests.append(lambda c: c.state.status.value in query.statuses)
    if query.health:
        tests.append(lambda c: _health_of(c) in query.health)
    if query.exited:
        tests.append(lambda c: c.state.status in _ENDED and c.state.exit_code in query.exited)
    if query.networks:
        tests.append(lambda c: bool(_networks_of(c).intersection(query.networks)))
    if query.volumes:
        tests.append(
            lambda c: any({m.name, m.destination}.intersection(query.volumes) for m in c.mounts)
        )
    if query.ancestors:
        tests.append(lambda c: descends(c, query.ancestors))
    return tests


def _is_shown(container: Container) -> bool:
    # Compared one by one: hashing a member of an enum takes longer.
    status = container.state.status
    return (
        status is ContainerStatus.RUNNING
        or status is ContainerStatus.PAUSED
        or status is ContainerStatus.RESTARTING
    )


def _health_of(container: Container) -> str:
    return container.state.health.status.value if container.state.health else "none"


def _networks_of(container: Container) -> set[str]:
    found = {v for e in container.endpoints for v in (e.network_name, e.network_id)}
    return found | {*container.spec.wanted_networks}


def _searcher(text: str) -> Callable[[str], object]:
    """A search for a regular expression; one that is none is found as it is written."""
    try:
        return re.compile(text).search
    except re.error:
        return re.compile(re.escape(text)).search


def has_label(labels: Mapping[str, str], wanted: str) -> bool:
    """``key`` or ``key=value``."""
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)
