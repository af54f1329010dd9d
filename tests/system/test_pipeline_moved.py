"""A kept plan is done as it was, or refused with what has moved: images, networks, ports, secrets, plugins."""

import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from daemon_harness.daemon import Daemon
from daemon_harness.own_plugin import install_verb
from daemon_harness.ports import free_port

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

STEPS = """\
from contextlib import asynccontextmanager
from linkspan.sdk.drivers.step import Step


class Mark(Step):
    @classmethod
    @asynccontextmanager
    async def open(cls, config, host):
        yield cls()

    async def apply(self, intent, context):
        return {}
"""
PIPELINE = """\
linkspan: v1
name: shop
secrets: {TOKEN: {from: file}}
jobs:
  test:
    image: app:1
    steps:
      - {id: unit, run: 'test "$TOKEN"', secrets: [TOKEN]}
      - {id: mark, uses: acme/mark@^1}
      - {id: tag, uses: tag, with: {image: "app:1", tags: ["app:live"]}}
  ship:
    needs: [test]
    steps:
      - id: deploy
        uses: deploy
        with: {service: web, image: "app:1", command: [sleep, "100"], networks: [front], ports: ["%d:80"]}
"""


def install(folder: Path, version: str) -> None:
    """The plugin; a newer one takes the place of an older."""
    shutil.rmtree(folder, ignore_errors=True)
    install_verb(folder, "mark", "steps:Mark", {"steps.py": STEPS}, version=version)


def test_a_plan_is_refused_with_all_that_has_moved_and_done_when_it_is_back(
    new_daemon: Callable[..., Daemon], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins, file, kept = tmp_path / "plugins", tmp_path / "shop/p.yaml", tmp_path / "kept"
    file.parent.mkdir()
    install(plugins, "1.0")
    monkeypatch.setenv("PYTHONPATH", str(plugins))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    daemon = new_daemon()
    daemon.start()
    daemon.build_busybox()
    daemon.cli("build", "-t", "other", daemon.write_context("FROM busybox\nRUN echo x > /x\n"))
    port = free_port()
    file.write_text(PIPELINE % port)

    def world() -> None:
        """As it is when the plan is made."""
        daemon.docker("tag", "busybox", "app:1")
        daemon.cli("network", "create", "front")
        daemon.cli("workflow", "secret", "set", "TOKEN", stdin="sesame-7")

    world()
    daemon.cli("workflow", "plan", file, "--out", kept)

    # The plugin is gone altogether: the pipeline cannot even be read so.
    shutil.rmtree(plugins)
    gone = daemon.cli("workflow", "run", "--plan", kept, status=2)
    assert "no installed plugin answers `uses: acme/mark`" in gone.err

    # All of it at once.
    install(plugins, "1.1")
    daemon.docker("tag", "other", "app:1")
    daemon.cli("network", "rm", "front")
    daemon.cli("workflow", "secret", "rm", "TOKEN")
    daemon.restart()
    refused = daemon.cli("workflow", "run", "--plan", kept, status=3)
    assert "error[LS1409]: the world has moved since the plan" in refused.err
    for words in (
        "plugin of acme/mark: acme-mark 1.0 → acme-mark 1.1",
        "test/unit: create container of app:1",
        "test/tag: create name app:live sha256:",
        "network front not found",
        "secret 'TOKEN' has no value",
    ):
        assert words in refused.err, words
    assert daemon.get("/linkspan/v1/runs") == []
    assert daemon.containers() == []
    assert "app:live" not in daemon.images()

    # One of them alone is enough.
    install(plugins, "1.0")
    daemon.restart()
    world()
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", port))
        taken.listen()
        alone = daemon.cli("workflow", "run", "--plan", kept, status=3).err
    assert f"port {port}/tcp is taken" in alone
    daemon.docker("tag", "busybox", "app:live")
    alone = daemon.cli("workflow", "run", "--plan", kept, status=3).err
    assert "test/tag: create name app:live" in alone
    daemon.docker("rmi", "app:live")
    daemon.cli("workflow", "run", "--plan", kept)
    assert "app:live" in daemon.images()
