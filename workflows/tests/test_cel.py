"""Where our expressions and CEL mean the same, they give the same: cel-python is asked."""

import functools
from contextlib import suppress

import celpy
import pytest
from hypothesis import given, settings, strategies as st

from linkspan.workflows.expressions import (
    EvaluationFailed,
    ExpressionInvalid,
    Kind,
    Scope,
    Type,
    evaluate,
    infer,
    parse,
)
from linkspan.workflows.expressions.types import BOOL, NUMBER, TEXT, of_value

CONTEXT = {
    "n": {"zero": 0, "three": 3, "minus": -2},
    "s": {"empty": "", "a": "a", "long": "some text"},
    "b": {"yes": True, "no": False},
    "l": {"numbers": [0, 1, 3], "texts": ["a", "b"]},
}
TYPES = {
    "n": NUMBER,
    "s": TEXT,
    "b": BOOL,
}


def contexts():
    found = {
        name: Type(kind=Kind.MAP, fields=dict.fromkeys(CONTEXT[name], kind))
        for name, kind in TYPES.items()
    }
    lists = {
        "numbers": Type(kind=Kind.LIST, item=NUMBER),
        "texts": Type(kind=Kind.LIST, item=TEXT),
    }
    return {**found, "l": Type(kind=Kind.MAP, fields=lists)}


def member(name):
    keys = st.sampled_from(sorted(CONTEXT[name]))
    return st.one_of(
        keys.map(lambda key: f"{name}.{key}"), keys.map(lambda key: f"{name}['{key}']")
    )


def ternary(inner, condition):
    return st.builds(lambda c, a, b: f"(({c}) ? ({a}) : ({b}))", condition, inner, inner)


@functools.cache
def numbers(depth):
    base = st.one_of(st.integers(-9, 9).map(str), member("n"), st.just("l.numbers[2]"))
    return base if depth == 0 else st.one_of(base, ternary(numbers(depth - 1), bools(depth - 1)))


@functools.cache
def texts(depth):
    base = st.one_of(
        st.sampled_from(["'a'", '"b"', "''", "'some text'", "'it\\'s'"]),
        member("s"),
        st.just("l.texts[1]"),
    )
    return base if depth == 0 else st.one_of(base, ternary(texts(depth - 1), bools(depth - 1)))


@functools.cache
def bools(depth):
    base = st.one_of(st.sampled_from(["true", "false"]), member("b"))
    if depth == 0:
        return base
    number, text, inner = numbers(depth - 1), texts(depth - 1), bools(depth - 1)
    signs = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
    comparison = st.one_of(
        st.builds(lambda a, sign, b: f"{a} {sign} {b}", number, signs, number),
        st.builds(lambda a, sign, b: f"{a} {sign} {b}", text, signs, text),
    )
    lists = st.lists(text, min_size=1, max_size=3).map(lambda items: f"[{', '.join(items)}]")
    return st.one_of(
        base,
        comparison,
        st.builds(lambda a, b: f"{a} in {b}", text, st.one_of(lists, st.just("l.texts"))),
        st.builds(lambda a: f"{a} in l.numbers", number),
        st.builds(lambda a: f"{a} in n", text),
        st.builds(
            lambda a, sign, b: f"({a}) {sign} ({b})", inner, st.sampled_from(["&&", "||"]), inner
        ),
        # Without brackets: the two must agree on what binds closer.
        st.builds(lambda a, b, c: f"{a} && {b} || !{c}", base, base, base),
        st.builds(lambda a, b, c: f"{a} || {b} ? {c} : {a}", base, base, base),
        inner.map(lambda a: f"!({a})"),
    )


@pytest.fixture(scope="module")
def cel():
    environment = celpy.Environment()
    activation = {name: celpy.json_to_cel(value) for name, value in CONTEXT.items()}

    def ask(source):
        return environment.program(environment.compile(source)).evaluate(activation)

    return ask


@settings(max_examples=250, deadline=None)
@given(source=st.one_of(bools(3), numbers(3), texts(3)))
def test_the_shared_subset_means_the_same(cel, source):
    tree = parse(source)
    found, faults = infer(tree, contexts(), source)
    assert faults == []
    ours = evaluate(tree, Scope(contexts=CONTEXT))
    assert of_value(ours).kind is found.kind
    theirs = cel(source)
    assert ours == (bool(theirs) if isinstance(ours, bool) else theirs), source


WORDS = st.sampled_from(
    [
        *("inputs", "n.three", "s.a", "b.yes", "l.texts", "secrets.X", "matrix.os"),
        *("'a'", '"b"', "3", "-1", "2.5", "true", "null", "'", "\\", "\n"),
        *("&&", "||", "!", "==", "!=", "<", "<=", "in", "=~", "?", ":", "+", "#", "{{", "}}"),
        *(".", "[", "]", "(", ")", ",", "success()", "contains(", "format(", "default("),
        "from_json(",
    ]
)


@settings(max_examples=500, deadline=None)
@given(st.lists(WORDS, max_size=14).map(" ".join))
def test_no_arrangement_of_words_makes_it_fail(source):
    fault = fault_of_text(source)
    if fault is not None:
        assert 0 <= fault.start <= fault.end
        return
    tree = parse(source)
    _, faults = infer(tree, contexts(), source)
    for each in faults:
        assert 0 <= each.start <= each.end <= len(source)
    if not faults:
        # What the check has let through has a value, or a reason why not.
        with suppress(EvaluationFailed):
            evaluate(tree, Scope(contexts=CONTEXT))


def fault_of_text(source):
    try:
        parse(source)
    except ExpressionInvalid as invalid:
        return invalid.fault
    return None
