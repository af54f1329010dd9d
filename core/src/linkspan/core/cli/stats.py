"""``linkspan stats``: what containers use, as a live table."""

import threading  # noqa: TID251 - a command has no event loop that could read from many
from collections.abc import Iterable
from typing import Any, Final

import click

from linkspan.core.cli import live, words
from linkspan.core.cli.command import command
from linkspan.core.cli.common import complete_running
from linkspan.core.cli.failure import of_error
from linkspan.core.cli.list_options import no_trunc
from linkspan.core.cli.session import Session, print_json_line
from linkspan.core.client.short import Api, segment
from linkspan.sdk.errors import LinkspanError
from linkspan.sdk.units import format_size

_FRAME_S: Final = 0.5
_LIST_AGAIN_S: Final = 2.0
_HEADERS: Final = [
    "NAME",
    "ID",
    "CPU",
    "MEMORY",
    "LIMIT",
    "MEM %",
    "NET IN",
    "NET OUT",
    "DISK READ",
    "DISK WRITE",
    "PIDS",
]


@command(
    "stats",
    "Show what containers use, redrawn twice a second; in a pipe, once.",
    examples=[
        "linkspan stats",
        "linkspan stats --no-stream web db",
        "linkspan stats --no-stream --format '{{.Name}} {{.CPUPerc}} {{.MemUsage}}'",
    ],
    more=["linkspan top", "linkspan ps"],
)
@click.argument("containers", nargs=-1, shell_complete=complete_running)
@click.option("-a", "--all", "every", is_flag=True, help="Stopped ones too")
@click.option("--no-stream", is_flag=True, help="Once, then end")
@no_trunc
def stats(
    session: Session, containers: tuple[str, ...], every: bool, no_stream: bool, no_trunc: bool
) -> None:
    """Show what containers use."""
    session.prefer("statsFormat")
    streams = session.format == "jsonl" and not no_stream
    if streams:
        _stream(session, containers, every)
    elif no_stream or session.format not in ("", "table") or not session.terminal.redraws:
        _show(session, _once(session, _chosen(session, containers, every)), no_trunc)
    else:
        _watch(session, containers, every, no_trunc)


def _chosen(session: Session, names: Iterable[str], every: bool) -> list[str]:
    """Ids of the containers that were named, else of all that run."""
    if names:
        return [session.api.get(f"/containers/{segment(name)}/json")["Id"] for name in names]
    return [record["Id"] for record in session.api.get("/containers/json", {"all": every or None})]


def _once(session: Session, identifiers: Iterable[str]) -> list[Any]:
    """One sample of each, at the same time: the daemon looks twice, a second apart."""
    found: dict[str, Any] = {}
    failures: list[LinkspanError] = []

    def ask(identifier: str) -> None:
        try:
            path = f"/containers/{identifier}/stats"
            found[identifier] = session.api.get(path, {"stream": False})
        except LinkspanError as exc:
            failures.append(exc)

    asked = list(identifiers)
    threads = [threading.Thread(target=ask, args=(identifier,)) for identifier in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures and not found:
        raise failures[0]
    for failure in failures:
        session.terminal.error(of_error(failure).render())
    return [found[identifier] for identifier in asked if identifier in found]


def _stream(session: Session, names: tuple[str, ...], every: bool) -> None:
    """Every sample of every container as a line of JSON, for ever."""
    gauge = _Gauge(session.api)
    chosen = _chosen(session, names, every)
    lock = threading.Lock()

    def say(sample: Any) -> None:
        with lock:
            print_json_line(session.terminal, _fields(sample, trunc=True))
            session.terminal.out.flush()

    gauge.follow(chosen, say)
    gauge.join()


class _Gauge:
    """The last sample of each container, kept by one thread a container."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._threads: dict[str, threading.Thread] = {}
        self.last: dict[str, Any] = {}

    def follow(self, identifiers: Iterable[str], say: Any = None) -> None:
        """Watch these from now on, and no others."""
        wanted = list(identifiers)
        for gone in set(self.last) - set(wanted):
            self.last.pop(gone, None)
        for identifier in wanted:
            if identifier not in self._threads or not self._threads[identifier].is_alive():
                thread = threading.Thread(target=self._read, args=(identifier, say), daemon=True)
                self._threads[identifier] = thread
                thread.start()

    def join(self) -> None:
        """Wait until no container is left."""
        for thread in self._threads.values():
            thread.join()

    def _read(self, identifier: str, say: Any) -> None:
        path = f"/containers/{identifier}/stats"
        try:
            with self._api.open("GET", path, {"stream": True}, silence_s=None) as answer:
                for sample in answer.json_lines():
                    self.last[identifier] = sample
                    if say is not None:
                        say(sample)
        except (LinkspanError, OSError):
            pass  # it has gone; the next list says so
        self.last.pop(identifier, None)


def _watch(session: Session, names: tuple[str, ...], every: bool, no_trunc: bool) -> None:
    gauge = _Gauge(session.api)
    listed = 0.0
    chosen: list[str] = []

    def frame() -> list[str]:
        nonlocal listed, chosen
        now = session.now
        if now - listed >= _LIST_AGAIN_S:
            listed, chosen = now, _chosen(session, names, every)
            gauge.follow(chosen)
        samples = [gauge.last[i] for i in chosen if i in gauge.last]
        if not samples:
            return ["waiting for the first sample" if chosen else "no container runs"]
        cells = [_cells(sample, trunc=not no_trunc) for sample in samples]
        return session.terminal.table_lines(_HEADERS, cells, drop=_DROP, keep=["NAME", "CPU"])

    live.watch(session.terminal, frame, _FRAME_S)


_DROP: Final = ["DISK READ", "DISK WRITE", "LIMIT", "ID", "NET IN", "NET OUT", "PIDS"]


def _show(session: Session, samples: list[Any], no_trunc: bool) -> None:
    session.rows(
        samples,
        lambda sample: _fields(sample, trunc=not no_trunc),
        lambda sample: _cells(sample, trunc=not no_trunc),
        _HEADERS,
        drop=_DROP,
        keep=["NAME", "CPU"],
        trunc=not no_trunc,
        titles={"ID": "CONTAINER ID"},
        docker="{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
    )


def cpu_percent(sample: Any) -> float:
    """Of one CPU: two busy CPUs are 200 (as in Docker)."""
    now, before = sample.get("cpu_stats") or {}, sample.get("precpu_stats") or {}
    used = _at(now, "cpu_usage", "total_usage") - _at(before, "cpu_usage", "total_usage")
    passed = _at(now, "system_cpu_usage") - _at(before, "system_cpu_usage")
    count = now.get("online_cpus") or len((now.get("cpu_usage") or {}).get("percpu_usage") or [1])
    return used / passed * count * 100 if used > 0 and passed > 0 else 0.0


def memory_used(sample: Any) -> int:
    """Bytes without the page cache that can go at any time (as in Docker)."""
    memory = sample.get("memory_stats") or {}
    usage = int(memory.get("usage") or 0)
    parts = memory.get("stats") or {}
    cache = int(parts.get("total_inactive_file") or parts.get("inactive_file") or 0)
    return usage - cache if cache < usage else usage


def _at(document: Any, *keys: str) -> int:
    for key in keys:
        document = (document or {}).get(key)
    return int(document or 0)


def _network(sample: Any) -> tuple[int, int]:
    found = (sample.get("networks") or {}).values()
    return sum(n.get("rx_bytes", 0) for n in found), sum(n.get("tx_bytes", 0) for n in found)


def _disk(sample: Any) -> tuple[int, int]:
    entries = (sample.get("blkio_stats") or {}).get("io_service_bytes_recursive") or ()
    read = sum(e.get("value", 0) for e in entries if e.get("op", "").lower() == "read")
    write = sum(e.get("value", 0) for e in entries if e.get("op", "").lower() == "write")
    return read, write


def _percent_of_memory(sample: Any) -> float:
    limit = _at(sample, "memory_stats", "limit")
    return memory_used(sample) / limit * 100 if limit else 0.0


def _cells(sample: Any, *, trunc: bool) -> list[str]:
    (received, sent), (read, written) = _network(sample), _disk(sample)
    fields = _fields(sample, trunc=trunc)
    return [
        fields["Name"],
        fields["ID"],
        fields["CPUPerc"],
        words.binary_size(memory_used(sample)),
        words.binary_size(_at(sample, "memory_stats", "limit")),
        fields["MemPerc"],
        format_size(received),
        format_size(sent),
        format_size(read),
        format_size(written),
        fields["PIDs"],
    ]


def _fields(sample: Any, *, trunc: bool) -> dict[str, Any]:
    identifier = sample.get("id") or sample.get("ID") or ""
    (received, sent), (read, written) = _network(sample), _disk(sample)
    limit = _at(sample, "memory_stats", "limit")
    return {
        "ID": words.short_id(identifier) if trunc else identifier,
        "Container": words.short_id(identifier) if trunc else identifier,
        "Name": (sample.get("name") or "").lstrip("/"),
        "CPUPerc": f"{cpu_percent(sample):.2f}%",
        "MemUsage": f"{words.binary_size(memory_used(sample))} / {words.binary_size(limit)}",
        "MemPerc": f"{_percent_of_memory(sample):.2f}%",
        "NetIO": f"{format_size(received)} / {format_size(sent)}",
        "BlockIO": f"{format_size(read)} / {format_size(written)}",
        "PIDs": str(_at(sample, "pids_stats", "current")),
    }
