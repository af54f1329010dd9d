"""The few DNS messages that the name service reads and writes (RFC 1035 section 4, RFC 6891 section 6).

Pure functions over bytes. Everything that is read is hostile: nothing but ``Malformed`` is raised.
"""

import struct
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

from linkspan.plugins.bridge_network.ipam import Address
from linkspan.sdk.values import frozen

A, PTR, AAAA, OPT = 1, 12, 28, 41
IN = 1
NO_ERROR, FORMAT_ERROR, SERVER_FAILURE, NAME_ERROR, NOT_IMPLEMENTED, REFUSED = 0, 1, 2, 3, 4, 5
PLAIN_UDP_SIZE = 512
LARGEST = 65535
TTL_S = 1
"""Addresses change with every start; caching them is the kernel's and the client's loss."""

_HEADER = struct.Struct("!HHHHHH")
_RESPONSE, _AUTHORITATIVE, _TRUNCATED, _RECURSION_DESIRED, _RECURSION_AVAILABLE = (
    0x8000,
    0x0400,
    0x0200,
    0x0100,
    0x0080,
)
_OPCODE = 0x7800
_POINTER_TO_QUESTION = b"\xc0\x0c"


class Malformed(Exception):
    """Not a question that can be answered; ``reply`` says so, None means: say nothing."""

    def __init__(self, reply: bytes | None) -> None:
        super().__init__("malformed DNS message")
        self.reply = reply


@frozen(kw_only=True)
class Question:
    """A question with what an answer needs of it.

    Attributes:
        name: In lower case, without the final dot.
        raw: The question section as it was asked, so that an answer keeps its case.
        udp_size: What the client takes over udp.
    """

    id: int
    flags: int
    name: str
    kind: int
    klass: int
    raw: bytes
    udp_size: int = PLAIN_UDP_SIZE


def parse_question(data: bytes) -> Question:
    """Read a query with one question.

    Raises:
        Malformed: Anything else.
    """
    if len(data) < _HEADER.size:
        raise Malformed(None)
    ident, flags, questions, answers, authorities, additions = _HEADER.unpack_from(data)
    if flags & _RESPONSE:
        raise Malformed(None)
    if flags & _OPCODE:
        raise Malformed(_header(ident, flags, NOT_IMPLEMENTED))
    try:
        if questions != 1:
            raise ValueError
        labels, offset = _labels(data, _HEADER.size)
        kind, klass = struct.unpack_from("!HH", data, offset)
    except (ValueError, struct.error):
        raise Malformed(_header(ident, flags, FORMAT_ERROR)) from None
    offset += 4
    plain = answers == 0 and authorities == 0 and additions > 0
    return Question(
        id=ident,
        flags=flags,
        name=".".join(labels),
        kind=kind,
        klass=klass,
        raw=data[_HEADER.size : offset],
        udp_size=_udp_size(data, offset) if plain else PLAIN_UDP_SIZE,
    )


def _labels(data: bytes, offset: int) -> tuple[list[str], int]:
    labels: list[str] = []
    start = offset
    while True:
        if offset >= len(data):
            raise ValueError("cut off")
        size = data[offset]
        offset += 1
        if size == 0:
            return labels, offset
        # Two high bits mark a pointer, which has nothing to point to in the first question.
        if size > 63 or offset + size > len(data) or offset + size - start > 255:
            raise ValueError("bad label")
        label = data[offset : offset + size].decode("ascii", "backslashreplace")
        labels.append(label.replace(".", "\\.").lower())
        offset += size


def _udp_size(data: bytes, offset: int) -> int:
    if len(data) >= offset + 11 and data[offset] == 0:
        kind = int.from_bytes(data[offset + 1 : offset + 3], "big")
        if kind == OPT:
            return max(int.from_bytes(data[offset + 3 : offset + 5], "big"), PLAIN_UDP_SIZE)
    return PLAIN_UDP_SIZE


def _header(
    ident: int, flags: int, code: int, *, more: int = 0, counts: bytes = b"\0" * 8
) -> bytes:
    kept = flags & (_OPCODE | _RECURSION_DESIRED)
    answer = _RESPONSE | kept | _RECURSION_AVAILABLE | more | code
    return struct.pack("!HH", ident, answer) + counts


def reply(question: Question, code: int) -> bytes:
    """An answer without records."""
    counts = struct.pack("!HHHH", 1, 0, 0, 0)
    head = _header(question.id, question.flags, code, more=_AUTHORITATIVE, counts=counts)
    return head + question.raw


def _records(question: Question, kind: int, data: Sequence[bytes], limit: int) -> bytes:
    answers = [
        _POINTER_TO_QUESTION + struct.pack("!HHIH", kind, IN, TTL_S, len(each)) + each
        for each in data
    ]
    size = _HEADER.size + len(question.raw)
    fitting: list[bytes] = []
    for answer in answers:
        size += len(answer)
        if size > limit:
            break
        fitting.append(answer)
    more = _AUTHORITATIVE | (_TRUNCATED if len(fitting) < len(answers) else 0)
    counts = struct.pack("!HHHH", 1, len(fitting), 0, 0)
    head = _header(question.id, question.flags, NO_ERROR, more=more, counts=counts)
    return head + question.raw + b"".join(fitting)


def reply_addresses(question: Question, addresses: Sequence[Address], limit: int) -> bytes:
    """An answer with the A or AAAA records that are asked for, as many as there are.

    It is cut and marked so where it does not fit ``limit`` bytes.
    """
    version = {A: 4, AAAA: 6}.get(question.kind, 0)
    wanted = [address.packed for address in addresses if address.version == version]
    return _records(question, question.kind, wanted, limit)


def reply_pointer(question: Question, name: str) -> bytes:
    """An answer with the name of an address."""
    labels = [label.encode()[:63] for label in name.split(".") if label]
    data = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return _records(question, PTR, [data], LARGEST)


def asked_address(question: Question) -> Address | None:
    """The address whose name is asked (``2.0.17.172.in-addr.arpa``); None if it is another question."""
    if question.kind != PTR:
        return None
    parts = question.name.split(".")
    try:
        if parts[-2:] == ["in-addr", "arpa"]:
            return IPv4Address(".".join(reversed(parts[:-2])))
        if parts[-2:] == ["ip6", "arpa"] and len(parts) == 34:
            return IPv6Address(bytes.fromhex("".join(reversed(parts[:-2]))))
    except ValueError:
        return None
    return None


def with_id(message: bytes, ident: int) -> bytes:
    """The message under another id."""
    return struct.pack("!H", ident) + message[2:]


def answers(message: bytes, ident: int, question: Question) -> bool:
    """Whether a message answers the question that was asked under this id (RFC 5452 section 9.1)."""
    if len(message) < _HEADER.size + len(question.raw):
        return False
    got, flags, count = struct.unpack_from("!HHH", message)
    if got != ident or not flags & _RESPONSE or count != 1:
        return False
    asked = message[_HEADER.size : _HEADER.size + len(question.raw)]
    return asked.lower() == question.raw.lower()


def is_useful(message: bytes) -> bool:
    """Whether an answer is one, rather than SERVFAIL or REFUSED: another server may know better."""
    return message[3] & 0xF not in (SERVER_FAILURE, REFUSED, NOT_IMPLEMENTED)
