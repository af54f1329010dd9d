"""Transcripts: what a daemon lets the stock docker CLI print, without what differs from run to run."""

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

CLI_VERSION: Final = 28
"""The client that the transcripts were recorded with: its words differ between versions."""

_LIMIT_S: Final = 60.0


def client_version() -> int:
    """The first number of the ``docker`` that is in the PATH."""
    return int(client_version_text().split(".")[0])


def client_version_text() -> str:
    """The version of the ``docker`` that is in the PATH; ``0`` if there is none."""
    try:
        done = subprocess.run(["docker", "--version"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "0"
    return done.stdout.split()[2].rstrip(",") if done.returncode == 0 else "0"


# In this order: what a later rule would break comes first.
_RULES: Final = [
    (r"\bsha256:[0-9a-f]{64}\b", "<digest>"),
    (r"\b[0-9a-f]{64}\b", "<id>"),
    (r"\bSWMTKN-1-[0-9a-z]+-[0-9a-z]+", "<token>"),
    (r"\b[0-9a-z]{25}\b", "<swarm-id>"),
    (r"\b[0-9a-f]{12}\b", "<short>"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", "<time>"),
    (r"\b(About an?|Less than a|\d+) (second|minute|hour|day)s?( ago)?\b", "<age>"),
    (r"\b\d+(\.\d+)?(B|kB|MB|GB)\b", "<size>"),
    (r"(?<=reclaimed space: )\S+", "<size>"),
    (r"/tmp/[\w./-]+", "<path>"),
    (r"unix://\S+/[\w.-]+\.?sock?\b", "<host>"),
    (r"172\.\d+\.\d+\.\d+", "<address>"),
    (r"\bpid \d+", "pid <pid>"),
    # runc says these before its words of a program it cannot run; its releases and crun differ in it.
    (r"\b(runc|crun) create failed: ", ""),
    (r"\berror during container init: ", ""),
    # Columns are as wide as their widest cell.
    (r"[ \t]{2,}", "  "),
    (r"[ \t]+$", ""),
]
_COMPILED: Final = [(re.compile(rule, re.MULTILINE), text) for rule, text in _RULES]


@attrs.frozen(kw_only=True)
class Entry:
    """A command, and what came of it."""

    command: str
    status: int
    out: str
    err: str


def normal(text: str) -> str:
    """A text without ids, times, sizes, addresses and the width of columns."""
    text = text.replace("\r\n", "\n")
    for rule, replacement in _COMPILED:
        text = rule.sub(replacement, text)
    return text


def daemon_options(script: Path) -> tuple[str, ...]:
    """Options of the daemon that a script is for: what follows ``#!``."""
    lines = script.read_text().splitlines()
    return tuple(word for line in lines if line.startswith("#!") for word in line[2:].split())


def commands(script: Path) -> Iterator[str]:
    """The commands of a script: a line each; ``#`` begins a comment."""
    for line in script.read_text().splitlines():
        if line and not line.startswith("#"):
            yield line


def run(command: str, folder: Path, environment: Mapping[str, str]) -> Entry:
    """Let a shell run a command in a folder, and note what it prints."""
    try:
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=folder,
            env={**os.environ, "LC_ALL": "C.UTF-8", "COLUMNS": "200", **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Entry(command=command, status=-1, out="", err="no end")
    out, err = (normal(text.decode("utf-8", "replace")) for text in (done.stdout, done.stderr))
    return Entry(command=command, status=done.returncode, out=out, err=err)


def write(entries: list[Entry], server: str, path: Path) -> None:
    """Keep a transcript, an entry a line, so that a change can be read; ``server`` is the daemon's version."""
    rows = (json.dumps(attrs.asdict(entry), ensure_ascii=False) for entry in entries)
    path.write_text(f'{{"server": "{server}", "entries": [\n' + ",\n".join(rows) + "\n]}\n")


def read(path: Path) -> list[Entry]:
    """A transcript that was kept."""
    kept: dict[str, Any] = json.loads(path.read_text())
    return [Entry(**row) for row in kept["entries"]]
