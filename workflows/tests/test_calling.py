"""The tasks that make the calls of plugins."""

import trio
import trio.testing

from linkspan.workflows.calling import CallWorkers


async def _one() -> int:
    return 1


async def _wait_for(ended: trio.Event) -> None:
    with trio.CancelScope(shield=True):
        await ended.wait()


async def test_a_call_is_not_given_to_a_task_that_has_ended_with_its_nursery() -> None:
    made = []
    async with trio.open_nursery() as nursery:
        workers = CallWorkers(nursery)
        assert await workers.do(_one, _wait_for) == 1
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
        made.append(await workers.do(_one, _wait_for))
    assert made == []
    assert nursery.cancel_scope.cancelled_caught
