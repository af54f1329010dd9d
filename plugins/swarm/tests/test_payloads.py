"""Secrets and configs: sealed where they lie, files where they are wanted, gone when nobody wants them.

Files are written in threads, which no test clock knows of: these tests take real time.
"""

import stat
from pathlib import Path

import pytest
import trio

from linkspan.plugins.swarm.seal import Seal
from linkspan.sdk.errors import Internal, InvalidArgument
from linkspan.sdk.model.container import ContainerSpec
from linkspan.sdk.model.service import FileReference, PayloadSpec, UpdatePolicy

QUICK = {"update": UpdatePolicy(monitor_s=0.01)}
SECRET = b"a secret that no disk may have"


async def a_secret(daemon, **facts) -> FileReference:
    made = await daemon.swarm.create_payload(
        "secret", PayloadSpec(name="key", data=SECRET, **facts)
    )
    return FileReference(
        kind="secret", id=made.id, name="key", target="/run/secrets/key", mode=0o400
    )


def source(world) -> Path:
    (container,) = world.containers()
    (mount,) = [m for m in container.spec.mounts if m.target == "/run/secrets/key"]
    assert mount.read_only
    return Path(mount.source)


async def gone(daemon, world) -> None:
    """The service goes, and with its tasks their files."""
    await daemon.swarm.remove_service("web")
    await daemon.until(lambda: not world.containers())


async def test_the_state_has_sealed_data_only(daemon, world):
    await a_secret(daemon)
    entries, _ = await world.state.list("swarm/payloads/")
    assert len(entries) == 1
    assert SECRET not in entries[0].value
    key = daemon.host.state_dir / "payload-key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    kept = [p for p in world.root.rglob("*") if p.is_file() and SECRET in p.read_bytes()]
    assert kept == []


async def test_a_task_gets_a_file_in_memory_that_goes_with_it(daemon, world):
    await daemon.create(**QUICK, files=(await a_secret(daemon),))
    file = source(world)
    assert file.read_bytes() == SECRET
    assert stat.S_IMODE(file.stat().st_mode) == 0o400
    kind = await trio.run_process(["stat", "-f", "-c", "%T", str(file)], capture_stdout=True)
    assert kind.stdout.strip() in (b"tmpfs", b"ramfs")
    await gone(daemon, world)
    assert not file.exists()
    assert not file.parent.parent.exists()


async def test_another_daemon_opens_what_the_last_one_sealed(world):
    async with world.daemon() as first:
        await first.swarm.init()
        file = await a_secret(first)
    async with world.daemon() as second:
        await second.create(**QUICK, files=(file,))
        assert source(world).read_bytes() == SECRET
        await gone(second, world)


async def test_placeholders_of_a_template_are_filled_for_each_task(daemon, world):
    made = await daemon.swarm.create_payload(
        "config", PayloadSpec(name="app", data=b"slot={{.Task.Slot}} {{other}}", template=True)
    )
    file = FileReference(kind="config", id=made.id, name="app", target="/app")
    await daemon.create(**QUICK, replicas=2, files=(file,))
    told = {Path(mount.source).read_bytes() for c in world.containers() for mount in c.spec.mounts}
    assert told == {b"slot=1 {{other}}", b"slot=2 {{other}}"}
    await gone(daemon, world)


async def test_a_template_may_ask_for_more_than_placeholders(daemon, world):
    text = (
        b'{{if eq .Task.Slot "1"}}first{{else}}other{{end}} {{index .Service.Labels "tier"}} '
        b'{{env "PLACE"}} {{secret "/key"}} {{config "app" | len | lt 1}} {{.Node.Platform.OS}}'
    )
    made = await daemon.swarm.create_payload(
        "config", PayloadSpec(name="app", data=text, template=True)
    )
    key = await daemon.swarm.create_payload("secret", PayloadSpec(name="key", data=b"k1"))
    files = (
        FileReference(kind="config", id=made.id, name="app", target="/app"),
        FileReference(kind="secret", id=key.id, name="key", target="/key"),
    )
    container = ContainerSpec(image="app:1", env=("PLACE=slot-{{.Task.Slot}}",))
    await daemon.create(
        **QUICK, replicas=1, files=files, labels={"tier": "front"}, container=container
    )
    (only,) = world.containers()
    told = [Path(mount.source).read_bytes() for mount in only.spec.mounts]
    assert b"first front slot-1 k1 true linux" in told
    await gone(daemon, world)


async def test_two_files_in_one_place_are_refused(daemon):
    file = await a_secret(daemon)
    other = await daemon.swarm.create_payload("secret", PayloadSpec(name="other", data=b"x"))
    clash = FileReference(kind="secret", id=other.id, name="other", target=file.target)
    with pytest.raises(InvalidArgument, match="conflicting target"):
        await daemon.create(**QUICK, files=(file, clash))


async def test_what_was_changed_or_sealed_for_another_purpose_does_not_open(tmp_path):
    seal = Seal(tmp_path / "key")
    sealed = await seal.close(b"data", "secret a")
    assert await seal.open(sealed, "secret a") == b"data"
    for wrong, purpose in (
        (sealed, "secret b"),
        (sealed[:-1] + b"!", "secret a"),
        (b"", "secret a"),
    ):
        with pytest.raises(Internal, match="cannot be opened"):
            await seal.open(wrong, purpose)
    (tmp_path / "short").write_bytes(b"x")
    with pytest.raises(Internal, match="is no key"):
        await Seal(tmp_path / "short").close(b"data", "secret a")
