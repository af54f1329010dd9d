# ruff: noqa: PTH115, PTH118, PTH123
"""COPY, ADD and WORKDIR write what BuildKit writes, on vectors made by running it.

Needs root, for owners and device nodes.
"""

import base64
import io
import json
import os
import re
import stat
import tarfile
import time
from pathlib import Path

import pytest

from linkspan.sdk.dockerignore import IgnorePatterns
from linkspan.sdk.drivers.builder import BuildRequest
from linkspan.sdk.errors import LinkspanError

pytestmark = pytest.mark.system

DATA = json.loads((Path(__file__).parent / "data" / "copy-rules.json").read_text())
CASES = DATA["cases"]
OLD = 1_000_000_000

# Where docs/reference/dockerfile.md chooses the classic builder's answer over BuildKit's.
CLASSIC = {
    "two-files-no-slash",
    "wild-no-slash-many",
    "parent-source",
    "missing",
    "missing-among",
    "ignored",
    "top-symlink-dangling",
    "symlink-escape",
    "chown-unknown-user",
    "chown-unknown-group",
    "chown-no-passwd",
    "from-missing-path",
    "url-404",
}


def flattened(entries):
    out = []
    for entry in DATA["standard_context"] if entries == "standard" else entries or ():
        out += DATA["standard_context"] if entry == "standard" else [entry]
    return out


def content(entry):
    if "raw" in entry:
        return base64.b64decode(entry["raw"].removeprefix("base64:"))
    return entry.get("data", "").encode()


def add_entries(tar, entries):
    for entry in entries:
        info = tarfile.TarInfo(entry["path"])
        kind = entry.get("type", "f")
        info.mtime = OLD
        info.mode = int(entry.get("mode", "0755" if kind == "d" else "0644"), 8)
        info.uid, info.gid = entry.get("uid", 0), entry.get("gid", 0)
        info.linkname = entry.get("link", "")
        info.type = {
            "f": tarfile.REGTYPE,
            "d": tarfile.DIRTYPE,
            "l": tarfile.SYMTYPE,
            "h": tarfile.LNKTYPE,
            "p": tarfile.FIFOTYPE,
        }[kind]
        info.pax_headers = {
            f"SCHILY.xattr.{name}": value for name, value in entry.get("xattr", {}).items()
        }
        data = content(entry) if kind == "f" else b""
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))


def context_tar(case):
    """The context as a client sends it: what .dockerignore leaves out is not there."""
    dockerfile, ignore = case["dockerfile"], case.get("dockerignore")
    extra = [{"path": "Dockerfile", "data": dockerfile}]
    if ignore is not None:
        extra.append({"path": ".dockerignore", "data": ignore})
    patterns = IgnorePatterns.parse(ignore or "")
    kept = [e for e in flattened(case.get("context")) if not patterns.excludes(e["path"])]
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as tar:
        add_entries(tar, [*extra, *kept])
    return data.getvalue()


def base_tar(case):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        add_entries(tar, case["base"])
    return data.getvalue()


def with_base(case):
    """``base`` entries are what the first stage holds before its own steps."""
    if "base" not in case:
        return case["dockerfile"]
    return case["dockerfile"].replace("FROM scratch", "FROM base", 1)


def shown_mtime(info, started):
    seconds = info.st_mtime
    for name, value in (("src", OLD), ("epoch", 0)):
        if seconds == value:
            return name
    return "now" if seconds >= started - 2 else "archive"


def tree_lines(root, started):
    lines, seen = [], {}
    if root is None:
        return lines
    for folder, names, files in os.walk(root):
        for name in names + files:
            path = os.path.join(folder, name)
            lines.append((path[len(root) :], path))
    out = []
    for shown, path in sorted(lines):
        info = os.lstat(path)
        owner, mode = f"{info.st_uid}:{info.st_gid}", f"{stat.S_IMODE(info.st_mode):04o}"
        if stat.S_ISDIR(info.st_mode):
            out.append(f"d {mode} {owner} {shown}")
        elif stat.S_ISLNK(info.st_mode):
            out.append(f"l {owner} {shown} -> {os.readlink(path)}")
        elif stat.S_ISREG(info.st_mode):
            if info.st_ino in seen:
                out.append(f"h {shown} = {seen[info.st_ino][1:]}")
                continue
            seen[info.st_ino] = shown
            with open(path, "rb") as file:
                data = json.dumps(file.read().decode("latin-1")[:40])
            line = f"f {mode} {owner} {shown} {data} mtime={shown_mtime(info, started)}"
            attributes = {k: os.getxattr(path, k).decode() for k in os.listxattr(path)}
            out.append(line + (f" xattr={json.dumps(attributes)}" if attributes else ""))
        else:
            out.append(f"? type=b'6' {shown}")
    return out


def cut(line):
    """The vectors show the first 40 characters of data in one way, latin-1 in another."""
    match = re.match(r'(f \S+ \S+ \S.*? )(".*")( mtime=.*)$', line)
    if match is None:
        return line
    return match[1] + json.dumps(json.loads(match[2])[:24]) + match[3]


def expected_of(case):
    if "expected" in case:
        return case["expected"]
    return case["classic" if case["id"] in CLASSIC else "buildkit"]


def wanted_error(text):
    """A missing source is told in the classic builder's words, also where only BuildKit has a case."""
    missing = re.fullmatch(r'failed to compute cache key: .*: "/(.*)": not found', text)
    if missing:
        return f"stat {missing[1]}: file does not exist"
    return text.replace("<rootfs>", "")


every_case = pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])


@every_case
async def test_files_are_copied_as_buildkit_does(case, workshop, tools, file_server):
    await check(case, workshop, tools, file_server)


@every_case
async def test_so_they_are_on_overlayfs(case, overlay_workshop, tools, file_server):
    await check(case, overlay_workshop, tools, file_server)


async def check(case, workshop, tools, file_server):
    if "base" in case:
        await workshop.build(
            {"Dockerfile": "FROM scratch\nADD base.tar /\n", "base.tar": base_tar(case)},
            tags=("base",),
        )
    host = file_server if "HOST" in case["dockerfile"] else ""
    case = {**case, "dockerfile": with_base(case)}
    data = context_tar({**case, "dockerfile": case["dockerfile"].replace("HOST", host or "HOST")})
    expected = expected_of(case)
    started = time.time()
    asked = BuildRequest(context=tools.pieces(data), tags=("result",))
    if "error" in expected:
        with pytest.raises(LinkspanError) as caught:
            await workshop.driver.build(asked, lambda _: None)
        text = wanted_error(expected["error"]).replace("HOST", host or "HOST")
        assert text.removesuffix(": no") in caught.value.message
        return
    await workshop.driver.build(asked, lambda _: None)
    async with workshop.tree("result") as root:
        lines = tree_lines(root, started)
    wanted = [
        line.replace("FROM scratch", "FROM base") if "base" in case else line
        for line in expected["tree"]
    ]
    assert [cut(line) for line in lines] == [cut(line) for line in wanted]
