"""Secrets of pipelines: kept over the API and the command line, and given to runs."""

import os
import subprocess
import sys

import pytest
import trio

from linkspan.core.http.listeners import open_unix_listener
from linkspan.core.http.routing import RouteTable
from linkspan.core.http.server import serve_http
from linkspan.sdk.errors import InvalidArgument, NotFound, Unavailable
from linkspan.sdk.manifest import DriverManifest, PluginManifest
from linkspan.sdk.testing.fakes.secrets import FakeSecrets
from linkspan.workflows.secret_routes import SecretRoutes
from linkspan.workflows.secret_values import SecretSource, checked_key, is_there, value_of


@pytest.fixture
def store(fake_host):
    made = FakeSecrets({"DB": "hunter2"})
    fake_host.drivers["secrets", ""] = fake_host.drivers["secrets", "fake"] = made
    manifest = PluginManifest(
        name="fake",
        version="1",
        drivers=(
            DriverManifest(role="secrets", name="fake"),
            DriverManifest(role="secrets", name="broken"),
        ),
    )
    fake_host.manifests = (manifest,)
    return made


async def test_a_value_is_the_drivers(fake_host, store):
    assert await value_of(fake_host, SecretSource(name="X", key="DB")) == "hunter2"
    assert await is_there(fake_host, SecretSource(name="X", key="DB", driver="fake"))


async def test_what_is_missing_fails_unless_it_need_not_be_there(fake_host, store):
    with pytest.raises(NotFound, match="no secret 'GONE'"):
        await value_of(fake_host, SecretSource(name="X", key="GONE"))
    assert await value_of(fake_host, SecretSource(name="X", key="GONE", required=False)) == ""
    assert not await is_there(fake_host, SecretSource(name="X", key="GONE"))


async def test_what_is_made_on_first_use_stays_the_same(fake_host, store):
    source = SecretSource(name="X", key="NEW", generate_length=24)
    assert await is_there(fake_host, source)
    assert "NEW" not in store.values
    made = await value_of(fake_host, source)
    assert len(made) == 24
    assert made.isalnum()
    assert await value_of(fake_host, source) == made


async def test_an_unknown_driver_is_named(fake_host, store):
    with pytest.raises(NotFound, match="vault"):
        await value_of(fake_host, SecretSource(name="X", key="DB", driver="vault"))


async def test_a_driver_that_cannot_be_asked_is_not_taken_for_a_missing_secret(fake_host, store):
    store.failure = Unavailable("the vault is sealed")
    with pytest.raises(Unavailable):
        await value_of(fake_host, SecretSource(name="X", key="DB", generate_length=10))
    assert store.values == {"DB": "hunter2"}


@pytest.mark.parametrize("key", ["", "1a", "a b", "a/b", "../x", "ä", "a" * 129, "a\n"])
def test_a_key_that_is_none_is_refused(key):
    with pytest.raises(InvalidArgument):
        checked_key(key)


# -- over the API -----------------------------------------------------------------------------


@pytest.fixture
async def linkspan(fake_host, store, nursery, tmp_path):
    routes = RouteTable()
    SecretRoutes(fake_host).register(routes)
    listener = await open_unix_listener(str(tmp_path / "s"))
    await nursery.start(serve_http, [listener], routes)

    async def run(*words, stdin=b""):
        code = "import sys; from linkspan.core.cli.main import main; sys.exit(main())"
        line = [sys.executable, "-c", code, "--host", f"unix://{tmp_path / 's'}", *words]
        done = await trio.run_process(
            line,
            stdin=stdin,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        )
        return subprocess.CompletedProcess(
            line, done.returncode, done.stdout.decode(), done.stderr.decode()
        )

    yield run
    nursery.cancel_scope.cancel()


@pytest.mark.integration
async def test_a_secret_is_set_from_a_pipe_listed_and_removed(linkspan, store):
    done = await linkspan("workflow", "secret", "set", "TOKEN", stdin=b"abc def\n")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "a pipeline gets it by `secrets: {TOKEN: {from: fake}}`" in done.stderr
    assert store.values["TOKEN"] == "abc def"
    listed = await linkspan("workflow", "secret", "ls")
    assert [line.split() for line in listed.stdout.splitlines()] == [
        ["NAME", "DRIVER", "AGE"],
        ["DB", "fake"],
        ["TOKEN", "fake"],
    ]
    assert "abc def" not in listed.stdout
    assert (await linkspan("workflow", "secret", "ls", "-q")).stdout == "DB\nTOKEN\n"
    assert (await linkspan("workflow", "secret", "rm", "TOKEN")).stdout == "TOKEN\n"
    assert set(store.values) == {"DB"}


@pytest.mark.integration
async def test_a_file_is_kept_to_the_byte(linkspan, store, tmp_path):
    (tmp_path / "key").write_text("line\n\n")
    await linkspan("workflow", "secret", "set", "KEY", "--from-file", str(tmp_path / "key"))
    assert store.values["KEY"] == "line\n\n"


@pytest.mark.integration
@pytest.mark.parametrize(
    ("words", "stdin", "said"),
    [
        (("set", "a b"), b"x", "cannot be the name of a secret"),
        (("set", "A"), b"", "1 to 65536 bytes"),
        (("set", "A"), b"x" * 70_000, "1 to 65536 bytes"),
        (("set", "A"), b"\xff", "not UTF-8"),
        (("set", "A", "--from-file", "/nonexistent"), b"", "cannot read /nonexistent"),
        (("set", "A", "--driver", "vault"), b"x", "vault"),
        (("rm", "GONE"), b"", "no secret 'GONE'"),
    ],
)
async def test_what_cannot_be_done_says_why_and_changes_nothing(
    linkspan, store, words, stdin, said
):
    done = await linkspan("workflow", "secret", *words, stdin=stdin)
    assert done.returncode != 0
    assert said in done.stderr
    assert store.values == {"DB": "hunter2"}
