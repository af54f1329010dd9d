"""A process with the driver in it, for tests that kill a daemon: does what its arguments say.

``run``      prepare the process, start a container, print its id and pid, then wait for a signal
``recover``  the same, but recover, and print what was found, what an exec says, and the log
"""

import json
import os
import sys
from pathlib import Path

import trio

from linkspan.plugins.oci_runtime.config import OciConfig
from linkspan.plugins.oci_runtime.driver import OciRuntime
from linkspan.sdk.drivers.runtime import BundleMount, CreateRequest, ProcessSpec
from linkspan.sdk.model.process import LogQuery
from linkspan.sdk.testing.host import FakeHost

CONFIG = OciConfig(cgroup_parent=f"/linkspan-{os.environ['LINKSPAN_TESTS_MARK']}")
ENV = ("PATH=/bin",)


async def main(verb: str, root: Path, rootfs: Path) -> None:
    async with trio.open_nursery() as nursery:
        host = FakeHost(root=root, nursery=nursery)
        async with OciRuntime.open(CONFIG, host) as runtime:
            await runtime.recover()
            await (run if verb == "run" else recover)(runtime, rootfs)
        nursery.cancel_scope.cancel()


async def run(runtime: OciRuntime, rootfs: Path) -> None:
    for number, script in enumerate(("while true; do echo tick; sleep 0.1; done", "exit 5")):
        request = CreateRequest(
            container_id=str(number) * 64,
            name=f"c{number}",
            rootfs=rootfs,
            process=ProcessSpec(args=("/bin/sh", "-c", script), env=ENV),
            mounts=(BundleMount(destination="/mnt", type="tmpfs"),),
        )
        await runtime.create(request)
        await runtime.start(request.container_id)
    for number in (2, 3, 4):
        created = CreateRequest(
            container_id=str(number) * 64,
            name=f"c{number}",
            rootfs=rootfs,
            process=ProcessSpec(args=("/bin/true",), env=ENV),
        )
        await runtime.create(created)
    await runtime.wait("1" * 64)
    runtime.stir()
    process = ProcessSpec(args=("/bin/sleep", "600"), env=ENV)
    async with runtime.exec("0" * 64, process) as session:
        for _ in range(500):
            if session.pid:
                break
            await trio.sleep(0.01)
        print(json.dumps({"exec": session.pid, "pids": await runtime.pids("0" * 64)}), flush=True)
        await trio.sleep_forever()


async def recover(runtime: OciRuntime, rootfs: Path) -> None:
    found = {
        item.container_id[0]: {
            "pid": item.pid,
            "code": None if item.exit is None else item.exit.exit_code,
        }
        for item in await runtime.recovered()
    }
    process = ProcessSpec(args=("/bin/echo", "inside"), env=ENV)
    async with runtime.exec("0" * 64, process) as session:
        chunk = await session.receive()
        code = await session.wait()
    async with runtime.logs("0" * 64, LogQuery(tail=1)) as records:
        log = [record.data.decode() async for record in records]
    pids = await runtime.pids("0" * 64)
    await runtime.delete("0" * 64)
    await runtime.delete("1" * 64)
    said = chunk.data.decode() if chunk else ""
    print(json.dumps({"found": found, "exec": [said, code], "log": log, "pids": pids}), flush=True)


if __name__ == "__main__":
    OciRuntime.prepare_process(CONFIG, Path(sys.argv[2]) / "run")
    trio.run(main, sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
