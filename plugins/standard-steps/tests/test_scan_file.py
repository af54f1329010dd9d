"""``scan-file``: what is found, and where."""

import hashlib

import pytest

from linkspan.plugins.standard_steps.scan_file import ScanFailed, ScanFileStep
from linkspan.sdk.errors import InvalidArgument, NotFound


async def scan(host, intent, context, files, **settings):
    wish = intent("scan-file", **{"paths": ["**/*"], **settings})
    for name, text in files.items():
        path = wish.workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return await ScanFileStep(host).apply(wish, context)


@pytest.mark.parametrize(
    "secret",
    [
        "-----BEGIN RSA PRIVATE " + "KEY-----",
        "key = AKIA" + "ABCDEFGHIJKLMNOP",
        "ghp_" + "a" * 36,
        "glpat-" + "b" * 20,
        "xoxb-" + "1234567890",
        "postgres://app:" + "hunter2@db/app",
    ],
)
async def test_secrets_are_found_by_their_look(host, intent, context, secret):
    with pytest.raises(ScanFailed) as caught:
        await scan(host, intent, context, {"a/b.txt": f"x\n{secret}\n"}, secrets=True)
    (finding,) = caught.value.details["findings"]
    assert (finding["path"], finding["line"]) == ("a/b.txt", 2)
    assert secret not in str(caught.value)


async def test_what_only_looks_a_little_like_a_secret_is_none(host, intent, context):
    text = "postgres://app:${PASSWORD}@db/app\nghp_short\n-----BEGIN CERTIFICATE-----\n"
    outputs = await scan(host, intent, context, {"a": text, "b": "x"}, secrets=True)
    assert outputs == {"files": 2}


async def test_forbidden_and_required_lines(host, intent, context):
    files = {"a.py": "# license\nprint()\n", "b.py": "TODO\n"}
    with pytest.raises(ScanFailed) as caught:
        await scan(host, intent, context, files, forbid=["TODO"], require=["license"])
    assert sorted(context.lines) == [
        "b.py: lacks /license/",
        "b.py:1: has /TODO/, which is forbidden",
    ]
    assert "and 1 more" in str(caught.value)


async def test_size_and_digest(host, intent, context):
    digest = hashlib.sha256(b"abc").hexdigest()
    await scan(host, intent, context, {"a": b"abc"}, sha256=f"sha256:{digest}", **{"max-size": 3})
    with pytest.raises(ScanFailed, match="has the SHA-256"):
        await scan(host, intent, context, {"a": b"abd"}, sha256=digest)
    with pytest.raises(ScanFailed, match="is 4 bytes long, more than 3"):
        await scan(host, intent, context, {"a": b"abcd"}, **{"max-size": 3})


async def test_left_out_files_and_links_are_not_looked_at(host, intent, context):
    wish = intent("scan-file")
    (wish.workspace / "link").symlink_to("/etc/passwd")
    files = {"a": "fine", "skip/b": "root"}
    assert await scan(host, intent, context, files, forbid=["root"], exclude=["skip/*"]) == {
        "files": 1
    }


async def test_no_file_is_a_failure(host, intent, context):
    with pytest.raises(NotFound, match=r"no file of the workspace fits \*\.zig"):
        await scan(host, intent, context, {"a": ""}, paths=["*.zig"], secrets=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "nothing to look for"),
        ({"forbid": ["("]}, "not a regular expression"),
        ({"sha256": "abc"}, "not a SHA-256"),
        ({"paths": ["../*"], "secrets": True}, "leads out"),
        ({"paths": ["/etc/*"], "secrets": True}, "leads out"),
    ],
)
async def test_settings_that_make_no_sense_are_refused(host, intent, context, settings, message):
    with pytest.raises(InvalidArgument, match=message):
        await scan(host, intent, context, {"a": ""}, **settings)


async def test_a_binary_file_with_one_endless_line_is_looked_at(host, intent, context):
    files = {"big": b"\xff\x00" * 3_000_000}
    assert await scan(host, intent, context, files, secrets=True) == {"files": 1}
