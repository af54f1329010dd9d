"""Protocol Buffers as they travel (proto3): tags, varints, and pieces with a length in front.

The dozen messages that are spoken here need no generated classes: whoever reads one asks for fields by
number, and whoever writes one gives a table of numbers and values.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

_VARINT: Final = 0
_FIXED64: Final = 1
_BYTES: Final = 2
_FIXED32: Final = 5
_MAX_VARINT_BYTES: Final = 10
_MASK64: Final = (1 << 64) - 1

Value = str | bytes | int | Mapping[str, str] | Sequence[bytes] | Sequence[str] | None
"""What a field may hold: a list is a repeated field, a mapping a ``map<string, string>``."""


class WireError(ValueError):
    """The bytes are no message."""


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of up to 64 bits, and where what follows it begins.

    Raises:
        WireError: It is cut off or too long.
    """
    value = shift = 0
    for count in range(_MAX_VARINT_BYTES):
        if at + count >= len(data):
            raise WireError("a number is cut off")
        byte = data[at + count]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _MASK64, at + count + 1
        shift += 7
    raise WireError("a number is too long")


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field, in order: an integer as it is unsigned, or bytes.

    Raises:
        WireError: They are no message.
    """
    at, end = 0, len(data)
    while at < end:
        tag = data[at]
        if tag < 0x80:
            at += 1
        else:
            tag, at = read_varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == _BYTES:
            # Most are shorter than 128 bytes.
            if at < end and data[at] < 0x80:
                size, at = data[at], at + 1
            else:
                size, at = read_varint(data, at)
            if size > end - at:
                raise WireError(f"field {number} is cut off")
            yield number, data[at : at + size]
            at += size
        elif kind == _VARINT:
            value, at = read_varint(data, at)
            yield number, value
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
            if size > end - at:
                raise WireError(f"field {number} is cut off")
            yield number, int.from_bytes(data[at : at + size], "little")
            at += size
        else:
            raise WireError(f"field {number} is of the unknown kind {kind}")


def signed(value: int) -> int:
    """A number as ``int64`` and ``int32`` have it."""
    return value - (1 << 64) if value >> 63 else value


class Message:
    """A message that was read. What is missing is empty, as in proto3."""

    def __init__(self, data: bytes) -> None:
        """Read it. Raises WireError."""
        self._fields: dict[int, list[int | bytes]] = {}
        for number, value in fields(data):
            self._fields.setdefault(number, []).append(value)

    def data(self, number: int) -> bytes:
        """The last value of a field of bytes."""
        value = self._fields.get(number, [b""])[-1]
        return value if isinstance(value, bytes) else b""

    def text(self, number: int) -> str:
        """The last value of a field of text."""
        return self.data(number).decode("utf-8", "replace")

    def number(self, number: int) -> int:
        """The last value of a number, with its sign."""
        value = self._fields.get(number, [0])[-1]
        return signed(value) if isinstance(value, int) else 0

    def all(self, number: int) -> list[bytes]:
        """All values of a repeated field of bytes or messages."""
        return [value for value in self._fields.get(number, ()) if isinstance(value, bytes)]

    def texts(self, number: int) -> list[str]:
        """All values of a repeated field of text."""
        return [value.decode("utf-8", "replace") for value in self.all(number)]

    def text_map(self, number: int) -> dict[str, str]:
        """A ``map<string, string>``."""
        entries = [Message(value) for value in self.all(number)]
        return {entry.text(1): entry.text(2) for entry in entries}

    def data_map(self, number: int) -> dict[str, bytes]:
        """A ``map<string, bytes>``."""
        entries = [Message(value) for value in self.all(number)]
        return {entry.text(1): entry.data(2) for entry in entries}


def varint(value: int) -> bytes:
    """A number as it travels; a negative one in ten bytes."""
    value &= _MASK64
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def message(values: Mapping[int, Value]) -> bytes:
    """The bytes of a message; fields that are empty are left out, as proto3 does.

    Args:
        values: By number, in ascending order.
    """
    out: list[bytes] = []
    for number, value in values.items():
        if isinstance(value, int):
            if value:
                out += varint(number << 3), varint(value)
        elif isinstance(value, Mapping):
            for key, text in value.items():
                out += _piece(number, message({1: key, 2: text}))
        elif isinstance(value, str | bytes):
            if value:
                out += _piece(number, value)
        elif value is not None:
            for item in value:
                out += _piece(number, item)
    return b"".join(out)


def _piece(number: int, value: str | bytes) -> tuple[bytes, bytes, bytes]:
    data = value.encode("utf-8", "replace") if isinstance(value, str) else value
    return varint(number << 3 | _BYTES), varint(len(data)), data


def timestamp(seconds: float) -> bytes:
    """A ``google.protobuf.Timestamp`` of a time since the epoch."""
    whole = int(seconds // 1)
    return message({1: whole, 2: int((seconds - whole) * 1e9)})
