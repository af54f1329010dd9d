"""How many namespaces are kept ready."""

import trio

from linkspan.plugins.bridge_network.pool import MOST_GROWTH, Demand


async def test_what_was_missing_in_a_burst_is_kept_for_the_next_one_and_not_for_ever(
    autojump_clock: trio.testing.MockClock,
) -> None:
    demand = Demand(8)
    assert demand.wanted() == 8
    for _ in range(12):
        demand.miss()
    assert demand.wanted() == 20
    for _ in range(100):
        demand.miss()
    assert demand.wanted() == 8 * MOST_GROWTH
    await trio.sleep(601)
    assert demand.wanted() == 8


async def test_a_pool_of_nothing_never_grows(
    autojump_clock: trio.testing.MockClock,
) -> None:
    demand = Demand(0)
    demand.miss()
    assert demand.wanted() == 0
