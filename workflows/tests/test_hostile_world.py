"""A disk that fills up, a clock that jumps, a script that prints secrets or floods, a daemon that dies."""

import errno
import json
from datetime import UTC, datetime, timedelta

import pytest
import trio

from linkspan.sdk.errors import LinkspanError
from linkspan.workflows import journal, steplog
from linkspan.workflows.approvals import Voter
from linkspan.workflows.journal import Journal
from linkspan.workflows.triggering.served import Served

PIPELINE = """
jobs:
  a:
    outputs: {v: "${{ steps.s.outputs.value }}"}
    steps:
      - {id: s, uses: set, with: {name: x, value: "1"}}
      - {id: p, parallel: [{id: q, uses: set, with: {name: y, value: "1"}}, {id: r, run: 'true'}]}
  b:
    needs: [a]
    steps: [{id: t, uses: set, with: {name: z, value: "${{ needs.a.outputs.v }}"}}]
finally: {end: {steps: [{id: e, uses: set, with: {name: e, value: "1"}}]}}
"""
END = dict.fromkeys("xyze", "1")

# a full disk


class Disk:
    """A disk under the journals that is full after so many writes."""

    def __init__(self, left):
        self.left = left
        self.real = Journal._write_now

    def write(self, owner, data, sync):
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.real(owner, data, sync)


@pytest.mark.parametrize("writes", range(24))
async def test_a_disk_that_fills_up_after_any_record_loses_nothing(bench, monkeypatch, writes):
    disk = Disk(writes)
    monkeypatch.setattr(
        Journal, "_write_now", lambda owner, data, sync: disk.write(owner, data, sync)
    )
    if writes == 0:
        with pytest.raises(LinkspanError, match="No space left on device") as caught:
            await bench.start(PIPELINE)
        assert caught.value.code == "journal_failed"
        assert list((bench.host.state_dir / "runs").iterdir()) == []
        return
    run_id = await bench.start(PIPELINE)
    state = await bench.manager.wait(run_id)
    if state != "success":
        assert state == "interrupted"
        async with bench.manager.watch(run_id) as watcher:
            told = [event async for event in _all(watcher)][-1]
        assert "no room for the journal" in told["reason"]
        assert bench.engine.containers.all == {}
        # Still full: it says so again, and nothing is lost by asking.
        with pytest.raises(LinkspanError, match="No space left on device"):
            await _attempt(bench, run_id)
        disk.left = 10_000
        assert (await bench.resume(run_id))["state"] == "success"
    assert bench.world.values == END


async def _attempt(bench, run_id):
    await bench.manager.resume(run_id)
    assert await bench.manager.wait(run_id) == "interrupted"
    raise LinkspanError("No space left on device")


async def _all(watcher):
    while batch := await watcher.batch():
        for event in batch:
            yield event


# a clock that jumps


class Clock:
    """The wall clock; ``set`` moves it."""

    def __init__(self, monkeypatch):
        self.moved = timedelta()
        for module in (journal, steplog):
            monkeypatch.setattr(module, "now", self.text)

    def text(self):
        moment = datetime.now(UTC) + self.moved
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


DAYS = [timedelta(days=400), timedelta(days=-400), timedelta(seconds=-1)]


@pytest.mark.parametrize("jump", DAYS, ids=["forward", "back", "a second back"])
async def test_a_clock_that_jumps_in_a_run_changes_nothing_but_the_times(bench, monkeypatch, jump):
    clock = Clock(monkeypatch)

    def changed(intent):
        if intent.step == "s":
            clock.moved += jump

    bench.world.changed = changed
    run = await bench.run(PIPELINE.replace("{id: s,", "{id: s, timeout: 5m,"))
    assert run["state"] == "success"
    assert bench.world.values == END
    # Durations are not differences of times.
    records = bench.manager.archive.records(run["id"])
    durations = [record["duration"] for record in records if "duration" in record]
    assert all(0 <= seconds < 60 for seconds in durations)
    assert len(durations) >= 8
    times = [record["t"] for record in records]
    assert (times == sorted(times)) == (jump > timedelta())


async def test_the_last_run_is_the_last_one_whatever_the_clock_says(bench, monkeypatch):
    clock = Clock(monkeypatch)
    made = []
    for jump in (timedelta(), timedelta(days=-300), timedelta(days=30), timedelta(days=-1)):
        clock.moved += jump
        made.append((await bench.run(PIPELINE))["id"])
        assert bench.manager.resolve("last") == made[-1]
    assert [row["id"] for row in bench.manager.list_runs()] == made[::-1]
    assert bench.manager.archive.green("p").id == made[-1]
    assert (await bench.manager.why(made[-1]))["against"] == made[-2]


@pytest.mark.parametrize("jump", DAYS[:2], ids=["forward", "back"])
async def test_a_question_survives_a_clock_that_jumps(bench, jump):
    text = "jobs: {a: {steps: [{id: k, uses: ask, with: {message: go?, timeout: 1h, on-timeout: reject}}]}}"
    run_id = await bench.start(text)
    assert await bench.manager.wait(run_id) == "suspended"
    bench.world.clock_moved = jump.total_seconds()
    bench.manager.answers.expiry.changed()
    if jump > timedelta():
        # The time it was given is over, as far as anybody can tell.
        with trio.fail_after(30):
            while bench.manager.inspect(run_id)["state"] != "rejected":  # noqa: ASYNC110
                await trio.sleep(0.01)
        return
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert bench.manager.inspect(run_id)["state"] == "suspended"
    await bench.manager.answers.decide(run_id, "approve", Voter(name="ana"))
    assert await bench.manager.wait(run_id) == "success"


NIGHTLY = """linkspan: v1
on: {schedule: [{cron: "0 3 * * *"}]}
defaults: {image: img}
jobs: {a: {steps: [{run: 'true'}]}}
"""


async def test_schedules_go_on_when_a_clock_that_was_wrong_is_set_right(
    bench, nursery, tmp_path, verbs
):
    folder = tmp_path / "shop"
    (folder / ".linkspan").mkdir(parents=True)
    (folder / ".linkspan" / "nightly.yaml").write_text(NIGHTLY)
    now = datetime(2030, 1, 1, 12, tzinfo=UTC)
    served = Served(state=tmp_path / "state" / "served.json", verbs=verbs, now=lambda: now)
    await served.add(folder)
    nursery.start_soon(served.keep_time, bench.manager)

    async def runs(moment):
        nonlocal now
        now = moment
        await trio.testing.wait_all_tasks_blocked(0.05)
        served._wake()
        await trio.testing.wait_all_tasks_blocked(0.05)
        for row in bench.manager.list_runs():
            await bench.manager.wait(row["id"])
        return len(bench.manager.list_runs())

    # The clock was years ahead; the nights between are no reason for anything, nor a reason to wait.
    assert await runs(datetime(2026, 3, 1, 2, 0, tzinfo=UTC)) == 0
    assert await runs(datetime(2026, 3, 1, 3, 0, 5, tzinfo=UTC)) == 1
    # An hour back and again three o'clock: it was done.
    assert await runs(datetime(2026, 3, 1, 2, 30, tzinfo=UTC)) == 1
    assert await runs(datetime(2026, 3, 1, 3, 0, 5, tzinfo=UTC)) == 1
    # The machine slept over three o'clock until noon.
    assert await runs(datetime(2026, 3, 2, 12, 0, tzinfo=UTC)) == 1
    assert await runs(datetime(2026, 3, 2, 23, 0, tzinfo=UTC)) == 1
    for hour in (0, 2):
        assert await runs(datetime(2026, 3, 3, hour, 30, tzinfo=UTC)) == 1
    assert await runs(datetime(2026, 3, 3, 3, 1, tzinfo=UTC)) == 2


# secrets and floods

SECRET = 'hunter2-über/&?"quoted"-0123456789'
ENCODINGS = {
    "plain": 'printf %s "$TOKEN"',
    "base64": 'printf %s "$TOKEN" | base64',
    "base64 in a pair": 'printf %s "user:$TOKEN" | base64 -w0',
    "base64url": "printf %s \"$TOKEN\" | base64 -w0 | tr '+/' '-_' | tr -d =",
    "hex": "printf %s \"$TOKEN\" | od -An -v -tx1 | tr -d ' \\n'",
    "percent": "printf %s \"$TOKEN\" | od -An -v -tx1 | tr -d '\\n' | tr ' ' %",
    "json": 'printf %s "$TOKEN" | sed \'s/"/\\\\"/g\'',
    "html": 'printf %s "$TOKEN" | sed \'s/&/\\&amp;/g; s/"/\\&quot;/g\'',
    "shell": 'printf "\'%s\'" "$TOKEN"',
    "python": """python3 -c 'import os, urllib.parse as u; print(u.quote(os.environ["TOKEN"]))'""",
}


def _shapes(secret):
    """What nobody may find: the secret, and pieces of it that tell the rest."""
    raw = secret.encode()
    return [
        secret,
        secret[:12],
        raw.hex(),
        raw.hex()[:20],
        raw.hex("%")[:20],
        "aHVudGVyMi",
        "h1bnRlcjIt",
        "odW50ZXIyL",
    ]


async def test_a_secret_echoed_in_eight_encodings_is_in_no_log_journal_or_event(bench):
    bench.host.drivers["secrets", "file"].values["TOKEN"] = SECRET
    lines = "\n".join(f"          {each}; echo" for each in ENCODINGS.values())
    text = f"""
secrets: {{TOKEN: {{from: file}}}}
jobs:
  a:
    steps:
      - id: s
        secrets: [TOKEN]
        run: |
{lines}
          printf 'v=%s\\n' "$TOKEN" > $LINKSPAN_OUTPUT
          echo "the end of $TOKEN" >&2
          exit 3
"""
    run_id = await bench.start(text)
    async with bench.manager.watch(run_id) as watcher:
        events = [event async for event in _all(watcher)]
    assert await bench.manager.wait(run_id) == "failed"
    folder = bench.host.state_dir / "runs" / run_id
    kept = {
        path.relative_to(folder): path.read_text("utf-8", "replace")
        for path in bench.files(run_id)
        # What the script itself wrote is its own; it goes with the run's files.
        if path.is_file() and path.name != "output"
    }
    log = next(text for path, text in kept.items() if path.name == "s.log")
    assert len(log.splitlines()) >= len(ENCODINGS)
    assert log.count("***") >= len(ENCODINGS)
    for text in (*kept.values(), json.dumps(events, ensure_ascii=False)):
        for shape in _shapes(SECRET):
            assert shape not in text


async def test_ten_megabytes_of_outputs_are_refused_and_not_kept(bench):
    script = "head -c 10485760 /dev/zero | tr '\\\\0' x > $LINKSPAN_OUTPUT"
    run = await bench.run(f'jobs: {{a: {{steps: [{{id: s, run: "{script}"}}]}}}}')
    error = run["jobs"][0]["steps"][0]["error"]
    assert error["message"] == "the step wrote more than 1048576 bytes of outputs"
    assert error["help"] == "write large results to a file in the workspace"
    folder = bench.host.state_dir / "runs" / run["id"]
    assert (folder / "journal.jsonl").stat().st_size < 64 * 1024


async def test_ten_megabytes_in_one_line_and_in_many_are_all_in_the_log(bench):
    script = (
        "head -c 10485760 /dev/zero | tr '\\\\0' x; echo; yes $(printf %0255d) | head -c 10485760"
    )
    run = await bench.run(f'jobs: {{a: {{steps: [{{id: s, run: "{script}"}}]}}}}')
    assert run["state"] == "success"
    ((_, _, path),) = bench.manager.log_files(run["id"], "a", "s")
    texts = [line.split(" ", 2)[2] for line in path.read_text().splitlines()]
    assert sum(len(text) for text in texts if text[:1] == "x") == 10485760
    assert sum(1 for text in texts if text == "0" * 255) == 10485760 // 256
    assert len(run["jobs"][0]["steps"][0].get("tail", ())) <= 20


# the holder of a lock is killed


async def test_two_runs_for_one_lock_whose_daemon_is_killed_both_end(make_bench):
    text = "jobs: {a: {lock: prod, steps: [{id: s, uses: set, with: {name: x, value: '1', takes: 1h}}]}}"
    async with trio.open_nursery() as nursery:
        bench = await make_bench(nursery)
        first, second = await bench.start(text), await bench.start(text)
        with trio.fail_after(30):
            while not bench.world.applied or not _waits(bench, second):  # noqa: ASYNC110
                await trio.sleep(0.005)
        nursery.cancel_scope.cancel()
    bench.world.values["x"] = "1"  # it had just been done
    async with trio.open_nursery() as nursery:
        bench = await make_bench(nursery)
        assert {row["state"] for row in bench.manager.list_runs()} == {"interrupted"}
        await bench.manager.resume(second)
        with trio.fail_after(30):
            while len(bench.world.applied) < 2:  # noqa: ASYNC110
                await trio.sleep(0.005)
        # It waits no longer: the lock was free when its holder died. Now the first one waits.
        await bench.manager.resume(first)
        with trio.fail_after(30):
            while not _waits(bench, first):  # noqa: ASYNC110
                await trio.sleep(0.005)
        await bench.manager.cancel(second, kill=True)
        assert await bench.manager.wait(second) == "cancelled"
        assert await bench.manager.wait(first) == "success"
        nursery.cancel_scope.cancel()


def _waits(bench, run_id):
    return bench.manager.inspect(run_id)["jobs"][0]["waits"] == "prod"
