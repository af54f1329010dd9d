"""JSON that comes and goes over HTTP."""

import json

import pytest

from linkspan.sdk.http import json_response, parse_json


def test_what_is_no_text_becomes_the_sign_for_it() -> None:
    assert parse_json(b'{"a\\ud800": ["\\udfff", {"b": "\\ud83d\\ude00"}]}') == {
        "a\ufffd": ["\ufffd", {"b": "\U0001f600"}]
    }
    assert parse_json(b'"\xed\xa0\x80\xff"') == "\ufffd" * 4
    assert parse_json('[1, "ä"]') == [1, "ä"]
    with pytest.raises(ValueError, match="Expecting"):
        parse_json(b"{")
    with pytest.raises(ValueError, match="NaN is no JSON"):
        parse_json(b"[NaN]")


def test_names_that_are_no_text_are_answered_all_the_same() -> None:
    name = b"a\xff".decode(errors="surrogateescape")
    assert json.loads(json_response({"Path": name}).body) == {"Path": "a?"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * 100_000, "exceeded max depth"),
        ('{"a":' * 100_000, "exceeded max depth"),
        ("9" * 100_000, "a number has too many digits"),
    ],
)
def test_json_that_nobody_means_is_refused_in_words(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{why}$"):
        parse_json(text)
