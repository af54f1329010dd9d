"""Ages, ids, ports and other small texts in tables."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing these takes longer than a short command may
    from collections.abc import Mapping, Sequence
    from typing import Any


def short_id(text: str) -> str:
    """12 hex digits of an id or digest, ``sha256:`` left out."""
    return text.removeprefix("sha256:")[:12]


def short_digest(text: str) -> str:
    """``sha256:`` and 12 hex digits."""
    algorithm, colon, value = text.partition(":")
    return f"{algorithm}:{value[:12]}" if colon else text[:12]


def shortened(text: str, width: int) -> str:
    """A text that fits, with an ellipsis for what is left out."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def parse_time(text: str) -> float | None:
    """Seconds since the epoch of an RFC 3339 time with any number of digits; None for "never"."""
    if not text or text.startswith("0001-"):
        return None
    import re
    from datetime import UTC, datetime

    match = re.search(r"\.(\d+)", text)
    if match:
        text = text.replace(match[0], f".{match[1][:6]:0<6}")
    try:
        parsed = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=UTC)
    return parsed.timestamp()


def age(seconds: float) -> str:
    """One unit: ``12s``, ``9m``, ``2h``, ``12d``."""
    seconds = max(0.0, seconds)
    for limit, unit, name in ((60, 1, "s"), (3600, 60, "m"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{int(seconds // unit)}{name}"
    return f"{int(seconds // 86400)}d"


def age_of(value: object, now: float) -> str:
    """The age of a time that the API gives as text or as seconds; empty for "never"."""
    then = parse_time(value) if isinstance(value, str) else value
    return age(now - then) if isinstance(then, (int, float)) and then else ""


def ago(value: object, now: float) -> str:
    """``14 minutes ago``, as Docker writes it; ``N/A`` for "never"."""
    from linkspan.sdk.units import human_duration

    then = parse_time(value) if isinstance(value, str) else value
    if not isinstance(then, (int, float)) or not then:
        return "N/A"
    return f"{human_duration(max(0.0, now - then))} ago"


def local_time(value: object) -> str:
    """``2026-11-24 08:44:27 +0000 UTC``, as Docker writes CreatedAt."""
    then = parse_time(value) if isinstance(value, str) else value
    if not isinstance(then, (int, float)):
        return ""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(then))


def go_time(text: str) -> str:
    """An RFC 3339 time as Go prints one: ``2026-11-29 15:11:54.031992578 +0000 UTC``."""
    date, _, rest = text.partition("T")
    if not rest:
        return text
    if rest.endswith("Z"):
        return f"{date} {rest[:-1]} +0000 UTC"
    zone = rest[-6:].replace(":", "")
    return f"{date} {rest[:-6]} {zone} {zone}"


def rfc3339(value: object) -> str:
    """Seconds since the epoch as ``2026-11-29T15:11:54Z``, in the local zone."""
    if not isinstance(value, (int, float)):
        return ""
    text = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(value))
    return f"{text[:-5]}Z" if text.endswith("+0000") else f"{text[:-2]}:{text[-2:]}"


def natural(text: str) -> list[tuple[int, str]]:
    """A key that sorts ``web2`` before ``web10``, as Docker's lists are sorted."""
    import re

    parts = re.split(r"(\d+)", text)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def rfc3339_nano(nanoseconds: int) -> str:
    """``2026-11-29T15:11:54.031992578Z``, in the local zone."""
    text = rfc3339(nanoseconds // 1_000_000_000)
    return f"{text[:19]}.{nanoseconds % 1_000_000_000:09}{text[19:]}"


def ports(published: Sequence[Mapping[str, Any]]) -> str:
    """``8080→80, 127.0.0.1:53→53/udp``: published ones only, both address families once."""
    texts: list[str] = []
    for port in published:
        if not port.get("PublicPort"):
            continue
        protocol = "" if port.get("Type", "tcp") == "tcp" else f"/{port['Type']}"
        ip = port.get("IP", "")
        address = "" if ip in ("", "0.0.0.0", "::") else f"{ip}:"  # noqa: S104
        text = f"{address}{port['PublicPort']}→{port['PrivatePort']}{protocol}"
        if text not in texts:
            texts.append(text)
    return ", ".join(texts)


def docker_ports(published: Sequence[Mapping[str, Any]]) -> str:
    """``0.0.0.0:8080->80/tcp, 443/tcp``, as Docker writes Ports."""
    texts: list[str] = []
    for port in published:
        private = f"{port.get('PrivatePort')}/{port.get('Type', 'tcp')}"
        if port.get("PublicPort"):
            ip = port.get("IP", "")
            host = f"[{ip}]" if ":" in ip else ip
            private = f"{host}:{port['PublicPort']}->{private}"
        texts.append(private)
    return ", ".join(texts)


def labels(mapping: Mapping[str, str] | None) -> str:
    """``a=1,b=2``."""
    return ",".join(f"{key}={value}" for key, value in sorted((mapping or {}).items()))


def binary_size(count: float) -> str:
    """Memory, as Docker writes it: ``512MiB``, ``1.944GiB``."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.4g}{unit}"
