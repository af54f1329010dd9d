"""testcontainers for Python: containers that live as long as a test's block."""

import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from daemon_harness.daemon import Daemon, until

pytestmark = pytest.mark.system

WEB = "mkdir /www; echo hi > /www/index.html; echo ready; exec httpd -f -p 80 -h /www"


@pytest.fixture(autouse=True)
def _no_reaper(docker_environment: Daemon) -> None:
    """Its reaper is an image of the Internet's; in these tests each block removes what it made."""
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


def test_files_go_in_and_out_and_kept_folders_are_mounted(daemon: Daemon, tmp_path: Path) -> None:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import ExecWaitStrategy

    (tmp_path / "kept").mkdir()
    (tmp_path / "file").write_text("text")
    box = (
        DockerContainer("busybox")
        .with_command(["sh", "-c", "cat /in/early > /kept/seen; exec sleep 1000"])
        .with_volume_mapping(str(tmp_path / "kept"), "/kept", "rw")
        .with_tmpfs_mount("/scratch", "size=1m")
        .with_copy_into_container(b"early", "/in/early")
        .waiting_for(ExecWaitStrategy(["test", "-s", "/kept/seen"]))
    )
    with box as container:
        assert (tmp_path / "kept/seen").read_text() == "early"
        container.copy_into_container(tmp_path / "file", "/tmp/late")
        container.copy_from_container("/tmp/late", tmp_path / "back")
        assert (tmp_path / "back").read_text() == "text"
        mounts = container.exec(["cat", "/proc/mounts"]).output.decode()
        assert "tmpfs /scratch tmpfs" in mounts
        info = container.get_container_info()
        assert info is not None
        assert info.State is not None
        assert info.State.Status == "running"


KILLED = """
import sys, time
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
testcontainers_config.ryuk_image = "reaper"
DockerContainer("busybox").with_command("sleep 1000").with_name("orphan").start()
print("begun", flush=True)
time.sleep(1000)
"""


def _build_reaper(daemon: Daemon, folder: Path) -> None:
    """An image with the perl that every Debian has, for what the reaper does."""
    needed = subprocess.run(["ldd", "/usr/bin/perl"], capture_output=True, text=True, check=True)
    files = [word for word in needed.stdout.split() if word.startswith("/")]
    base = next(Path("/usr/lib").glob("*/perl-base"))
    shutil.copytree(base, folder / str(base)[1:])
    for file in ("/usr/bin/perl", *files):
        copy = folder / file[1:]
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    shutil.copy(Path(__file__).parent / "reaper.pl", folder)
    run = 'ENTRYPOINT ["/usr/bin/perl", "/reaper.pl"]'
    (folder / "Dockerfile").write_text(f"FROM busybox\nCOPY . /\n{run}\n")
    daemon.docker("build", "-q", "-t", "reaper", str(folder))


def test_a_reaper_with_the_socket_removes_what_a_killed_test_left(
    daemon: Daemon, tmp_path: Path
) -> None:
    _build_reaper(daemon, tmp_path)
    process = subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        assert len(daemon.containers()) == 2
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert until("both are gone", lambda: daemon.containers() == [])
