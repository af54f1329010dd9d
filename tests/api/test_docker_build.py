"""Builds: the stock docker CLI, the classic stream, and what only ``linkspan build`` can ask."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
from pathlib import Path
from typing import Any

import pytest
from daemon_harness.daemon import Daemon, until
from daemon_harness.leftovers import cgroups_below

pytestmark = pytest.mark.system


def tar_of(**files: str) -> bytes:
    """A build context; ``Dockerfile`` is among the files."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return data.getvalue()


def said(daemon: Daemon, query: str, body: bytes) -> list[dict[str, Any]]:
    """What ``POST /build`` answers."""
    with daemon.stream("POST", f"/build?{query}", body=body) as lines:
        return list(lines)


def text_of(records: list[dict[str, Any]]) -> str:
    return "".join(record.get("stream", "") for record in records)


def running(daemon: Daemon) -> list[Path]:
    """Control groups of containers and commands (64 hex digits)."""
    return [group for group in cgroups_below(daemon.cgroup) if len(group.name) == 64]


def secret_mounts(daemon: Daemon) -> list[str]:
    """Where secrets lie now, in the daemon's own mount namespace."""
    lines = Path(f"/proc/{daemon.pid}/mountinfo").read_text().splitlines()
    points = [line.split()[4] for line in lines]
    return [point for point in points if "/secrets/" in point]


def ran(daemon: Daemon, image: str, *words: str) -> str:
    return daemon.docker("run", "--rm", "--network", "none", image, *words).out


def test_the_stream_is_word_for_word_the_classic_builders(daemon: Daemon) -> None:
    body = tar_of(
        Dockerfile="ARG T=latest\nFROM busybox:$T AS one\nRUN echo hi; echo no >&2\nCMD a\n"
    )
    records = said(daemon, "t=words:1&t=words:2&rm=1&version=1", body)
    base, built = (
        json.loads(daemon.docker("image", "inspect", name).out)[0]["Id"][7:]
        for name in ("busybox", "words:1")
    )
    streams = [record["stream"] for record in records if "stream" in record]
    container = next(s for s in streams if "Running in" in s).split()[-1]
    layer = streams[streams.index("Step 4/4 : CMD a") - 1].split()[-1]
    wanted = [
        *("Step 1/4 : ARG T=latest", "\n"),
        *("Step 2/4 : FROM busybox:$T AS one", "\n", f" ---> {base[:12]}\n"),
        *("Step 3/4 : RUN echo hi; echo no >&2", "\n", f" ---> Running in {container}\n"),
        *("hi\n", "\x1b[91mno\n\x1b[0m", f" ---> Removed intermediate container {container}\n"),
        *(f" ---> {layer}\n", "Step 4/4 : CMD a", "\n", f" ---> {built[:12]}\n"),
        f"Successfully built {built[:12]}\n",
        *("Successfully tagged words:1\n", "Successfully tagged words:2\n"),
    ]
    assert streams == wanted or sorted(streams) == sorted(wanted)  # two pipes have no order
    assert {"aux": {"ID": f"sha256:{built}"}} in records
    again = text_of(said(daemon, "t=words:1", body))
    assert " ---> Using cache\n" in again
    assert "Running in" not in again
    assert said(daemon, "q=1", body) == [{"stream": f"sha256:{built}\n"}]
    daemon.docker("rmi", "words:1", "words:2")


def test_a_failing_command_ends_the_stream_with_its_code(daemon: Daemon) -> None:
    records = said(daemon, "", tar_of(Dockerfile="FROM busybox\nRUN exit 7\n"))
    message = "The command '/bin/sh -c exit 7' returned a non-zero code: 7"
    assert records[-1]["error"] == message
    detail = records[-1]["errorDetail"]
    assert (detail["code"], detail["message"]) == (7, message)


@pytest.mark.parametrize(
    ("query", "text", "status", "why"),
    [
        ("", "FROM busybox\nFETCH x\n", 400, "unknown instruction: FETCH"),
        ("dockerfile=No", "FROM busybox\n", 400, "Cannot locate specified Dockerfile: No"),
        ("t=Bad+Name", "FROM busybox\n", 400, "invalid reference format"),
        ("target=no", "FROM busybox\n", 400, "could not be found"),
        ("squash=1", "FROM busybox\n", 501, "squash"),
        ("version=2", "FROM busybox\n", 400, "needs a session"),
        ("buildargs=[]", "FROM busybox\n", 400, "buildargs"),
    ],
)
def test_what_is_wrong_before_the_first_step_is_an_http_error(
    daemon: Daemon, query: str, text: str, status: int, why: str
) -> None:
    answered, body = daemon.request("POST", f"/build?{query}", tar_of(Dockerfile=text))
    assert (answered, why in body) == (status, True), body


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_context_may_be_compressed(daemon: Daemon, pack: Any) -> None:
    records = said(daemon, "q=1", pack(tar_of(Dockerfile="FROM busybox\nCOPY a /a\n", a="A")))
    assert records[0]["stream"].startswith("sha256:")


def test_limits_and_hosts_reach_the_commands(daemon: Daemon) -> None:
    script = (
        "ulimit -n; cat /etc/hosts; cat /proc/self/cgroup; df -m /dev/shm | tail -1;"
        " cat /sys/fs/cgroup/memory*/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null"
    )
    context = daemon.write_context(f"FROM busybox\nRUN {script} ; true\n")
    out = daemon.docker(
        *("build", "--no-cache", "--ulimit", "nofile=123:456", "--add-host", "db:10.1.2.3"),
        *("--memory", "256m", "--shm-size", "32m", "--network", "none", context),
    ).out
    assert "123\n" in out
    assert "10.1.2.3\tdb" in out
    assert str(256 << 20) in out
    assert " 32 " in " ".join(out.split())


def test_inline_documents_and_their_programs_run(daemon: Daemon) -> None:
    context = daemon.write_context(
        "FROM busybox\n"
        "RUN <<EOF\necho one > /one\nfalse\necho two >> /one\nEOF\n"
        "RUN <<P\n#!/bin/sh -e\nbasename $0 > /name\nP\n"
        "RUN cat <<A > /a && cat <<B > /b\nfirst\nA\nsecond\nB\n"
        "ARG V=7\nCOPY --chmod=755 <<-script /bin/said\n\t#!/bin/sh\n\techo v=$V\n\tscript\n"
    )
    daemon.docker("build", "-t", "inline", context)
    assert ran(daemon, "inline", "cat", "/one", "/name", "/a", "/b") == (
        "one\ntwo\nP\nfirst\nsecond\n"
    )
    assert ran(daemon, "inline", "said") == "v=7\n"
    assert ran(daemon, "inline", "ls", "/dev").find("pipes") == -1
    daemon.docker("rmi", "inline")


def test_mounts_of_run(daemon: Daemon) -> None:
    context = daemon.write_context(
        "FROM busybox AS made\nRUN mkdir /d && echo made > /d/f\n"
        "FROM busybox\n"
        "RUN --mount=type=cache,target=/c,id=kept date +%s%N >> /c/log && wc -l < /c/log > /count\n"
        "RUN --mount=from=made,source=/d,target=/m,rw cat /m/f > /copy && echo gone > /m/more\n"
        "RUN --mount=target=/ctx test -f /ctx/note && ! touch /ctx/new 2>/dev/null\n"
        "RUN --mount=type=tmpfs,target=/t,size=2m grep ' /t tmpfs' /proc/mounts > /mounts\n"
        "RUN --mount=type=secret,id=none test ! -e /run/secrets/none\n",
        note="note",
    )
    daemon.docker("build", "-t", "mounts:1", context)
    files = ran(daemon, "mounts:1", "cat", "/count", "/copy", "/mounts")
    assert files.startswith("1\nmade\n")
    assert "size=2048k" in files
    listed = daemon.docker("run", "--rm", "mounts:1", "ls", "/").out.split()
    assert not {"c", "m", "ctx", "t", "run"} & set(listed), "a mount point is in the image"
    context = daemon.write_context(
        "FROM busybox\nRUN --mount=type=cache,target=/c,id=kept cat /c/log > /log\n"
    )
    daemon.docker("build", "-t", "mounts:1", context)
    assert len(ran(daemon, "mounts:1", "cat", "/log").splitlines()) == 1
    daemon.docker("rmi", "mounts:1")


def test_a_secret_leaves_no_trace(daemon: Daemon, tmp_path: Path) -> None:
    word = "hunter2-of-the-test"
    (tmp_path / "key").write_text(word)
    context = daemon.write_context(
        "FROM busybox\n"
        "RUN --mount=type=secret,id=key,uid=1000 --mount=type=secret,id=tok,env=TOK \\\n"
        "  stat -c %a:%u /run/secrets/key && wc -c < /run/secrets/key && echo ${#TOK}\n"
    )
    done = daemon.cli(
        *(
            "--progress",
            "plain",
            "build",
            "-t",
            "secret:1",
            "--secret",
            f"id=key,src={tmp_path}/key",
        ),
        *("--secret", "id=tok,env=TOK", context),
        more_env={"TOK": word},
    )
    assert f"400:1000\n{len(word)}\n{len(word)}\n" in done.err
    assert word not in done.out + done.err
    history = daemon.docker("history", "--no-trunc", "secret:1").out
    assert word not in history
    for path in daemon.data_root.rglob("*"):
        if path.is_file() and path.stat().st_size < 1 << 20:
            assert word.encode() not in path.read_bytes(), path
    assert word not in daemon.log.read_text()
    daemon.docker("rmi", "secret:1")


def test_required_secrets_must_be_given(daemon: Daemon) -> None:
    context = daemon.write_context("FROM busybox\nRUN --mount=type=secret,id=zz,required true\n")
    failed = daemon.docker("build", context, status=1)
    assert "secret zz: not found" in failed.err


def test_a_client_that_hangs_up_ends_the_build(daemon: Daemon) -> None:
    body = tar_of(Dockerfile="FROM busybox\nRUN echo begun; sleep 1000\n")
    with daemon.stream("POST", "/build?t=never:1", body=body) as lines:
        next(line for line in lines if "begun" in line.get("stream", ""))
    until("the command is gone", lambda: not running(daemon))
    assert "never:1" not in daemon.images()


def test_the_same_build_twice_at_once_does_the_work_once(daemon: Daemon) -> None:
    context = daemon.write_context(
        "FROM busybox\nRUN sleep 1; cat /proc/sys/kernel/random/uuid > /u\n"
    )
    begun = [daemon.begin("build", "-t", f"twin:{n}", context) for n in range(3)]
    for process in begun:
        assert process.wait(60) == 0
    found = {ran(daemon, f"twin:{n}", "cat", "/u") for n in range(3)}
    assert len(found) == 1
    daemon.docker("rmi", *(f"twin:{n}" for n in range(3)))


def test_private_base_images_are_pulled_with_the_clients_logins(daemon: Daemon) -> None:
    name = f"{daemon.registry}/team/base:1"
    daemon.docker("tag", "busybox", name)
    daemon.docker("push", name)
    daemon.docker("rmi", name)
    context = daemon.write_context(f"FROM {name}\nRUN true\n")
    assert "Successfully built" in daemon.docker("build", "--pull", context).out
    daemon.docker("rmi", name)


def test_thousands_of_files_build_and_one_change_is_seen(daemon: Daemon) -> None:
    context = daemon.write_context(
        "FROM busybox\nCOPY many /many\nRUN find /many -type f | wc -l\n"
    )
    for folder in range(20):
        (context / "many" / str(folder)).mkdir(parents=True)
        for number in range(100):
            (context / "many" / str(folder) / str(number)).write_text(f"{folder}/{number}")
    assert "2000\n" in daemon.docker("build", context).out
    assert daemon.docker("build", context).out.count("Using cache") == 2
    (context / "many/7/7").write_text("changed")
    assert "Using cache" not in daemon.docker("build", context).out


def test_the_result_can_be_written_elsewhere(daemon: Daemon, tmp_path: Path) -> None:
    context = daemon.write_context("FROM scratch\nCOPY a /d/a\nCOPY <<E /d/b\nhi\nE\n", a="A")
    before = daemon.images()
    daemon.cli("build", "-o", tmp_path / "out", context)
    found = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*"))
    assert {"d", "d/a", "d/b"} <= set(found)
    assert (tmp_path / "out/d/b").read_text() == "hi\n"
    daemon.cli("build", "-o", f"type=tar,dest={tmp_path}/out.tar", context)
    with tarfile.open(tmp_path / "out.tar") as tar:
        assert "d/a" in tar.getnames()
    assert daemon.images() == before
    assert daemon.containers() == []
    name = f"{daemon.registry}/team/pushed:1"
    daemon.cli("build", "-t", name, "--push", context)
    daemon.docker("rmi", name)
    daemon.docker("pull", name)
    daemon.docker("rmi", name)


def test_a_check_complains_and_builds_nothing(daemon: Daemon) -> None:
    context = daemon.write_context("FROM busybox as One\nCOPY $NOPE /\nCMD a\n")
    before = daemon.images()
    found = daemon.cli("build", "--check", context, status=1)
    for rule in ("FromAsCasing", "StageNameCasing", "UndefinedVar", "JSONArgsRecommended"):
        assert f"warning[LS0205]: {rule}: " in found.out
    assert "3 | CMD a" in found.out
    assert daemon.images() == before
    good = daemon.write_context('FROM busybox\nCMD ["a"]\n')
    assert "nothing to complain about" in daemon.cli("build", "--check", good).out


def test_the_cache_can_be_seen_and_pruned(daemon: Daemon) -> None:
    daemon.docker("builder", "prune", "-af")
    context = daemon.write_context(
        "FROM busybox AS made\nRUN echo made > /made\nFROM busybox\n"
        "RUN --mount=type=cache,target=/c,id=seen echo x > /c/x\nCOPY --from=made /made /\n"
    )
    daemon.docker("build", "-t", "pruned", context)
    rows = {row["Description"]: row for row in daemon.get("/system/df")["BuildCache"]}
    assert rows["cache mount seen"]["Type"] == "exec.cachemount"
    assert rows["COPY --from=made /made /"]["Shared"]
    made = rows["RUN /bin/sh -c echo made > /made"]
    assert not made["Shared"]
    assert "exec.cachemount" in daemon.docker("system", "df", "-v").out
    out = daemon.docker("builder", "prune", "-f", "--filter", f"id={made['ID']}").out
    assert made["ID"] in out
    daemon.docker("builder", "prune", "-f")
    left = daemon.get("/system/df")["BuildCache"]
    assert left
    assert all(row["Shared"] for row in left)
    daemon.docker("builder", "prune", "-af")
    assert daemon.get("/system/df")["BuildCache"] == []
    assert ran(daemon, "pruned", "cat", "/made") == "made\n"
    daemon.docker("rmi", "pruned")


@pytest.mark.parametrize("kind", ["registry", "local", "inline"])
def test_a_cache_goes_to_another_machine(daemon: Daemon, tmp_path: Path, kind: str) -> None:
    reference = f"{daemon.registry}/team/cache-{kind}:1"
    context = daemon.write_context(
        "FROM busybox AS tool\nRUN cat /proc/sys/kernel/random/uuid > /u\n"
        "FROM busybox\nCOPY --from=tool /u /u\nRUN cat /u > /v\n"
    )
    write = {
        "registry": ["--cache-to", f"type=registry,ref={reference},mode=max"],
        "local": ["--cache-to", f"type=local,dest={tmp_path}/cache,mode=max"],
        "inline": ["--cache-to", "type=inline", "-t", reference, "--push"],
    }[kind]
    read = ["--cache-from", f"type=local,src={tmp_path}/cache" if kind == "local" else reference]
    first = daemon.cli("-q", "build", *write, context).out.strip()
    names = daemon.images()
    made = daemon.docker("run", "--rm", first, "cat", "/v").out
    daemon.docker("rmi", "-f", first, *([reference] if kind == "inline" else []), status=None)
    assert not {name for name in daemon.images() if "cache" in name}, names
    daemon.docker("builder", "prune", "-af")
    again = daemon.cli("build", "-t", "again", *read, context)
    if kind == "inline":
        # The tool's step is not in the result: it runs, makes another word, and what follows runs too.
        assert ran(daemon, "again", "cat", "/v") != made
    else:
        assert "5 steps, 3 cached" in again.out
        assert ran(daemon, "again", "cat", "/v") == made
    assert not {name for name in daemon.images() if "cache" in name}
    daemon.docker("rmi", "again")


def test_a_fault_is_shown_with_its_line(daemon: Daemon) -> None:
    context = daemon.write_context("FROM busybox\n\n  FETCH x\n")
    for words in (["build"], ["build", "--check"]):
        failed = daemon.cli(*words, context, status=1)
        assert failed.err.splitlines() == [
            "error[LS0202]: dockerfile parse error on line 3: unknown instruction: FETCH",
            " --> Dockerfile:3",
            "  |",
            "  |   FETCH x",
            "  |   ^^^^^^^",
        ]
    context = daemon.write_context("FROM busybox\nCOPY none /x\n")
    failed = daemon.cli("--progress", "plain", "build", context, status=1)
    assert "2 | COPY none /x\n  | ^^^^^^^^^^^^\n" in failed.err


def test_a_daemon_killed_in_a_step_leaves_no_secret_and_no_mount(
    daemon: Daemon, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("hunter2")
    context = daemon.write_context(
        "FROM busybox\n"
        "RUN --mount=type=secret,id=key --mount=type=cache,target=/c,id=killed \\\n"
        "  --mount=target=/ctx echo kept > /c/kept; sleep 1000\n"
    )
    begun = daemon.begin("build", "--secret", f"id=key,src={tmp_path}/key", context)
    until("the secret is mounted", lambda: secret_mounts(daemon))
    until("it has written", lambda: list(daemon.data_root.glob("**/cache-mounts/*/0/data/kept")))
    daemon.kill9()
    assert begun.wait(60) != 0
    daemon.start()
    until("the process is gone", lambda: not running(daemon))
    assert secret_mounts(daemon) == []
    context = daemon.write_context(
        "FROM busybox\nRUN --mount=type=cache,target=/c,id=killed cat /c/kept > /kept\n"
    )
    daemon.docker("build", "-t", "after", context)
    assert ran(daemon, "after", "cat", "/kept") == "kept\n"
    daemon.docker("rmi", "after")
