"""How long runs are kept, as the config says."""

import pytest
import trio

from linkspan.core.cli.main import run
from linkspan.workflows.config import WorkflowsConfig

DONE = "jobs: {a: {steps: [{run: 'true'}]}}"
ASKS = "jobs: {a: {steps: [{id: s, uses: ask, with: {message: go}}]}}"
WAITS = "jobs: {a: {steps: [{id: s, uses: set, with: {name: x, takes: 60s}}]}}"
DAY = 86400.0


def ids(bench):
    return {row["id"] for row in bench.manager.list_runs()}


async def until(condition):
    with trio.fail_after(20):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.01)


async def test_the_oldest_runs_beyond_the_count_go_and_those_that_wait_or_run_stay(
    make_bench, nursery
):
    bench = await make_bench(nursery, WorkflowsConfig(keep_runs=2))
    asks = (await bench.run(ASKS))["id"]
    waits = await bench.start(WAITS)
    done = [(await bench.run(DONE))["id"] for _ in range(3)]
    await until(lambda: ids(bench) == {asks, waits, *done[1:]})
    folder = bench.host.state_dir / "runs"
    await until(lambda: not (folder / done[0]).exists())
    assert (folder / asks).exists()
    await bench.manager.cancel(waits, kill=True)
    await bench.manager.wait(waits)
    # It has ended now, and is older than the others.
    await until(lambda: ids(bench) == {asks, *done[1:]})


async def test_runs_that_are_too_old_go_also_while_none_ends(make_bench, nursery):
    bench = await make_bench(nursery, WorkflowsConfig(keep_for_s=7 * DAY))
    asks = (await bench.run(ASKS))["id"]
    done = (await bench.run(DONE))["id"]
    await bench.manager.retention.tidy()
    assert ids(bench) == {asks, done}
    bench.world.clock_moved = 8 * DAY
    await bench.manager.retention.tidy()
    assert ids(bench) == {asks}


async def test_a_run_with_which_somebody_goes_on_in_this_moment_stays(make_bench, nursery):
    bench = await make_bench(nursery, WorkflowsConfig(keep_runs=0))
    run_id = await bench.start("jobs: {a: {steps: [{id: s, uses: set, with: {name: x}}]}}")
    lock = bench.manager.retention.reopening[run_id]
    async with lock:
        await bench.manager.wait(run_id)
        await bench.manager.retention.tidy()
        assert ids(bench) == {run_id}
    await bench.manager.retention.tidy()
    assert ids(bench) == set()


def test_what_is_kept_cannot_be_less_than_nothing():
    with pytest.raises(ValueError, match="keep_runs"):
        WorkflowsConfig(keep_runs=-1)


def test_the_config_file_has_a_table_for_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "linkspan.toml"
    text = (
        '[workflows]\nkeep-runs = 20\nkeep-for = "30d"\nkeep-sources = 2\nuntrusted-verbs = ["x"]\n'
    )
    file.write_text(text)
    assert run(["--config", str(file), "config", "check"]) == 0, capsys.readouterr()
    file.write_text(text.replace("20", "-1"))
    assert run(["--config", str(file), "config", "check"]) == 2
    said = capsys.readouterr()
    assert "keep-runs" in said.out + said.err
