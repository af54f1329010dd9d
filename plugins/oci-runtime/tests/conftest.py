import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from left_behind import mark

from linkspan.plugins.oci_runtime.config import OciConfig
from linkspan.plugins.oci_runtime.driver import OciRuntime
from linkspan.sdk.testing.conformance.runtime import RuntimeBench
from linkspan.sdk.testing.host import FakeHost

BUSYBOX = Path("/bin/busybox")


@pytest.fixture(scope="session")
def busybox_rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root folder of busybox: programs as links to it, users, mount points."""
    folder = tmp_path_factory.mktemp("rootfs")
    folder.chmod(0o755)
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp", "root", "home/app"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    shutil.copy2(BUSYBOX, folder / "bin/busybox")
    names = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True)
    for name in names.stdout.split():
        if name != "busybox":
            (folder / "bin" / name).symlink_to("busybox")
    (folder / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:app:/home/app:/bin/sh\n"
    )
    (folder / "etc/group").write_text("root:x:0:\nwheel:x:10:root,app\napp:x:1001:\nlog:x:40:\n")
    return folder


@pytest.fixture(params=["crun", "runc"])
def config(request: pytest.FixtureRequest) -> OciConfig:
    return OciConfig(runtime=request.param, cgroup_parent=f"/linkspan-{mark()}")


@pytest.fixture
async def bench(
    config: OciConfig, busybox_rootfs: Path, fake_host: FakeHost
) -> AsyncIterator[RuntimeBench]:
    async with OciRuntime.open(config, fake_host) as runtime:
        await runtime.recover()
        bench = RuntimeBench(runtime, busybox_rootfs)
        try:
            yield bench
        finally:
            with trio.CancelScope(shield=True):
                for container_id in bench.made:
                    await runtime.delete(container_id)
