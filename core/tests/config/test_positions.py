"""The key scanner agrees with tomllib on every document."""

import tomllib
from typing import Any

from hypothesis import given, strategies as st

from linkspan.core.config.positions import Path, Place, scan

DOCUMENT = '''# a comment with [brackets] and = signs
title = "one # not a comment"   # a comment
'quoted key' . "a\\u0062c".bare = 1979-05-27 07:32:00   # spaces inside

[ runtime . "oci" ] # header
args = [
  "a", # first
  ["b", {c = 1, d.e = [true]}],
]
text = """
x = "1" \\
"" \\""" """""
raw = \'\'\'
[not.a.table]
k = 1\'\'\'\'
dotted.key = -inf

[[item]]
name = 'first'
[item.sub]
x = 1
[[item.child]]
n = 1
[[item.child]]
n = 2
[[item]]
name = "second"
[[item.child]]
n = 3
'''


def flatten(value: Any, path: Path = ()) -> set[Path]:
    found: set[Path] = {path} if path else set()
    if isinstance(value, dict):
        for key, item in value.items():
            found |= flatten(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found |= flatten(item, (*path, index))
    return found


def leaves(value: Any, path: Path = ()) -> dict[Path, Any]:
    if isinstance(value, dict):
        return {p: v for k, item in value.items() for p, v in leaves(item, (*path, k)).items()}
    if isinstance(value, list) and value:
        return {p: v for i, item in enumerate(value) for p, v in leaves(item, (*path, i)).items()}
    return {path: value}


def cut(text: str, place: Place) -> str:
    line = text.split("\n")[place.value.line - 1]
    return line[place.value.column - 1 :][: place.value.length]


def test_every_path_of_the_document_has_a_place() -> None:
    assert set(scan(DOCUMENT)) == flatten(tomllib.loads(DOCUMENT))


def test_a_value_is_marked_from_its_first_to_its_last_character() -> None:
    places = scan(DOCUMENT)
    assert cut(DOCUMENT, places[("title",)]) == '"one # not a comment"'
    assert cut(DOCUMENT, places[("quoted key", "abc", "bare")]) == "1979-05-27 07:32:00"
    assert cut(DOCUMENT, places[("runtime", "oci", "args", 1, 1, "d", "e", 0)]) == "true"
    assert cut(DOCUMENT, places[("runtime", "oci", "dotted", "key")]) == "-inf"


def test_a_table_is_found_at_its_name_in_the_header() -> None:
    places = scan(DOCUMENT)
    header = places[("runtime", "oci")]
    assert DOCUMENT.split("\n")[header.key.line - 1][header.key.column - 1 :][:5] == '"oci"'


def test_each_entry_of_an_array_of_tables_has_its_own_place() -> None:
    places = scan(DOCUMENT)
    lines = [places[("item", i)].key.line for i in (0, 1)]
    assert lines == [n for n, line in enumerate(DOCUMENT.split("\n"), 1) if line == "[[item]]"]
    assert places[("item", 1, "child", 0, "n")].key.line > lines[1]


def test_a_header_that_defines_a_table_is_its_place_even_when_a_child_came_first() -> None:
    assert scan("[a.b]\n[a]\n")[("a",)].key.line == 2


def test_carriage_returns_shift_no_column() -> None:
    place = scan('a = 1\r\nb = "x"\r\n')[("b",)]
    assert (place.key.line, place.value.column, place.value.length) == (2, 5, 3)


bare = st.text("abcXYZ019_-", min_size=1, max_size=4)
quoted = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), max_codepoint=0x2FFF), max_size=5
).map(lambda s: '"' + s.replace("\\", "\\\\").replace('"', '\\"') + '"')
literal = st.text('ab#=[]{}., "\\', max_size=5).map(lambda s: f"'{s}'")
key = st.one_of(bare, quoted, literal)
dotted = st.lists(key, min_size=1, max_size=3).map(" . ".join)
space = st.sampled_from(["", " ", "\t", "  "])
blank = st.sampled_from(["", " ", "\n", " # c ] } \" '\n", "\n\n\t"])
scalar = st.one_of(
    quoted,
    literal,
    st.integers().map(str),
    st.sampled_from(
        [
            "true",
            "1.5e3",
            "inf",
            "0xff",
            "1979-05-27T07:32:00Z",
            "1979-05-27 07:32:00.5",
            "07:32:00",
        ]
    ),
    st.text('ab"\n #=\\', max_size=8).map(
        lambda s: '"""' + s.replace("\\", "\\\\").replace('"""', '""\\"') + '"""'
    ),
    st.text('ab"\n#=\\[]', max_size=8).map(lambda s: f"'''{s}'''"),
)


def array(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    item = st.tuples(blank, values, blank).map("".join)
    return st.tuples(st.lists(item, max_size=3).map(",".join), st.booleans(), blank).map(
        lambda t: f"[{t[0]}{',' if t[1] and t[0].strip() else ''}{t[2]}]"
    )


def inline(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pair = st.tuples(space, dotted, space, st.just("="), space, values, space).map("".join)
    return st.lists(pair, max_size=3).map(lambda pairs: "{" + ",".join(pairs) + "}")


value = st.recursive(scalar, lambda inner: array(inner) | inline(inner), max_leaves=6)
pair = st.tuples(
    space, dotted, space, st.just("="), space, value, st.sampled_from(["", " # c = [1]"])
).map("".join)
header = st.tuples(dotted, space, st.booleans()).map(
    lambda t: f"[[{t[1]}{t[0]}{t[1]}]]" if t[2] else f"[{t[1]}{t[0]}{t[1]}] # h"
)
document = st.lists(st.one_of(pair, header, st.just("# comment"), st.just("")), max_size=8).map(
    "\n".join
)


@given(document)
def test_the_scanner_finds_what_tomllib_reads(text: str) -> None:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    places = scan(text)
    assert set(places) == flatten(data)
    for path, expected in leaves(data).items():
        if path and not isinstance(expected, dict) and "\n" not in str(expected):
            shown = cut(text.replace("\r\n", "\n"), places[path])
            if shown.startswith(('"""', "'''")):
                continue
            if isinstance(expected, list):
                assert shown.startswith("[")
            else:
                assert tomllib.loads(f"k = {shown}")["k"] == expected


@given(st.lists(st.tuples(bare, value), max_size=5, unique_by=lambda t: t[0]))
def test_the_scanner_finds_every_value_of_a_valid_document(pairs: list[tuple[str, str]]) -> None:
    text = "\n".join(f"{k} = {v}" for k, v in pairs)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    places = scan(text)
    assert set(places) == flatten(data)
    line = 1
    for name, written in pairs:
        assert places[(name,)].key.line == line
        line += written.count("\n") + 1
