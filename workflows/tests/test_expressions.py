import json
import re
from contextlib import suppress

import pytest
from hypothesis import assume, example, given, settings, strategies as st

from linkspan.workflows.expressions import (
    EvaluationFailed,
    ExpressionInvalid,
    Kind,
    Scope,
    Type,
    decides_about_failure,
    evaluate,
    infer,
    parse,
)
from linkspan.workflows.expressions.patterns import Pattern, PatternError
from linkspan.workflows.expressions.types import ANY, LIST, NUMBER, TEXT

VALUES = {
    "inputs": {"n": 3, "s": "main", "b": True, "l": ["a", "b"], "none": None},
    "needs": {"unit-tests": {"result": "success"}},
}
TYPES = {
    "inputs": Type(
        kind=Kind.MAP,
        what="the inputs",
        fields={
            "n": NUMBER,
            "s": TEXT,
            "b": Type(kind=Kind.BOOL),
            "l": Type(kind=Kind.LIST, item=TEXT),
            "none": ANY,
        },
    ),
    "needs": Type(kind=Kind.MAP),
}


def value(source):
    return evaluate(parse(source), Scope(contexts=VALUES))


def faults(source):
    return [(f.id, source[f.start : f.end]) for f in infer(parse(source), TYPES, source)[1]]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("inputs.n == 3", True),
        ("inputs.n == 3.0", True),
        ("inputs.n > 2 && inputs.n <= 3", True),
        ("'a' < 'b'", True),
        ("!inputs.b || inputs.s == 'main'", True),
        ("needs.unit-tests.result == 'success'", True),
        ("needs['unit-tests'].result", "success"),
        ("inputs.l[1]", "b"),
        ("'b' in inputs.l", True),
        ("'n' in inputs", True),
        ("inputs.s =~ '^ma.n$'", True),
        ("inputs.b ? 'yes' : 'no'", "yes"),
        ("false ? 1 : true ? 2 : 3", 2),
        ("true || inputs.l[9] == 'x'", True),
        ("-1", -1),
        ("[1, 'a', null]", [1, "a", None]),
        ("'it\\'s'", "it's"),
        ("default(inputs.none, 'x')", "x"),
        ("default(inputs.s, 'x')", "main"),
        ("format('{0}-{1} {{}}', inputs.s, inputs.n)", "main-3 {}"),
        ("join(inputs.l, '+')", "a+b"),
        ("contains(inputs.l, 'a') && contains(inputs.s, 'ai')", True),
        ("starts_with(inputs.s, 'm') && ends_with(inputs.s, 'n')", True),
        ("glob(inputs.s, 'm*')", True),
        ("from_json('{\"a\": [1]}').a[0]", 1),
        ("from_json('{}').missing", None),
        ("to_json(inputs.l)", '["a","b"]'),
        ("1 == true", False),
        ("success() && !failure() && always()", True),
    ],
)
def test_an_expression_has_its_value(source, expected):
    assert value(source) == expected
    assert faults(source) == [] or source == "1 == true"


@pytest.mark.parametrize(
    ("source", "at"),
    [
        ("", 0),
        ("a and b", 2),
        ("a or b", 2),
        ("not a", 0),
        ("a = b", 2),
        ("a & b", 2),
        ("1 + 1", 2),
        ("a == b == c", 7),
        ("(a", 0),
        ("f(a", 1),
        ("a.", 1),
        ("'abc", 0),
        ("'a\\x'", 2),
        ("1.2.3", 0),
        ("a b", 2),
        ("== a", 0),
        ("a ==", 3),
        ("a ? b", 2),
        ("[1, 2", 0),
        ("a $ b", 2),
    ],
)
def test_what_cannot_be_read_is_named_by_its_place(source, at):
    with pytest.raises(ExpressionInvalid) as caught:
        parse(source)
    assert caught.value.fault.id == "LS1204"
    assert caught.value.fault.start == at


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("input.n", [("LS1201", "input")]),
        ("inputs.m", [("LS1201", "m")]),
        ("inputs['m']", [("LS1201", "'m'")]),
        ("inputs.s.x", [("LS1201", "x")]),
        ("main == inputs.s", [("LS1201", "main")]),
        ("suces()", [("LS1201", "suces")]),
        ("success(1)", [("LS1205", "success(1)")]),
        ("join(inputs.s)", [("LS1205", "inputs.s")]),
        ("inputs.n == 'x'", [("LS1203", "inputs.n == 'x'")]),
        ("inputs.n < 'x'", [("LS1203", "inputs.n < 'x'")]),
        ("inputs.b < true", [("LS1205", "inputs.b"), ("LS1205", "true")]),
        ("inputs.s && true", [("LS1205", "inputs.s")]),
        ("!inputs.n", [("LS1205", "inputs.n")]),
        ("1 in inputs.l", [("LS1203", "1 in inputs.l")]),
        ("'a' in 'abc'", [("LS1205", "'abc'")]),
        ("inputs.n =~ 'x'", [("LS1205", "inputs.n")]),
        ("inputs.s =~ '('", [("LS1204", "'('")]),
        ("inputs.l['a']", [("LS1205", "'a'")]),
        ("inputs.n ? 1 : 2", [("LS1205", "inputs.n")]),
    ],
)
def test_the_checker_names_what_is_wrong(source, expected):
    assert faults(source) == expected


def test_a_comparison_is_mended_by_its_help():
    (fault,) = infer(parse("inputs.s == 3"), TYPES, "inputs.s == 3")[1]
    assert fault.helps == ("quote it: inputs.s == '3'",)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("inputs.l[5]", "there is none at 5"),
        ("inputs.none && true", "must be true or false"),
        ("from_json('{')", "not JSON"),
        ("from_json('[1]') < 3", "compares a list with a number"),
        ("format('{3}', 'a')", "no value for {3}"),
        ("join([[1]])", "list cannot be put into a text"),
        ("starts_with(from_json('1'), 'a')", "argument 1 of starts_with"),
    ],
)
def test_a_value_that_does_not_fit_fails_with_its_place(source, message):
    with pytest.raises(EvaluationFailed, match=re.escape(message)):
        value(source)


def test_length_and_depth_are_limited():
    with pytest.raises(ExpressionInvalid):
        parse("a" * 5000)
    with pytest.raises(ExpressionInvalid):
        parse("(" * 60 + "a" + ")" * 60)
    with pytest.raises(ExpressionInvalid):
        parse("!" * 60 + "a")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("inputs.b", False),
        ("inputs.b && always()", True),
        ("needs.test.result == 'failed'", True),
        ("needs.test.outputs.x == 'failed'", False),
    ],
)
def test_a_condition_decides_about_failures_only_if_it_speaks_of_them(source, expected):
    assert decides_about_failure(parse(source)) is expected


# properties

_atoms = st.one_of(
    st.integers(-5, 5).map(str),
    st.sampled_from(["true", "false", "null", "'a'", "'main'", "inputs.n", "inputs.s", "inputs.b"]),
    st.sampled_from(["inputs.l", "inputs.none", "inputs.l[0]", "needs.unit-tests.result"]),
)


def _grow(inner):
    operators = st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "in", "&&", "||"])
    return st.one_of(
        st.tuples(inner, operators, inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        inner.map(lambda a: f"!{a}"),
        st.tuples(inner, inner, inner).map(lambda t: f"({t[0]} ? {t[1]} : {t[2]})"),
        st.tuples(inner, inner).map(lambda t: f"default({t[0]}, {t[1]})"),
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
    )


expressions = st.recursive(_atoms, _grow, max_leaves=8)


@given(st.text(max_size=80))
def test_no_text_makes_the_parser_raise_anything_else(source):
    with suppress(ExpressionInvalid):
        parse(source)


@given(expressions)
def test_an_expression_without_faults_evaluates_or_says_why(source):
    tree = parse(source)
    kind, found = infer(tree, TYPES, source)
    assume(not found)
    try:
        result = evaluate(tree, Scope(contexts=VALUES))
    except EvaluationFailed:
        return
    json.dumps(result)
    kinds = {bool: Kind.BOOL, int: Kind.NUMBER, str: Kind.TEXT, list: Kind.LIST}
    if kind.kind not in {Kind.ANY, Kind.NULL} and result is not None:
        assert kinds[type(result)] is kind.kind


def _as_python(tree):
    """The same expression for Python's own evaluator, as an oracle."""
    source = tree
    for ours, theirs in (("&&", " and "), ("||", " or "), ("true", "True"), ("false", "False")):
        source = source.replace(ours, theirs)
    return re.sub(r"!(?!=)", " not ", source)


_numbers = st.integers(-3, 3).map(str)
_comparisons = st.tuples(_numbers, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), _numbers)
_bools = st.recursive(
    st.one_of(st.sampled_from(["true", "false"]), _comparisons.map(lambda t: f"({' '.join(t)})")),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map(" ".join),
        inner.map(lambda a: f"(!{a})"),
        inner.map(lambda a: f"({a})"),
    ),
    max_leaves=10,
)


@given(_bools)
def test_logic_agrees_with_pythons(source):
    assert value(source) is eval(_as_python(source))


# patterns


@pytest.mark.parametrize(
    "pattern",
    ["(", ")", "[", "a{2", "*a", "(?=a)", "(?P<x>a)", "\\1", "a{3,2}", "[b-a]", "\\", "x" * 300],
)
def test_a_pattern_outside_the_subset_is_refused(pattern):
    with pytest.raises(PatternError):
        Pattern(pattern)


_pattern_atoms = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", "\\d", "\\w", "\\.", "[a-c]", "0"])
_patterns = st.recursive(
    _pattern_atoms,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda t: f"({t[0]}|{t[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{1,2}", "{2}", "{0,}"])).map(
            lambda t: f"(?:{t[0]}){t[1]}"
        ),
    ),
    max_leaves=6,
)


@settings(max_examples=300)
@given(_patterns, st.text(alphabet="ab0.\n", max_size=8))
@example("(?:(?:a)*)*", "b")
def test_patterns_agree_with_pythons(pattern, text):
    assert Pattern(pattern).search(text) is bool(re.search(pattern, text))
    assert Pattern(pattern).fullmatch(text) is bool(re.fullmatch(pattern, text))
    anchored = f"^{pattern}$"
    assert Pattern(anchored).search(text) is bool(re.fullmatch(pattern, text))


def test_a_pattern_that_ruins_backtracking_is_quick():
    assert not Pattern("^(a+)+$").search("a" * 3000 + "b")
    assert LIST.kind is Kind.LIST
