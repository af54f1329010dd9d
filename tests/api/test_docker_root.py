"""What is in a container's root beside its image."""

import json
import tarfile
from typing import IO, cast

import pytest
from daemon_harness.daemon import Daemon

pytestmark = pytest.mark.system


def test_programs_see_that_they_are_in_a_container_and_nobody_else_does(daemon: Daemon) -> None:
    script = "stat -c '%F %s' /.dockerenv; readlink /etc/mtab; df / | wc -l"
    daemon.docker("run", "--name", "made", "busybox", "sh", "-c", script)
    said = daemon.docker("logs", "made").out.splitlines()
    assert said == ["regular empty file 0", "/proc/mounts", "2"]
    assert daemon.docker("diff", "made").out == ""
    daemon.docker("commit", "made", "kept")
    daemon.docker("save", "-o", archive := str(daemon.folder / "kept.tar"), "kept")
    with tarfile.open(archive) as saved:
        name = json.load(cast(IO[bytes], saved.extractfile("manifest.json")))[0]["Layers"][-1]
        with tarfile.open(fileobj=saved.extractfile(name)) as layer:
            assert {".dockerenv", "etc/mtab"}.isdisjoint(layer.getnames())
