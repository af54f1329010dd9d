"""How long the oci runtime takes for create + start + exit of ``true``, and for an exec of it.

Run as root: ``.venv/bin/python benchmarks/runtime_start.py [N] [crun|runc]``. Uses /bin/busybox as root folder.
"""

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import trio

from linkspan.plugins.oci_runtime.config import OciConfig
from linkspan.plugins.oci_runtime.driver import OciRuntime
from linkspan.sdk.drivers.runtime import CreateRequest, ProcessSpec
from linkspan.sdk.testing.host import FakeHost


def _rootfs(folder: Path) -> Path:
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
        (folder / name).mkdir(parents=True)
    shutil.copy2("/bin/busybox", folder / "bin/busybox")
    for name in ("true", "sleep", "sh"):
        (folder / "bin" / name).symlink_to("busybox")
    return folder


def _show(what: str, times_ms: list[float]) -> None:
    print(
        f"{what:24} median {statistics.median(times_ms):6.2f} ms"
        f"  min {min(times_ms):6.2f}  max {max(times_ms):6.2f}  n={len(times_ms)}"
    )


async def _measure(config: OciConfig, folder: Path, count: int, pause_s: float) -> None:
    async with trio.open_nursery() as nursery:
        host = FakeHost(root=folder, nursery=nursery)
        rootfs = _rootfs(folder / "rootfs")
        async with OciRuntime.open(config, host) as runtime:
            starts, execs = [], []
            for number in range(count + 1):
                await trio.sleep(pause_s)
                runtime.stir()
                await trio.sleep(0.01)  # a client's first bytes come that much before its start
                request = CreateRequest(
                    container_id=f"{number:064x}",
                    name=f"bench-{number}",
                    rootfs=rootfs,
                    process=ProcessSpec(args=("/bin/true",), env=("PATH=/bin",)),
                )
                begin = time.perf_counter()
                await runtime.create(request)
                await runtime.start(request.container_id)
                await runtime.wait(request.container_id)
                starts.append((time.perf_counter() - begin) * 1e3)
                await runtime.delete(request.container_id)
            _show(f"start, {pause_s} s of rest", starts[1:])
            held = CreateRequest(
                container_id="f" * 64,
                name="bench",
                rootfs=rootfs,
                process=ProcessSpec(args=("/bin/sleep", "600"), env=("PATH=/bin",)),
            )
            await runtime.create(held)
            await runtime.start(held.container_id)
            for _ in range(count):
                await trio.sleep(pause_s)
                runtime.stir()
                await trio.sleep(0.01)
                begin = time.perf_counter()
                process = ProcessSpec(args=("/bin/true",), env=("PATH=/bin",))
                async with runtime.exec(held.container_id, process) as session:
                    await session.wait()
                    execs.append((time.perf_counter() - begin) * 1e3)
            _show(f"exec, {pause_s} s of rest", execs)
            await runtime.delete(held.container_id)
        nursery.cancel_scope.cancel()


def main() -> None:
    """Measure back to back and after half a second of rest."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    runtime = shutil.which(sys.argv[2]) if len(sys.argv) > 2 else None
    config = OciConfig(runtime=runtime or "auto", cgroup_parent="/linkspan-bench")
    with tempfile.TemporaryDirectory(prefix="lsb-", ignore_cleanup_errors=True) as name:
        OciRuntime.prepare_process(config, Path(name) / "run")
        for number, pause_s in enumerate((0.0, 0.5)):
            folder = Path(name) / str(number)
            folder.mkdir()
            trio.run(_measure, config, folder, count, pause_s)


if __name__ == "__main__":
    main()
