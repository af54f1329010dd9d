"""Services of a job with Compose keys, in real containers."""

from pathlib import Path

import pytest
from daemon_harness.daemon import Daemon

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


def test_a_service_has_its_volume_port_and_limits(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / ".linkspan").mkdir()
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("hello\n")
    file = tmp_path / ".linkspan" / "s.yaml"
    file.write_text("""\
linkspan: v1
jobs:
  a:
    image: busybox
    services:
      web:
        image: busybox
        command: [httpd, -f, -p, "8080", -h, /site]
        volumes: ["./site:/site:ro"]
        read_only: true
        cap_drop: [ALL]
        mem_limit: 64m
        labels: {team: shop}
        extra_hosts: ["elsewhere:192.0.2.1"]
        healthcheck: {test: [CMD, wget, -q, -O, "-", "http://127.0.0.1:8080/"], interval: 200ms, retries: 50}
    steps:
      - run: test "$(wget -q -O - http://web:8080/)" = hello
""")
    daemon.cli("workflow", "run", file)
