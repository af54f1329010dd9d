"""Debian's registry, as a process of a test."""

import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from daemon_harness.ports import free_port

PROGRAM = "docker-registry"
_STARTS_WITHIN_S = 40.0
_TRIES = 3


@contextmanager
def debian_registry(more: Mapping[str, Any] | None = None) -> Iterator[str]:
    """Run ``docker-registry serve`` until the context ends; gives ``HOST:PORT``.

    Args:
        more: Parts of its configuration that replace or join those of a plain one.
    """
    if shutil.which(PROGRAM) is None:
        pytest.skip(f"Debian's package {PROGRAM} is not installed")
    with tempfile.TemporaryDirectory(prefix="ls-reg-") as folder:
        process, address = _start(Path(folder), more or {})
        try:
            yield address
        finally:
            process.kill()
            process.wait()


def _start(folder: Path, more: Mapping[str, Any]) -> tuple[subprocess.Popen[bytes], str]:
    """A registry that answers; one that dies at its start is started again on another port."""
    log = folder / "log"
    for number in range(1, _TRIES + 1):
        port = free_port()
        config = folder / "registry.yml"
        config.write_text(json.dumps(_settings(folder, port, more)))  # JSON is YAML, too.
        with log.open("wb") as output:
            process = subprocess.Popen(
                [PROGRAM, "serve", str(config)], stdout=output, stderr=output
            )
        if _listens(process, port):
            return process, f"127.0.0.1:{port}"
        status = process.poll()
        process.kill()
        process.wait()
        said = log.read_text(errors="replace")[-2000:]
        if status is None or number == _TRIES:
            how = f"does not listen after {_STARTS_WITHIN_S:g} s" if status is None else "died"
            pytest.fail(f"{PROGRAM} {how} (port {port}, exit status {status}): {said}")
    raise AssertionError


def _settings(folder: Path, port: int, more: Mapping[str, Any]) -> dict[str, Any]:
    plain = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": f"{folder}/registry"}},
    }
    http = {"addr": f"127.0.0.1:{port}", **more.get("http", {})}
    return {**plain, **more, "http": http}


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    end = time.monotonic() + _STARTS_WITHIN_S
    while process.poll() is None and time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            time.sleep(0.02)
        else:
            # Whoever answered may be another, whose port it was: then ours has died of it.
            return process.poll() is None
    return False
