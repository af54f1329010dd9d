import contextlib

import pytest
from hypothesis import given, strategies as st

from linkspan.plugins.docker_api.buildkit.wire import (
    Message,
    WireError,
    fields,
    message,
    read_varint,
    varint,
)


@given(st.integers(-(1 << 63), (1 << 63) - 1), st.text(max_size=300), st.binary(max_size=300))
def test_what_was_written_is_read(number: int, text: str, data: bytes) -> None:
    text = text.encode("utf-8", "replace").decode()
    wire = message({1: number, 3: text, 200: data, 201: ["a", ""], 202: {"k": text}})
    read = Message(wire)
    assert (read.number(1), read.text(3), read.data(200)) == (number, text, data)
    assert read.texts(201) == ["a", ""]
    assert read.text_map(202) == {"k": text}
    assert (read.number(9), read.text(9), read.all(9), read.text_map(9)) == (0, "", [], {})


def test_numbers_are_written_as_the_specification_has_them() -> None:
    assert varint(150) == b"\x96\x01"
    assert message({1: 150}) == b"\x08\x96\x01"
    assert message({2: "testing"}) == b"\x12\x07testing"
    assert message({1: -1}) == b"\x08" + b"\xff" * 9 + b"\x01"
    assert list(fields(b"\x0d\x01\x00\x00\x00\x11\x02" + bytes(7))) == [(1, 1), (2, 2)]


@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(WireError):
        Message(data)


@pytest.mark.parametrize(
    "data",
    [b"\x08", b"\x0a\x05abc", b"\x0b", b"\x0d\x00", b"\x80" * 11, b"\x0a" + b"\xff" * 9 + b"\x01"],
)
def test_a_message_that_is_cut_off_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        Message(data)


def test_a_number_of_too_many_bytes_is_refused() -> None:
    with pytest.raises(WireError):
        read_varint(b"\x80" * 10 + b"\x01", 0)
