"""testcontainers for Python: containers that live as long as a test's block."""

import urllib.request
from pathlib import Path

import pytest
from daemon_harness.daemon import Daemon, until

pytestmark = pytest.mark.system

WEB = "mkdir /www; echo hi > /www/index.html; echo ready; exec httpd -f -p 80 -h /www"


@pytest.fixture(autouse=True)
def _no_reaper(docker_environment: Daemon) -> None:
    """Its reaper is an image of the Internet's; here each block removes what it made."""
    from testcontainers.core.config import testcontainers_config

    testcontainers_config.ryuk_disabled = True


def _page(address: str) -> bytes:
    try:
        with urllib.request.urlopen(f"http://{address}/", timeout=5) as answer:
            return bytes(answer.read())
    except OSError:
        return b""


def test_a_container_serves_and_goes_with_its_block(daemon: Daemon) -> None:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

    web = (
        DockerContainer("busybox")
        .with_command(["sh", "-c", WEB])
        .with_exposed_ports(80)
        .with_env("WORD", "said")
        .waiting_for(LogMessageWaitStrategy("ready"))
    )
    with web as container:
        address = f"{container.get_container_host_ip()}:{container.get_exposed_port(80)}"
        assert until("the page answers", lambda: _page(address)) == b"hi\n"
        done = container.exec(["sh", "-c", "echo $WORD; exit 4"])
        assert (done.exit_code, done.output) == (4, b"said\n")
        assert container.get_logs() == (b"ready\n", b"")
    assert daemon.containers() == []


def test_containers_of_a_network_find_each_other_by_alias(daemon: Daemon) -> None:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.network import Network

    with Network() as network:
        one = DockerContainer("busybox").with_command("sleep 1000")
        two = DockerContainer("busybox").with_command("sleep 1000")
        with one.with_network(network).with_network_aliases("first"), two.with_network(network):
            assert two.exec("ping -c 1 first").exit_code == 0
    assert len(daemon.get("/networks")) == 3


def test_an_image_is_built_for_a_block(daemon: Daemon, tmp_path: Path) -> None:
    from testcontainers.core.image import DockerImage

    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo made > /made\n")
    with DockerImage(path=str(tmp_path), tag="tc:1"):
        assert "tc:1" in daemon.images()
    assert "tc:1" not in daemon.images()
