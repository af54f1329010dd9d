"""A data root that is full: the command fails and says why, nothing half-made is seen, the daemon goes on."""

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from daemon_harness.daemon import Daemon, until
from daemon_harness.leftovers import cgroups_below
from daemon_harness.scripted import picture, scripted_registry, sha256, tar_of

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

DISK_MIB = 48
BALLAST = "ballast"


class Disk:
    """A small disk (a tmpfs) that can be filled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self, *, but_bytes: int = 0) -> None:
        """Leave so many bytes free, or none."""
        with (self.path / BALLAST).open("ab") as ballast:
            while (free := self.free() - but_bytes) > 0:
                try:
                    os.write(ballast.fileno(), bytes(min(free, 1 << 20)))
                except OSError:
                    return

    def free(self) -> int:
        """Bytes that are free."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def empty(self) -> None:
        """Take the ballast out."""
        (self.path / BALLAST).unlink()


@pytest.fixture
def disk() -> Iterator[Disk]:
    path = Path(tempfile.mkdtemp(prefix="ls-disk-"))
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(path)], check=True
    )
    yield Disk(path)
    subprocess.run(["umount", str(path)], check=True)
    path.rmdir()


@pytest.fixture
def aboard(disk: Disk, new_daemon: Callable[..., Daemon]) -> Iterator[Daemon]:
    """A daemon whose data root is on the disk, with busybox."""
    daemon = new_daemon(data_root=disk.path / "data").start()
    daemon.build_busybox()
    yield daemon
    if (disk.path / BALLAST).exists():
        disk.empty()
    daemon.close()


def alive(daemon: Daemon) -> set[str]:
    """Ids of containers that have a control group."""
    return {group.name for group in cgroups_below(daemon.cgroup) if len(group.name) == 64}


def no_space(text: str) -> bool:
    """Whether a person is told that it is the disk."""
    return re.search(r"no space|\bdisk\b.* is full", text, re.IGNORECASE) is not None


async def test_a_pull_onto_a_full_disk_leaves_nothing_and_works_once_there_is_space(
    aboard: Daemon, disk: Disk
) -> None:
    before = aboard.images()
    cargo = os.urandom(8 << 20)
    busybox = Path("/bin/busybox").read_bytes()
    disk.fill(but_bytes=5 << 20)
    free = disk.free()
    async with scripted_registry(
        picture(tar_of(("bin/busybox", busybox)), tar_of(("cargo", cargo)))
    ) as registry:
        reference = f"{registry.address}/cargo:1"
        done = await aboard.cli_beside("pull", reference, status=1)
        assert no_space(done.err), done.err
        assert reference in done.err
        assert aboard.images() == before
        done = await aboard.cli_beside("run", reference, status=125)
        assert no_space(done.err), done.err
        disk.empty()
        await aboard.cli_beside("pull", reference)
        said = await aboard.cli_beside(
            "run", "--rm", reference, "/bin/busybox", "wc", "-c", "/cargo"
        )
        assert said.out.split()[0] == str(8 << 20)
    assert free < 6 << 20


@pytest.mark.parametrize(
    "step", ["RUN dd if=/dev/zero of=/big bs=1M count=20 2>&1", "COPY big /big", "ADD big /big"]
)
def test_a_build_on_a_full_disk_leaves_nothing_and_works_once_there_is_space(
    aboard: Daemon, disk: Disk, step: str
) -> None:
    before = aboard.images()
    context = aboard.write_context(f"FROM busybox\n{step}\nRUN ls -l /big\n", big=bytes(9 << 20))
    disk.fill(but_bytes=4 << 20)
    done = aboard.cli("build", "-t", "heavy", context, status=1)
    assert no_space(done.said), done.said
    assert aboard.images() == before
    assert aboard.containers() == []
    until("the failed step's files go", lambda: disk.free() > 2 << 20)
    disk.empty()
    aboard.cli("build", "-t", "heavy", context)
    assert "heavy:latest" in aboard.images()


def test_a_run_on_a_full_disk_is_whole_or_not_there_and_works_once_there_is_space(
    aboard: Daemon, disk: Disk
) -> None:
    aboard.cli("run", "-d", "--name", "before", "busybox", "sleep", "600")
    for tool in (aboard.cli, aboard.docker) * 3:
        disk.fill()
        done = tool("run", "-d", "--name", "late", "busybox", "sleep", "600", status=None)
        if done.status == 0:  # it takes hardly any space, and what is freed inside a file may do
            assert aboard.cli("exec", "late", "echo", "well").out == "well\n"
        else:
            assert done.status == 125
            assert no_space(done.err), done.err
            assert str(disk.path) in done.err or "late" in done.err, done.err
        if len(aboard.containers()) == 2:
            if done.status:  # whole, but not started, as with Docker
                assert aboard.state("late")["Status"] == "created"
            aboard.cli("rm", "-f", "late")
    # What runs already is not touched by it, and is told of the disk by the kernel.
    disk.fill()
    assert aboard.cli("exec", "before", "echo", "well").out == "well\n"
    # More than what the removal of the last one, which goes on in the background, may set free.
    write = "dd if=/dev/zero of=/tmp/x bs=1M count=4"
    done = aboard.cli("exec", "before", "sh", "-c", write, status=1)
    assert no_space(done.err), done.err
    disk.empty()
    assert aboard.cli("run", "--rm", "--name", "late", "busybox", "echo", "well").out == "well\n"
    until("only one runs", lambda: len(alive(aboard)) == 1)


def test_a_volume_on_a_full_disk_is_whole_or_refused_and_works_once_there_is_space(
    aboard: Daemon, disk: Disk
) -> None:
    disk.fill()
    done = aboard.cli("volume", "create", "hold", status=None)
    if done.status != 0:
        assert no_space(done.err), done.err
        assert "hold" in done.err
        assert aboard.volumes() == set()
    done = aboard.cli("run", "--name", "late", "-v", "hold:/hold", "busybox", "true", status=None)
    if done.status != 0:  # records may find room in what was set aside for them
        assert done.status == 125
        assert no_space(done.err), done.err
    disk.empty()
    if done.status != 0 and aboard.containers():  # whole, but not started, as with Docker
        assert aboard.state("late")["Status"] == "created"
        aboard.cli("start", "-a", "late")
    aboard.cli("run", "--rm", "-v", "hold:/hold", "busybox", "sh", "-c", "echo kept > /hold/file")
    assert (
        aboard.cli("run", "--rm", "-v", "hold:/hold", "busybox", "cat", "/hold/file").out
        == "kept\n"
    )


def test_a_full_disk_can_be_emptied_with_our_own_commands(aboard: Daemon, disk: Disk) -> None:
    aboard.cli(
        "run",
        "-d",
        "--name",
        "fat",
        "busybox",
        "sh",
        "-c",
        "dd if=/dev/zero of=/fat bs=1M; sleep 600",
    )
    until("the container has filled the disk", lambda: disk.free() == 0)
    aboard.cli("rm", "-f", "fat")
    until("its files go", lambda: disk.free() > 30 << 20)
    assert aboard.cli("run", "--rm", "busybox", "echo", "well").out == "well\n"


def test_a_daemon_starts_on_a_full_disk_with_what_it_had(aboard: Daemon, disk: Disk) -> None:
    aboard.cli("run", "-d", "--name", "before", "busybox", "sleep", "600")
    disk.fill()
    aboard.kill9()
    aboard.start()
    assert aboard.state("before")["Running"]
    assert aboard.cli("exec", "before", "echo", "well").out == "well\n"
    assert aboard.images() == {"busybox:latest"}
    disk.empty()
    assert aboard.cli("run", "--rm", "busybox", "echo", "well").out == "well\n"


def test_a_workflow_on_a_full_disk_fails_and_says_why(
    aboard: Daemon, disk: Disk, tmp_path: Path
) -> None:
    pipeline = tmp_path / "short.yaml"
    pipeline.write_text(
        "linkspan: v1\nname: short\non: manual\njobs:\n  one:\n    image: busybox\n"
        "    steps:\n      - run: echo well\n"
    )
    disk.fill()
    done = aboard.cli("workflow", "run", pipeline, status=1)
    assert no_space(done.said), done.said
    assert aboard.containers() == []
    disk.empty()
    assert "well" in aboard.cli("workflow", "run", pipeline, "--verbose").said


def test_loads_copies_and_commits_on_a_full_disk_say_why_and_work_once_there_is_space(
    aboard: Daemon, disk: Disk, tmp_path: Path
) -> None:
    cargo = tmp_path / "cargo"
    cargo.write_bytes(os.urandom(6 << 20))
    aboard.docker("create", "--name", "box", "busybox")
    aboard.docker("create", "--name", "heavy", "busybox")
    aboard.docker("cp", cargo, "heavy:/cargo")
    aboard.docker("commit", "heavy", "loaded:1")
    aboard.docker("save", "-o", tmp_path / "saved.tar", "loaded:1")
    aboard.docker("rmi", "loaded:1")
    before = aboard.images()
    trash = aboard.data_root / "snapshots-overlay" / "trash"
    for words in (
        ("load", "-i", tmp_path / "saved.tar"),
        ("cp", cargo, "box:/cargo"),
        ("commit", "heavy", "half:1"),
    ):
        # What was removed before gives its space back a moment later.
        until("the trash is empty", lambda: not any(trash.iterdir()))
        disk.fill(but_bytes=3 << 20)
        done = aboard.docker(*words, status=1)
        assert no_space(done.said), done.said
        assert aboard.images() == before
        if words[0] == "cp":
            # What has arrived of a file stays, as with any copy.
            aboard.docker("rm", "box")
        until(f"what was half-made of {words[0]} goes", lambda: disk.free() > 2 << 20)
    disk.empty()
    assert aboard.docker("load", "-i", tmp_path / "saved.tar").out == "Loaded image: loaded:1\n"
    said = aboard.docker("run", "--rm", "loaded:1", "wc", "-c", "/cargo").out
    assert said.split()[0] == str(6 << 20)
    aboard.docker("commit", "heavy", "whole:1")


def test_a_volume_is_never_filled_halfway_with_what_the_image_has(
    aboard: Daemon, disk: Disk
) -> None:
    stock = {"big": os.urandom(6 << 20), "small": b"1"}
    context = aboard.write_context("FROM busybox\nCOPY big small /stock/\n", **stock)
    aboard.docker("build", "-t", "stocked", context)
    disk.fill(but_bytes=3 << 20)
    run = ("run", "--rm", "-v", "hold:/stock", "stocked")
    done = aboard.docker(*run, "true", status=None)
    assert done.status in (125, 126, 127), done
    assert no_space(done.err), done.err
    disk.empty()
    sums = aboard.docker(*run, "sh", "-c", "cd /stock; sha256sum *").out
    assert sums == "".join(f"{sha256(data)[7:]}  {name}\n" for name, data in stock.items())


def test_a_container_that_talks_on_a_full_disk_goes_on_and_is_logged_again_afterwards(
    aboard: Daemon, disk: Disk
) -> None:
    begin = "i=0; pad=$(seq -s ' ' 400)"
    again = "i=$((i+1)); echo $i > /said/last; echo $i $pad; sleep 0.02"
    talk = f"{begin}; while true; do {again}; done"
    aboard.docker("run", "-d", "--name", "talker", "--tmpfs", "/said", "busybox", "sh", "-c", talk)

    def said() -> int:
        return int(aboard.docker("exec", "talker", "cat", "/said/last").out or 0)

    def said_while_full() -> int:
        disk.fill()  # what somebody has set free since
        return said()

    def logged() -> list[int]:
        # A line may be torn where the disk was full.
        whole = re.findall(r"^(\d+) 1 2 .* 400$", aboard.docker("logs", "talker").out, re.MULTILINE)
        return [int(number) for number in whole]

    until("it is logged", lambda: len(logged()) > 3)
    full = said_while_full()
    until("it goes on without a log", lambda: said_while_full() > full + 100)
    disk.empty()
    emptied = said()
    until("it is logged again", lambda: logged()[-1] > emptied)
    lines = logged()
    assert len(lines) < lines[-1], "what could not be written is lost, as in Docker"
    assert aboard.state("talker")["Running"]
    assert not aboard.complaints()
