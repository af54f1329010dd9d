from contextlib import suppress

import pytest
from hypothesis import given, strategies as st

from linkspan.workflows.check import check
from linkspan.workflows.parse import (
    MAX_BYTES,
    Document,
    Mapping,
    ParseFailed,
    Scalar,
    Sequence,
    decode,
    parse,
    walk,
)
from linkspan.workflows.verbs import Verbs


def fault(text):
    with pytest.raises(ParseFailed) as caught:
        parse(text if isinstance(text, str) else decode(text, "f.yaml"), "f.yaml")
    (diagnostic,) = caught.value.diagnostics
    return diagnostic


def place(diagnostic):
    return diagnostic.id, diagnostic.primary.span.line, diagnostic.primary.span.column


def test_scalars_keep_what_was_written():
    document = parse("on: 3.10\nyes: '0777'\ntime: 12:30\n", "f.yaml")
    scalars = [(node.text, node.plain) for node in walk(document.root) if isinstance(node, Scalar)]
    assert scalars == [
        ("on", True),
        ("3.10", True),
        ("yes", True),
        ("0777", False),
        ("time", True),
        ("12:30", True),
    ]


def test_a_comment_alone_is_an_empty_document():
    assert parse("# nothing\n", "f.yaml").root is None


def test_an_alias_is_the_node_of_its_anchor():
    root = parse("a: &x [1, 2]\nb: *x\n", "f.yaml").root
    assert isinstance(root, Mapping)
    assert root.entries[0][1] is root.entries[1][1]


def test_windows_line_ends_and_a_byte_order_mark_are_accepted():
    document = parse(decode(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n", "f.yaml"), "f.yaml")
    assert isinstance(document.root, Mapping)
    assert document.root.entries[1][0].span.line == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:\n\tb: 1\n", ("LS1003", 2, 1)),
        ("a: |\n  text\n\tx: 1\n", ("LS1003", 3, 1)),
        ("- a: b: c\n", ("LS1004", 1, 7)),
        ("a: *b\n", ("LS1005", 1, 4)),
        ("a: &a [*a]\n", ("LS1005", 1, 8)),
        ("a: [1,\nb: 2\n", ("LS1006", 3, 1)),
        ("a: !!python/object:os.system {}\n", ("LS1006", 1, 4)),
        ("a: 1\n---\nb: 2\n", ("LS1006", 2, 1)),
        ("a: 'x\n", ("LS1006", 2, 1)),
        ("a: \x01\n", ("LS1007", 1, 4)),
        (b"a: \xff\n", ("LS1007", 1, 4)),
        (b"\xc3\xa4: \xff\n", ("LS1007", 1, 4)),
    ],
)
def test_text_that_is_no_pipeline_is_named_by_its_place(text, expected):
    assert place(fault(text)) == expected


def test_deep_nesting_ends_at_a_limit_and_draws_no_endless_line():
    diagnostic = fault("[" * 5000)
    assert place(diagnostic) == ("LS1007", 1, 101)


def test_aliases_that_multiply_are_stopped_before_they_are_walked():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, 9):
        items = ", ".join([f"*a{level - 1}"] * 10)
        lines.append(f"a{level}: &a{level} [{items}]")
    assert fault("\n".join(lines)).id == "LS1007"


def test_a_file_larger_than_the_limit_is_refused():
    assert fault(b"#" * (MAX_BYTES + 1)).id == "LS1007"


@given(st.text(max_size=200))
def test_no_text_makes_the_parser_raise_anything_else(text):
    with suppress(ParseFailed):
        parse(text, "f.yaml")


@given(st.binary(max_size=200))
def test_no_bytes_make_the_checker_raise(data):
    check(data, "f.yaml", Verbs([]))


_leaf = st.sampled_from(
    ["a", "3.10", "true", "''", "null", "[1, 2]", "{a: b}", "${{ inputs.x }}", "'${{ x'", "10m"]
)
_WORDS = "linkspan name on inputs env defaults jobs finally steps run uses with needs if image x"
_keys = st.sampled_from(_WORDS.split())
_tree = st.recursive(_leaf, lambda inner: st.dictionaries(_keys, inner, max_size=4), max_leaves=12)


def _yaml(tree, indent=0):
    if isinstance(tree, str):
        return tree
    if not tree:
        return "{}"
    pad = "  " * indent
    return "\n" + "\n".join(f"{pad}{k}: {_yaml(v, indent + 1)}" for k, v in tree.items())


@given(st.dictionaries(_keys, _tree, max_size=6))
def test_no_arrangement_of_keys_makes_the_checker_raise(tree):
    checked = check(_yaml(tree).lstrip("\n") + "\n", "f.yaml", Verbs([]))
    for diagnostic in checked.diagnostics:
        assert diagnostic.primary is None or diagnostic.primary.span.line >= 1


@pytest.mark.parametrize(
    "text",
    [
        "a: x${{ y }}",
        "a: 'x''${{ y }}'",
        'a: "x\\t${{ y }}"',
        "a: |\n    x\n    ${{ y }}\n",
        "a: >\n  x\n  z ${{ y }}\n",
    ],
)
def test_a_place_in_a_value_is_found_in_the_file(text):
    document = parse(text, "f.yaml")
    assert isinstance(document.root, Mapping)
    node = document.root.entries[0][1]
    assert isinstance(node, Scalar)
    index = document.index_in(node, node.text.index("${{"))
    assert text[index : index + 3] == "${{"


def test_spans_end_with_their_line():
    document = Document(file="f", text="abc\ndef", root=None)
    span = document.span_at(2, 10)
    assert (span.line, span.column, span.length) == (1, 3, 1)
    assert isinstance(parse("[a]", "f").root, Sequence)
