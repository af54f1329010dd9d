"""Whatever is thrown at it: an answer with a place, in a time that does not run away."""

import time

import pytest
from hypothesis import given, settings, strategies as st

from linkspan.workflows.check import check
from linkspan.workflows.loading import keys
from linkspan.workflows.reader import Keys
from linkspan.workflows.verbs import Verbs

NONE = Verbs([])
HEAD = "linkspan: v1\ndefaults: {image: busybox}\n"
GOOD = HEAD + "jobs:\n  a: {steps: [{run: x}]}\n"


def found(data):
    return check(data, "f.yaml", NONE).diagnostics


def ids(data):
    return [d.id for d in found(data)]


@pytest.mark.parametrize(
    ("data", "expected", "place"),
    [
        (b"", "LS1008", "f.yaml:1:1"),
        (b"# nothing\n", "LS1008", "f.yaml:1:1"),
        (b"\xef\xbb\xbf", "LS1008", "f.yaml:1:1"),
        (b"x" * (50 << 20), "LS1007", "f.yaml"),
        (bytes(range(256)) * 100, "LS1007", "f.yaml:2:118"),
        (b"\x7fELF\x02\x01\x01\x00", "LS1007", "f.yaml:1:1"),
        (b"jobs: " + b"[" * 500_000, "LS1007", "f.yaml:1:106"),
        (
            b"jobs:\n" + b"".join(b" " * n + b"a:\n" for n in range(1, 200)),
            "LS1007",
            "f.yaml:101:101",
        ),
        (b"caf\xe9: 1\n", "LS1007", "f.yaml:1:4"),
        (b"\xff\xfej\x00o\x00b\x00s\x00", "LS1007", "f.yaml:1:1"),
        ((GOOD + "jobs: {}\n").encode(), "LS1002", "f.yaml:5:1"),
        (GOOD.replace("v1", "v7").encode(), "LS1015", "f.yaml:1:11"),
        (GOOD.replace("v1", "1.0").encode(), "LS1015", "f.yaml:1:11"),
        (b"- a\n- b\n", "LS1010", "f.yaml:1:1"),
        (b"just a text\n", "LS1010", "f.yaml:1:1"),
        (GOOD.encode() + b"---\na: 1\n", "LS1006", "f.yaml:5:1"),
        (GOOD.encode() + b"\t# tab\n\tb: 1\n", "LS1003", "f.yaml:5:1"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_file_that_is_no_pipeline_is_answered_with_its_place(data, expected, place):
    diagnostics = found(data)
    assert (diagnostics[0].id, diagnostics[0].place) == (expected, place)


def test_an_alias_bomb_is_refused_before_it_grows():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert ids("\n".join(lines)) == ["LS1007"]


def test_windows_line_ends_change_nothing_but_themselves():
    text = HEAD + "jobs:\n  a: {need: b, steps: [{run: x}]}\n"
    unix, windows = found(text), found(text.replace("\n", "\r\n").encode())
    assert [(d.id, d.place) for d in unix] == [(d.id, d.place) for d in windows]


def test_many_faults_are_found_in_a_time_that_grows_with_the_file_only():
    jobs = "".join(f"  j{n}: {{needs: [k{n}], stepz: [{{run: x}}]}}\n" for n in range(1_000))
    began = time.process_time()
    diagnostics = found(HEAD + "jobs:\n" + jobs)
    assert len(diagnostics) >= 2_000
    assert time.process_time() - began < 30


def test_the_cost_of_a_job_does_not_grow_with_their_number():
    def cost(jobs):
        lines = "".join(
            f"  j{n}: {{needs: [{f'j{n - 1}' if n else ''}], if: success(), steps: [{{run: x}}]}}\n"
            for n in range(jobs)
        )
        text = f"{HEAD}jobs:\n{lines}finally: {{z: {{steps: [{{run: x}}]}}}}\n"
        began = time.process_time()
        assert not found(text)
        return (time.process_time() - began) / jobs

    few = min(cost(500) for _ in range(3))
    assert cost(5_000) < 6 * few


def test_the_cost_of_a_step_does_not_grow_with_their_number():
    def cost(steps):
        lines = "".join(
            f"      - {{id: s{n}, run: x, if: \"steps.s{max(0, n - 1)}.result == 'x'\"}}\n"
            for n in range(1, steps)
        )
        text = f"{HEAD}jobs:\n  a:\n    steps:\n      - {{id: s0, run: x}}\n{lines}"
        began = time.process_time()
        assert not found(text)
        return (time.process_time() - began) / steps

    few = min(cost(250) for _ in range(3))
    assert cost(4_000) < 6 * few


VALUES = st.recursive(
    st.one_of(
        st.sampled_from(
            ["10m", "yes", "${{ x }}", "${{", "a: b", "*a", "&a b", "!!int 3", "'", "", "~", "- x"]
        ),
        st.integers().map(str),
        st.text(max_size=8),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.dictionaries(
            st.sampled_from(["run", "uses", "matrix", "x", "<<"]), inner, max_size=3
        ).map(lambda d: "{" + ", ".join(f"{k}: {v}" for k, v in d.items()) + "}"),
    ),
    max_leaves=6,
)
TABLES = [value for value in vars(keys).values() if isinstance(value, Keys)]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(TABLES), st.data())
def test_no_key_and_no_value_makes_it_fail(table, data):
    chosen = data.draw(st.lists(st.sampled_from(table.known), max_size=5))
    body = "{" + ", ".join(f"{key}: {data.draw(VALUES)}" for key in chosen) + "}"
    shells = {
        "job": "jobs: {a: %s}",
        "step": "jobs: {a: {steps: [%s]}}",
        "service": "jobs: {a: {services: {s: %s}, steps: [{run: x}]}}",
        "strategy": "jobs: {a: {strategy: %s, steps: [{run: x}]}}",
        "input": "inputs: {i: %s}",
        "secret": "secrets: {S: %s}",
        "retry": "jobs: {a: {steps: [{run: x, retry: %s}]}}",
        "schedule": "on: {schedule: [%s]}",
        "webhook": "on: {webhook: %s}",
        "requirement": "requires: [%s]",
        "concurrency": "concurrency: %s",
        "cache": "jobs: {a: {cache: [%s], steps: [{run: x}]}}",
        "top": "%s",
    }
    text = (
        shells.get(table.table, f"jobs: {{a: {{steps: [{{run: x}}], {table.table}: %s}}}}") % body
    )
    for diagnostic in found(f"linkspan: v1\n{text}\n"):
        assert diagnostic.id.startswith("LS")
        assert diagnostic.primary is None or diagnostic.primary.span.line >= 1


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail(data):
    assert found(data) or data


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 400), st.text(max_size=6))
def test_a_damaged_pipeline_is_answered(at, junk):
    whole = GOOD + "finally: {z: {needs: a, steps: [{uses: y, with: {a: [1, {b: c}]}}]}}\n"
    text = whole[: at % len(whole)] + junk + whole[at % len(whole) :]
    found(text)
