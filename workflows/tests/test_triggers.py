"""When a pipeline is due, what a push or a request starts, and who may."""

import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta

import attrs
import httpx
import pytest
import trio
import trio.testing
from hypothesis import given, strategies as st

from linkspan.sdk.errors import Conflict, InvalidArgument, NotFound
from linkspan.sdk.testing.fakes.secrets import FakeSecrets
from linkspan.workflows.creating import NewRun
from linkspan.workflows.cron import parse_cron
from linkspan.workflows.triggering.config import WebhooksConfig, parse_listen
from linkspan.workflows.triggering.deliveries import Deliveries
from linkspan.workflows.triggering.due import next_due
from linkspan.workflows.triggering.matching import (
    Selection,
    branch_of,
    push_starts,
    tag_starts,
    webhook_starts,
)
from linkspan.workflows.triggering.served import Served
from linkspan.workflows.triggering.webhooks import (
    Webhooks,
    proves,
    serve_webhooks,
)
from linkspan.workflows.triggers import Push, TagPush, Webhook

SPAN = None


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def due(cron, after, zone="UTC"):
    found = next_due(parse_cron(cron), zone, at(after))
    return found and found.isoformat()[:16]


# -- time -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cron", "after", "expected"),
    [
        ("* * * * *", "2026-03-01T10:00:00", "2026-03-01T10:01"),
        ("0 3 * * 1-5", "2026-11-27T03:00:00", "2026-11-30T03:00"),
        ("*/15 9-17 * * *", "2026-03-01T17:45:00", "2026-03-02T09:00"),
        ("0 0 31 * *", "2026-04-01T00:00:00", "2026-05-31T00:00"),
        ("0 0 29 2 *", "2096-03-01T00:00:00", "2104-02-29T00:00"),
        ("0 0 13 * 5", "2026-11-01T00:00:00", "2026-11-06T00:00"),
        ("@yearly", "2026-01-01T00:00:00", "2027-01-01T00:00"),
        ("59 23 31 12 *", "2026-12-31T23:59:00", "2027-12-31T23:59"),
    ],
)
def test_the_next_time_is_the_first_one_after_now(cron, after, expected):
    assert due(cron, after) == expected


def test_a_time_zone_is_that_of_the_place_all_year():
    assert due("0 3 * * *", "2026-01-10T12:00:00", "Europe/Berlin") == "2026-01-11T02:00"
    assert due("0 3 * * *", "2026-07-10T12:00:00", "Europe/Berlin") == "2026-07-11T01:00"


def test_a_time_that_the_day_does_not_have_is_due_after_the_gap():
    # 2026-03-29: 02:00 becomes 03:00 in Berlin, which is 01:00 UTC.
    assert due("30 2 * * *", "2026-03-28T12:00:00", "Europe/Berlin") == "2026-03-29T01:00"
    assert due("30 2 * * *", "2026-03-29T01:00:00", "Europe/Berlin") == "2026-03-30T00:30"


def test_a_time_that_the_day_has_twice_is_due_once_unless_every_hour_is_named():
    # 2026-10-25: 03:00 becomes 02:00 in Berlin; 02:30 is 00:30 and 01:30 UTC.
    assert due("30 2 * * *", "2026-10-24T12:00:00", "Europe/Berlin") == "2026-10-25T00:30"
    assert due("30 2 * * *", "2026-10-25T00:30:00", "Europe/Berlin") == "2026-10-26T01:30"
    assert due("30 * * * *", "2026-10-25T00:30:00", "Europe/Berlin") == "2026-10-25T01:30"


@given(
    cron=st.sampled_from(["*/7 * * * *", "15 2,3 * * *", "0 0 1 * 1", "30 1 * * *", "5 */6 * * *"]),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    minutes=st.integers(0, 60 * 24 * 800),
)
def test_what_is_due_is_later_and_nothing_is_due_before_it(cron, zone, minutes):
    after = at("2026-01-01T00:00:00") + timedelta(minutes=minutes)
    fields = parse_cron(cron)
    found = next_due(fields, zone, after)
    assert found > after
    assert next_due(fields, zone, found - timedelta(seconds=1)) == found


# -- pushes and requests ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "name", "takes"),
    [
        ((), "anything", True),
        (("main", "release/*"), "release/1", True),
        (("main", "release/*"), "release/1/2", False),
        (("main",), "main/deep", False),
        (("**", "!wip/**"), "wip/a", False),
        (("!wip/**",), "main", True),
        (("!wip/**",), "wip/a", False),
        (("src/**", "!src/gen/**", "src/gen/keep"), "src/gen/keep", True),
        (("[",), "[", True),
    ],
)
def test_later_patterns_win(patterns, name, takes):
    assert Selection(patterns).takes(name) is takes


def test_a_push_starts_what_waits_for_its_branch_and_paths():
    push = Push(branches=("main",), paths=("src/**",), span=SPAN)
    assert push_starts(push, "main", {"src/a.py", "README.md"})
    assert not push_starts(push, "main", {"README.md"})
    assert push_starts(push, "main", None)
    assert not push_starts(push, "other", {"src/a.py"})
    assert not push_starts(None, "main", None)
    assert tag_starts(TagPush(tags=("v*",), span=SPAN), "v1")
    assert not tag_starts(TagPush(tags=("v*",), span=SPAN), "w1")


def test_a_request_starts_what_waits_for_its_event_and_branch():
    hook = Webhook(provider="github", secret="S", events=("push",), branches=("main",), span=SPAN)
    assert webhook_starts(hook, "push", "main")
    assert not webhook_starts(hook, "push", "other")
    assert not webhook_starts(hook, "issues", "main")
    every = Webhook(provider="github", secret="S", span=SPAN)
    assert webhook_starts(every, "issues", "")
    assert not webhook_starts(every, "ping", "")
    assert webhook_starts(attrs.evolve(every, events=("ping",)), "ping", "")
    assert branch_of({"ref": "refs/heads/a/b"}) == "a/b"
    assert branch_of({"ref": "refs/tags/v1"}) == ""
    assert branch_of({"ref": ["x"]}) == ""


def signature(secret, data):
    return "sha256=" + hmac.new(secret.encode(), data, hashlib.sha256).hexdigest()


def test_only_who_knows_the_secret_proves_it():
    github = Webhook(provider="github", secret="S", span=SPAN)
    right = {"x-hub-signature-256": signature("s3", b"body")}
    assert proves(github, "s3", right, b"body", 0)
    for secret, headers, body in (
        ("s3", right, b"other"),
        ("s4", right, b"body"),
        ("s3", {}, b"body"),
        ("s3", {"x-hub-signature-256": "sha256="}, b"body"),
        ("s3", {"x-hub-signature-256": "ü"}, b"body"),
        ("", {"x-hub-signature-256": signature("", b"body")}, b"body"),
    ):
        assert not proves(github, secret, headers, body, 0)
    gitlab = Webhook(provider="gitlab", secret="S", span=SPAN)
    assert proves(gitlab, "s3", {"x-gitlab-token": "s3"}, b"", 0)
    assert not proves(gitlab, "s3", {"x-gitlab-token": "s"}, b"", 0)


def test_a_generic_request_is_not_believed_for_long():
    generic = Webhook(provider="generic", secret="S", span=SPAN)

    def headers(stamp):
        signed = signature("s3", stamp.encode() + b".body")
        return {"x-linkspan-timestamp": stamp, "x-linkspan-signature-256": signed}

    assert proves(generic, "s3", headers("1000"), b"body", 1200.0)
    assert not proves(generic, "s3", headers("1000"), b"body", 1301.0)
    assert not proves(generic, "s3", headers("2000"), b"body", 1000.0)
    assert not proves(generic, "s3", headers("-5"), b"body", 0.0)
    assert not proves(generic, "s3", headers("1" * 30), b"body", 0.0)


def test_what_was_taken_is_remembered_for_a_while():
    deliveries = Deliveries(limit=2)
    assert deliveries.is_new("a")
    assert not deliveries.is_new("a")
    assert deliveries.is_new("b")
    assert deliveries.is_new("c")
    assert deliveries.is_new("a")


async def test_what_was_taken_outlives_the_daemon_for_as_long_as_it_is_remembered(tmp_path):
    file, time = tmp_path / "deliveries.jsonl", [1_000_000.0]

    async def begun(limit=2):
        made = Deliveries(file, limit=limit, now=lambda: time[0])
        await made.load()
        return made

    deliveries = await begun()
    for name in ("a", "b", "came to nothing"):
        assert deliveries.is_new(name)
    deliveries.forget("came to nothing")
    await deliveries.keep("a")
    await deliveries.keep("b")
    # Killed while it wrote the next one.
    with file.open("ab") as opened:
        opened.write(b"[10000")
    deliveries = await begun()
    assert [deliveries.is_new(name) for name in ("a", "b")] == [False, False]
    assert deliveries.is_new("c")
    await deliveries.keep("c")
    deliveries = await begun()
    assert [deliveries.is_new(name) for name in ("b", "c", "a")] == [False, False, True]
    time[0] += 91 * 24 * 3600
    deliveries = await begun()
    assert deliveries.is_new("c")


async def test_the_file_of_deliveries_does_not_grow_for_ever(tmp_path):
    file = tmp_path / "deliveries.jsonl"
    deliveries = Deliveries(file, limit=3)
    for number in range(50):
        assert deliveries.is_new(str(number))
        await deliveries.keep(str(number))
        assert len(file.read_text().splitlines()) <= 6
    later = Deliveries(file, limit=3)
    await later.load()
    assert [later.is_new(str(number)) for number in (47, 48, 49)] == [False] * 3


async def test_a_disk_that_takes_no_delivery_is_logged_and_no_failure(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    deliveries = Deliveries(tmp_path / "file" / "deliveries.jsonl")
    await deliveries.load()
    assert deliveries.is_new("a")
    await deliveries.keep("a")
    assert not deliveries.is_new("a")
    assert "not remembered on disk" in caplog.text


@pytest.mark.parametrize("text", ["", "9000", "a:b", "127.0.0.1:99999", "[::1]", ":"])
def test_an_address_to_listen_on_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="not of the form"):
        parse_listen(text)


# -- folders ----------------------------------------------------------------------------------

NIGHTLY = """\
linkspan: v1
on: {schedule: [{cron: "0 3 * * *"}], manual: false}
defaults: {image: img}
jobs: {a: {steps: [{run: 'true'}]}}
"""
HOOKED = """\
linkspan: v1
on: {webhook: [{provider: github, secret: HOOK, events: [push], branches: [main]}, {secret: HOOK}]}
inputs: {version: {type: string, default: "1"}}
secrets: {HOOK: {from: fake}}
defaults: {image: img}
jobs: {a: {steps: [{run: 'true'}]}}
"""


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "shop"
    (folder / ".linkspan").mkdir(parents=True)

    def write(name, text):
        (folder / ".linkspan" / name).write_text(text)
        return folder

    return write


@pytest.fixture
def clock():
    class Clock:
        now = at("2026-03-01T02:59:30")

        def __call__(self):
            return self.now

    return Clock()


@pytest.fixture
def served(tmp_path, verbs, clock):
    return Served(state=tmp_path / "state" / "served.json", verbs=verbs, now=clock)


async def until(condition):
    with trio.fail_after(20):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.005)


async def test_what_is_due_is_started_once(served, project, clock, bench, nursery):
    folder = project("nightly.yaml", NIGHTLY)
    await served.add(folder)
    nursery.start_soon(served.keep_time, bench.manager)
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert bench.manager.list_runs() == []
    clock.now = at("2026-03-01T03:00:10")
    served._wake()
    await until(bench.manager.list_runs)
    (run,) = bench.manager.list_runs()
    assert run["by"] == "schedule 0 3 * * *"
    # Set back and on again: it was done.
    for moment in ("2026-03-01T02:30:00", "2026-03-01T03:00:20"):
        clock.now = at(moment)
        served._wake()
        await trio.testing.wait_all_tasks_blocked(0.05)
    assert len(bench.manager.list_runs()) == 1
    await bench.manager.wait(run["id"])


async def test_folders_are_remembered_and_forgotten(served, project, verbs):
    folder = project("nightly.yaml", NIGHTLY)
    shown = await served.add(folder)
    assert shown["folders"] == {"shop": str(folder)}
    (row,) = shown["pipelines"]
    assert (row["name"], row["next"]) == ("shop/nightly", "2026-03-01T03:00:00Z")
    again = Served(state=served.state, verbs=verbs)
    await again.load()
    assert (await again.describe())["folders"] == {"shop": str(folder)}
    await again.remove("shop")
    with pytest.raises(NotFound):
        await again.remove("shop")
    third = Served(state=served.state, verbs=verbs)
    await third.load()
    assert (await third.describe())["pipelines"] == []


async def test_a_pipeline_that_is_wrong_is_listed_with_its_fault_and_starts_nothing(
    served, project, bench, clock, nursery
):
    project("nightly.yaml", NIGHTLY)
    folder = project("broken.yaml", NIGHTLY.replace("steps", "stepz"))
    shown = await served.add(folder)
    faults = {row["name"]: row["errors"] for row in shown["pipelines"]}
    assert faults["shop/nightly"] == []
    assert any("LS1001" in fault for fault in faults["shop/broken"])
    nursery.start_soon(served.keep_time, bench.manager)
    await trio.testing.wait_all_tasks_blocked(0.05)
    clock.now = at("2026-03-01T03:00:10")
    served._wake()
    await until(bench.manager.list_runs)
    (run,) = bench.manager.list_runs()
    await bench.manager.wait(run["id"])


async def test_a_changed_file_counts_from_then_on(served, project):
    folder = project("nightly.yaml", NIGHTLY)
    await served.add(folder)
    project("nightly.yaml", NIGHTLY.replace("0 3 * * *", "30 4 * * *"))
    (row,) = (await served.describe())["pipelines"]
    assert row["next"] == "2026-03-01T04:30:00Z"


async def test_folders_that_cannot_be_served_are_refused(served, project, tmp_path):
    folder = project("nightly.yaml", NIGHTLY)
    other = tmp_path / "other" / "shop"
    (other / ".linkspan").mkdir(parents=True)
    with pytest.raises(NotFound, match="no pipelines in"):
        await served.add(other)
    (other / ".linkspan/a.yaml").write_text(NIGHTLY)
    await served.add(folder)
    with pytest.raises(Conflict, match="'shop' is"):
        await served.add(other)
    await served.add(other, "other")
    for name in ("a/b", "ä", ".x", " "):
        with pytest.raises(InvalidArgument):
            await served.add(folder, name)


async def test_a_damaged_list_of_folders_keeps_nobody_from_starting(served, caplog):
    served.state.parent.mkdir()
    served.state.write_text("{")
    await served.load()
    assert (await served.describe())["folders"] == {}
    assert "damaged" in caplog.text


async def test_people_do_not_start_what_says_so(bench):
    new = NewRun(file="p.yaml", text=NIGHTLY, workspace=bench.sources)
    with pytest.raises(InvalidArgument, match="not started by people"):
        await bench.manager.create(new)


# -- requests ---------------------------------------------------------------------------------


@pytest.fixture
async def hooks(served, project, bench, nursery, clock):
    await served.add(project("release.yaml", HOOKED))
    bench.host.drivers["secrets", "fake"] = FakeSecrets({"HOOK": "s3"})
    webhooks = Webhooks(
        host=bench.host,
        served=lambda: served,
        manager=lambda: bench.manager,
        now=lambda: 1000.0,
        deliveries=Deliveries(bench.host.state_dir / "deliveries.jsonl"),
    )
    where = await nursery.start(serve_webhooks, WebhooksConfig(listen="127.0.0.1:0"), webhooks)
    async with httpx.AsyncClient(base_url=f"http://{where}", trust_env=False) as client:

        async def send(body=b"{}", path="/hooks/shop/release", **headers):
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            named = {name.replace("_", "-"): text for name, text in headers.items()}
            return await client.post(path, content=data, headers=named)

        yield send
    nursery.cancel_scope.cancel()


def github(body, secret="s3", delivery="1", event="push"):
    return {
        "X_Hub_Signature_256": signature(secret, body),
        "X_GitHub_Event": event,
        "X_GitHub_Delivery": delivery,
    }


async def test_a_signed_request_starts_a_run_once(hooks, bench):
    body = b'{"ref": "refs/heads/main"}'
    answer = await hooks(body, **github(body))
    assert answer.status_code == 202
    (run,) = bench.manager.list_runs()
    assert (run["id"], run["by"]) == (answer.json()["run"], "webhook github push")
    again = await hooks(body, **github(body))
    assert again.json() == {"started": False, "reason": "taken before"}
    # The id is not signed: who replays a request may make up another.
    replayed = await hooks(body, **github(body, delivery="2"))
    assert replayed.json() == {"started": False, "reason": "taken before"}
    assert len(bench.manager.list_runs()) == 1
    await bench.manager.wait(run["id"])
    # A daemon that is started anew knows it still.
    later = Deliveries(bench.host.state_dir / "deliveries.jsonl")
    await later.load()
    assert not later.is_new(f"shop/release {signature('s3', body)}")


async def test_other_events_and_branches_start_nothing(hooks, bench):
    for body, event in ((b'{"ref": "refs/heads/wip"}', "push"), (b"{}", "ping")):
        answer = await hooks(body, **github(body, event=event))
        assert (answer.status_code, answer.json()["started"]) == (200, False)
    assert bench.manager.list_runs() == []


async def test_who_proves_nothing_learns_nothing(hooks, bench):
    body = b"{}"
    wrong = [
        await hooks(body),
        await hooks(body, **github(body, secret="guess")),
        await hooks(body, "/hooks/shop/nothing", **github(body)),
        await hooks(body, "/hooks/nobody/release", **github(body)),
    ]
    assert {answer.status_code for answer in wrong} == {401}
    assert len({answer.text for answer in wrong}) == 1
    assert bench.manager.list_runs() == []


async def test_a_generic_request_may_bring_inputs(hooks, bench):
    def headers(body):
        signed = signature("s3", b"1000." + body)
        return {"X_Linkspan_Timestamp": "1000", "X_Linkspan_Signature_256": signed}

    body = b'{"inputs": {"version": "7"}}'
    answer = await hooks(body, **headers(body))
    assert answer.status_code == 202
    run = bench.manager.inspect(answer.json()["run"])
    assert run["inputs"] == {"version": "7"}
    await bench.manager.wait(run["id"])
    for body in (b'{"inputs": {"nothing": "7"}}', b'{"inputs": {"version": 7}}', b"[]", b"{"):
        assert (await hooks(body, **headers(body))).status_code == 400
    # What came to nothing may be sent again, and nothing was started.
    assert len(bench.manager.list_runs()) == 1


async def test_a_body_without_end_is_cut_off(hooks):
    assert (await hooks(b"x" * (9 << 20))).status_code == 413


async def test_nothing_else_is_served_there(hooks):
    for path in ("/linkspan/v1/runs", "/version", "/hooks/shop"):
        assert (await hooks(path=path)).status_code in (404, 405)


async def test_a_port_that_is_taken_is_named(bench, served, nursery):
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    webhooks = Webhooks(host=bench.host, served=lambda: served, manager=lambda: bench.manager)
    with pytest.raises(Conflict, match=f"port {port} is already in use"):
        await serve_webhooks(WebhooksConfig(listen=f"127.0.0.1:{port}"), webhooks)
    await listener.aclose()
