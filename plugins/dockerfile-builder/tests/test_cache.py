"""The records of finished steps."""

import attrs
import pytest

from linkspan.plugins.dockerfile_builder.cache import StepCache, StepRecord, step_key

ONE = StepRecord(layer="sha256:1", diff_id="sha256:2", size_bytes=3, created="now")
TWO = StepRecord(layer="sha256:4")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "steps.jsonl"


def reopened(path):
    cache = StepCache(path)
    cache.load()
    return cache


def test_what_is_put_is_there_after_a_restart(path):
    cache = reopened(path)
    cache.put("a", ONE)
    cache.put("b", TWO)
    cache.forget(["b", "c"])
    again = reopened(path)
    assert again.get("a") == ONE
    assert again.get("b") is None
    assert again.layers() == {"sha256:1": ONE}


@pytest.mark.parametrize("left", ['{"key": "b", "lay', "[1]", '{"key": 1', "nonsense", '{"x": 1}'])
def test_half_a_line_of_a_crash_is_ignored_and_not_built_on(path, left):
    reopened(path).put("a", ONE)
    with path.open("a") as file:
        file.write(left)
    cache = reopened(path)
    assert cache.get("a") == ONE
    cache.put("c", TWO)
    assert reopened(path).get("c") == TWO


def test_the_file_is_written_anew_when_it_holds_old_lines(path):
    cache = reopened(path)
    for _ in range(10):
        cache.put("a", ONE)
    assert len(path.read_text().splitlines()) == 10
    reopened(path)
    assert len(path.read_text().splitlines()) == 1


def test_what_is_forgotten_is_gone_from_file_and_memory(path):
    cache = reopened(path)
    cache.put("a", ONE)
    cache.forget(["a"])
    assert cache.get("a") is None
    assert reopened(path).layers() == {}


def test_uses_are_counted_over_restarts(path):
    cache = reopened(path)
    cache.put("a", attrs.evolve(ONE, made_at=5.0))
    assert (cache.use_of("a").at, cache.use_of("a").count) == (5.0, 0)
    for _ in range(3):
        cache.mark_used("a")
    cache.mark_used("gone")
    cache.save_uses()
    again = reopened(path)
    assert again.use_of("a").count == 3
    assert again.use_of("a").at > 5.0
    again.mark_used("a")
    again.save_uses()
    for _ in range(3):
        again.put("b", TWO)
    assert reopened(path).use_of("a").count == 4


def test_a_key_depends_on_facts_and_not_on_their_order():
    assert step_key(a=1, b=["x"]) == step_key(b=["x"], a=1)
    assert step_key(a=1) != step_key(a=2)
    assert step_key(a="\udce9")
