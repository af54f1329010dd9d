"""RUN --mount: what its text means, and what the process gets."""

from pathlib import Path

import pytest
import trio
import trio.testing

from linkspan.plugins.dockerfile_builder.fault import DockerfileError
from linkspan.plugins.dockerfile_builder.mount_option import MountError, RunMount, parse_mount


def read(text):
    return parse_mount(text, lambda word: word)


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("target=/t", RunMount(kind="bind", target="/t", read_only=True)),
        (
            "type=bind,from=one,src=/a,dst=b,rw",
            RunMount(kind="bind", target="b", source_from="one", source="/a"),
        ),
        (
            "type=cache,target=/c,id=x,sharing=locked,mode=0700,uid=7,gid=8",
            RunMount(kind="cache", target="/c", id="x", sharing="locked", mode=0o700, uid=7, gid=8),
        ),
        ("type=tmpfs,target=/t,size=1m", RunMount(kind="tmpfs", target="/t", size_bytes=1 << 20)),
        (
            "type=secret,id=a/tok",
            RunMount(kind="secret", id="a/tok", target="/run/secrets/tok"),
        ),
        (
            "type=secret,id=tok,env=TOK,required=true",
            RunMount(kind="secret", id="tok", env="TOK", required=True),
        ),
        (
            'type=secret,"target=/a,b"',
            RunMount(kind="secret", id="a,b", target="/a,b"),
        ),
    ],
)
def test_a_mount_is_read(text, mount):
    assert read(text) == mount


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("type=cash,target=/c", 'unsupported mount type "cash" (did you mean cache?)'),
        ("type=cache", "target is required"),
        ("x=y,target=/c", "unexpected key 'x' in 'x=y'"),
        ("target", "invalid field 'target' must be a key=value pair"),
        ("target=/t,mode=1", 'mode not allowed for "bind" type mounts'),
        ("type=cache,target=/t,sharing=x", 'unsupported sharing value "x"'),
        ("type=cache,target=/t,mode=9", "invalid value 9 for mode"),
        ("type=cache,target=/t,uid=-1", "invalid value -1 for uid"),
        ("type=tmpfs,target=/t,size=x", "invalid value for size: x"),
        ("type=secret", "invalid secret mount. one of source, target required"),
        ("from=$X,target=/c", "'from' doesn't support variable expansion"),
        ('"target=/c', "failed to parse csv mounts"),
    ],
)
def test_a_bad_mount_is_refused_in_dockers_words(text, why):
    with pytest.raises(MountError, match=r".") as caught:
        read(text)
    assert why in str(caught.value)


def test_the_root_is_no_mount_point():
    with pytest.raises(MountError, match='invalid mount target "/"'):
        read("target=/").destination("/w")
    assert read("target=a/../b").destination("/w") == "/w/b"


@pytest.fixture
def watched(workshop):
    """Runs that note what is behind their mounts; each step may write to them."""
    seen = []

    async def runner(run, folder, say):
        found = {}
        for mount in run.mounts:
            source = mount.source
            if source is None:
                found[mount.target] = f"tmpfs {mount.size_bytes}"
            elif source.is_dir():
                found[mount.target] = sorted(path.name for path in source.iterdir())
                if not mount.read_only:
                    (source / f"written{len(seen)}").touch()
            else:
                found[mount.target] = source.read_text()
        seen.append(found)
        return 0

    workshop.engine.runner = runner
    return seen


def dockerfile(*lines, **files):
    return {"Dockerfile": "\n".join(["FROM scratch", *lines, ""]), **files}


async def test_a_cache_outlives_builds_and_is_not_in_the_image(workshop, watched):
    await workshop.build(dockerfile("RUN --mount=type=cache,target=/c one"), tags=("app",))
    await workshop.build(dockerfile("WORKDIR /c", "RUN --mount=type=cache,target=. two"))
    await workshop.build(dockerfile("RUN --mount=type=cache,target=/c,id=other one b"))
    assert watched == [{"/c": []}, {"/c": ["written0"]}, {"/c": []}]
    assert not Path(workshop.root("app"), "c").exists()


async def test_a_step_without_cache_begins_with_an_empty_folder(workshop, watched):
    text = dockerfile("RUN --mount=type=cache,target=/c one")
    await workshop.build(text)
    await workshop.build(text, no_cache=True)
    await workshop.build(dockerfile("RUN --mount=type=cache,target=/c two"))
    assert watched == [{"/c": []}, {"/c": []}, {"/c": ["written1"]}]


async def test_a_cache_can_begin_with_what_a_stage_holds(workshop, watched):
    text = {
        "Dockerfile": "FROM scratch AS seed\nCOPY a /s/a\nFROM scratch\n"
        "RUN --mount=type=cache,target=/c,from=seed,source=/s x\n",
        "a": "A",
    }
    await workshop.build(text)
    assert watched == [{"/c": ["a"]}]


@pytest.mark.parametrize("sharing", ["shared", "private", "locked"])
async def test_sharing_says_who_may_use_a_cache_at_once(workshop, sharing):
    folders = {}
    begun = {"first": trio.Event(), "second": trio.Event()}
    waiting = {"first": trio.Event(), "second": trio.Event()}

    async def runner(run, folder, say):
        name = run.args[-1]
        folders[name] = run.mounts[0].source
        begun[name].set()
        await waiting[name].wait()
        return 0

    async def until(name):
        await begun[name].wait()

    workshop.engine.runner = runner
    async with trio.open_nursery() as nursery:
        with trio.fail_after(30):
            for name in ("first", "second"):
                text = dockerfile(f"RUN --mount=type=cache,target=/c,sharing={sharing} {name}")
                nursery.start_soon(workshop.build, text)
                if name == "first" or sharing != "locked":
                    await until(name)
            if sharing == "locked":
                await trio.testing.wait_all_tasks_blocked(0.05)
                assert "second" not in folders
                waiting["first"].set()
                await until("second")
        assert (folders["first"] == folders["second"]) == (sharing != "private")
        for event in waiting.values():
            event.set()


async def test_a_bind_shows_the_context_less_what_is_left_out(workshop, watched, tmp_path):
    context = tmp_path / "context"
    (context / "src").mkdir(parents=True)
    (context / "src/kept").write_text("K")
    (context / "src/left").write_text("L")
    (context / ".dockerignore").write_text("src/left\n")
    (context / "Dockerfile").write_text(
        "FROM scratch\nRUN --mount=source=src,target=/s,rw --mount=source=src/kept,target=/k x\n"
    )
    first = await workshop.build(context)
    assert watched == [{"/s": ["kept"], "/k": "K"}]
    assert sorted(path.name for path in (context / "src").iterdir()) == ["kept", "left"]
    again = await workshop.build(context)
    assert (first[0].cached_steps, again[0].cached_steps) == (0, 1)
    (context / "src/kept").write_text("other")
    changed = await workshop.build(context)
    assert changed[0].cached_steps == 0


async def test_a_bind_from_a_stage_builds_it(workshop, watched):
    text = {
        "Dockerfile": "FROM scratch AS one\nCOPY a /d/a\nFROM scratch\n"
        "RUN --mount=from=one,source=/d,target=/d x\n"
        "RUN --mount=from=one,target=/d,rw y\n",
        "a": "A",
    }
    await workshop.build(text)
    assert watched == [{"/d": ["a"]}, {"/d": ["d"]}]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("RUN --mount=source=nope,target=/x y", '"/nope": not found'),
        ("RUN --mount=target=/ y", 'invalid mount target "/"'),
        ("RUN --mount=type=secret,id=zz,required y", "secret zz: not found"),
        ("RUN --mount=type=ssh y", "type=ssh needs docker's BuildKit client"),
        ("RUN --mount=type=$X,target=/x y", 'unsupported mount type ""'),
    ],
)
async def test_a_mount_that_cannot_be_made_names_its_line(workshop, watched, line, why):
    with pytest.raises(DockerfileError, match="Dockerfile:2: ") as caught:
        await workshop.build(dockerfile(line))
    assert why in str(caught.value)
    assert watched == []


async def test_a_secret_as_a_variable_leaves_no_trace(workshop, fake_host):
    run = "RUN --mount=type=secret,id=tok,env=TOK use"
    result, said = await workshop.build(dockerfile(run), secrets={"tok": b"hunter2"})
    assert "TOK=hunter2" in workshop.engine.runs[-1].env
    raw = repr(workshop.image(result.image_id).config.raw)
    records = (fake_host.state_dir / "steps.jsonl").read_text()
    assert "hunter2" not in raw + said + records
    again, _ = await workshop.build(dockerfile(run), secrets={"tok": b"other"})
    assert again.cached_steps == 1


async def test_a_secret_that_is_not_required_may_be_missing(workshop):
    await workshop.build(dockerfile("RUN --mount=type=secret,id=tok use"))
    assert workshop.engine.runs[-1].mounts == ()


@pytest.mark.system
async def test_a_secret_lies_in_memory_only(workshop, fake_host):
    seen = []

    async def runner(run, folder, say):
        for mount in run.mounts:
            assert mount.read_only
            info = mount.source.stat()
            mounts = Path("/proc/self/mounts").read_text()
            assert f"tmpfs {mount.source.parent} tmpfs" in mounts
            seen.append((mount.target, mount.source.read_bytes(), info.st_mode & 0o777))
        return 0

    workshop.engine.runner = runner
    await workshop.build(
        dockerfile(
            "RUN --mount=type=secret,id=tok"
            " --mount=type=secret,id=tok,target=/etc/x/tok,mode=0444,uid=7 use"
        ),
        secrets={"tok": b"hunter2"},
        tags=("app",),
    )
    assert seen == [("/run/secrets/tok", b"hunter2", 0o400), ("/etc/x/tok", b"hunter2", 0o444)]
    assert list((fake_host.run_dir / "secrets").iterdir()) == []
    assert list(Path(workshop.root("app")).iterdir()) == [], "a mount point is in the layer"


async def test_a_mount_point_that_holds_something_stays(workshop):
    async def runner(run, folder, say):
        Path(folder, "t", "made").touch()
        return 0

    workshop.engine.runner = runner
    await workshop.build(
        dockerfile("RUN --mount=type=tmpfs,target=/t --mount=type=tmpfs,target=/u x"),
        tags=("app",),
    )
    assert [path.name for path in Path(workshop.root("app")).iterdir()] == ["t"]
