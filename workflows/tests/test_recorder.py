import os

import trio
import trio.lowlevel

from linkspan.workflows.journal import Journal
from linkspan.workflows.recorder import Recorder
from linkspan.workflows.state import RunState

NOTHING = {"action": "none", "what": "a", "detail": ""}
SOMETHING = {"action": "change", "what": "a", "detail": ""}
JOBS = [
    {
        "id": "j",
        "needs": [],
        "finally": False,
        "steps": [{"id": s, "title": s, "verb": "set"} for s in "abc"],
    }
]


async def recorder(path):
    journal = await Journal.open(path)
    made = Recorder(journal, RunState())
    await made.write("run-created", jobs=JOBS)
    return made


async def start(made, step, *changes):
    record = {"try": 1, "verb": "set", "provider": "p 1", "settings": {}, "undo": {}}
    await made.write("step-started", job="j", step=step, changes=list(changes), **record)


async def finish(made, step):
    await made.write("step-finished", job="j", step=step, result="success")


async def test_an_intent_is_on_disk_unless_its_verb_says_that_nothing_is_to_do(
    tmp_path, monkeypatch
):
    made = await recorder(tmp_path / "j")
    synced = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    await start(made, "a", NOTHING)
    await finish(made, "a")
    assert synced == []
    # A verb that says nothing about its changes may do anything.
    await start(made, "b")
    assert len(synced) == 1
    await start(made, "c", NOTHING, SOMETHING)
    assert len(synced) == 2
    made.close()


async def test_what_a_step_has_changed_is_on_disk_before_the_next_one_begins(tmp_path, monkeypatch):
    made = await recorder(tmp_path / "j")
    synced = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    await start(made, "a", SOMETHING)
    await finish(made, "a")
    assert len(synced) == 1
    await start(made, "b", NOTHING)
    assert len(synced) == 2
    await finish(made, "b")
    await start(made, "c", NOTHING)
    assert len(synced) == 2
    made.close()


async def test_who_comes_late_sees_every_record_once_and_in_order(tmp_path):
    made = await recorder(tmp_path / "j")
    seen = []

    async def watch(task_status):
        async with made.watch() as watcher:
            task_status.started()
            while batch := await watcher.batch():
                seen.extend(batch)

    async def write_many():
        for _ in range(50):
            await start(made, "a", SOMETHING)
            await finish(made, "a")

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(write_many)
        await trio.lowlevel.checkpoint()
        await nursery.start(watch)
        while made.state.records < 301:  # noqa: ASYNC110
            await trio.sleep(0.001)
        made.close()
    assert [record["n"] for record in seen] == list(range(1, 302))
