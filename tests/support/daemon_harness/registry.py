"""Debian's registry, as a process of a test."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemon_harness.daemon import free_port, until
from daemon_harness.load import get


@contextmanager
def debian_registry() -> Iterator[str]:
    """Run ``docker-registry serve`` until the context ends; gives ``HOST:PORT``."""
    if shutil.which("docker-registry") is None:
        pytest.skip("Debian's package docker-registry is not installed")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="ls-reg-") as folder:
        config = Path(folder, "registry.yml")
        config.write_text(  # JSON is YAML, too.
            json.dumps(
                {
                    "version": "0.1",
                    "log": {"level": "error", "accesslog": {"disabled": True}},
                    "storage": {"filesystem": {"rootdirectory": f"{folder}/registry"}},
                    "http": {"addr": f"127.0.0.1:{port}"},
                }
            )
        )
        with subprocess.Popen(
            ["docker-registry", "serve", str(config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                until("Debian's registry answers", lambda: _answers(port))
                yield f"127.0.0.1:{port}"
            finally:
                process.kill()


def _answers(port: int) -> bool:
    try:
        get(port, "/v2/")
    except OSError:
        return False
    return True
