"""A secret in a log, whatever a script did to it."""

import base64
import html
import json
import shlex
import string
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, strategies as st

from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.model.process import StreamKind
from linkspan.workflows.masking import MASK, Masks
from linkspan.workflows.steplog import MAX_LINE, StepLog

SECRET = "p@ss w0rd'\"<&>/+$x%ü"
FORMS = {
    "plain": SECRET,
    "percent": quote(SECRET, safe=""),
    "percent, lower": quote(SECRET, safe="").lower(),
    "form": quote_plus(SECRET),
    "base64": base64.b64encode(SECRET.encode()).decode(),
    "base64 of a line": base64.b64encode(SECRET.encode() + b"\n").decode(),
    "base64 after one": base64.b64encode(b"x" + SECRET.encode() + b"yz").decode(),
    "base64 after two": base64.b64encode(b"u:" + SECRET.encode()).decode(),
    "base64url": base64.urlsafe_b64encode(SECRET.encode()).decode(),
    "json": json.dumps({"a": SECRET}),
    "json, utf-8": json.dumps({"a": SECRET}, ensure_ascii=False),
    "shell": shlex.quote(SECRET),
    "html": html.escape(SECRET),
    "hex": SECRET.encode().hex(),
    "HEX": SECRET.encode().hex().upper(),
    "hex in pairs": SECRET.encode().hex(" "),
    "hex with colons": SECRET.encode().hex(":").upper(),
    "percent, each byte": "".join(f"%{byte:02x}" for byte in SECRET.encode()),
    "escaped, each byte": "".join(f"\\x{byte:02X}" for byte in SECRET.encode()),
}


@pytest.fixture
def masks():
    masks = Masks()
    masks.add("TOKEN", SECRET)
    return masks


def decoded(text):
    """What can be read out of base64 that is left over."""
    core = text.replace(MASK, "").strip("=")
    return base64.urlsafe_b64decode(
        core.replace("+", "-").replace("/", "_") + "A" * (-len(core) % 4)
    )


@pytest.mark.parametrize("form", FORMS)
def test_a_secret_is_masked_in_every_form(masks, form):
    shown = masks.mask(f"before {FORMS[form]} after")
    assert MASK in shown
    assert shown.startswith("before ")
    assert shown.endswith(" after")
    for size in range(4, len(SECRET)):
        for start in range(len(SECRET) - size):
            part = SECRET[start : start + size]
            assert part not in shown
            assert quote(part, safe="") not in shown


def test_what_is_left_of_base64_says_nothing(masks):
    shown = masks.mask(FORMS["base64 after one"])
    assert len(shown) <= len(MASK) + 4
    assert SECRET.encode()[:2] not in decoded(shown)


def test_base64_of_a_long_secret_is_masked_line_by_line():
    secret = "".join(string.ascii_letters[i * 7 % 52] for i in range(300))
    masks = Masks()
    masks.add("KEY", secret)
    for line in base64.encodebytes(secret.encode()).decode().splitlines()[:-1]:
        assert masks.mask(line) == MASK


def test_each_line_of_a_secret_of_several_lines_is_masked_unless_it_says_nothing():
    masks = Masks()
    masks.add("KEY", "-----BEGIN-----\nabcdefgh12345\n}\n-----END-----\n")
    assert masks.mask("abcdefgh12345") == MASK
    assert masks.mask("}") == "}"


@pytest.mark.parametrize("value", ["", "abc", "  a  ", "\n\n\n\n\n"])
def test_a_secret_that_is_too_short_is_refused(value):
    with pytest.raises(InvalidArgument, match="TOKEN"):
        Masks().add("TOKEN", value)


def test_ordinary_text_stays_as_it_is(masks):
    text = "the password is not here: p@ss, w0rd, 100% <b>"
    assert masks.mask(text) == text
    assert Masks().mask(SECRET) == SECRET


def test_texts_in_json_values_are_masked(masks):
    value = {"a": [SECRET, 1, None, {SECRET: True}]}
    assert masks.mask_json(value) == {"a": [MASK, 1, None, {MASK: True}]}


@given(st.lists(st.text(min_size=4).filter(lambda t: len(t.strip()) >= 4), min_size=1, max_size=4))
def test_no_secret_is_left_in_a_text_of_secrets(secrets):
    masks = Masks()
    for secret in secrets:
        masks.add("S", secret)
    shown = masks.mask(" | ".join(secrets))
    assert all(
        secret not in shown for secret in secrets if MASK not in secret and "*" not in secret
    )


@pytest.mark.parametrize("before", [0, MAX_LINE - 10, MAX_LINE - 3, 2 * MAX_LINE - 5])
async def test_a_secret_that_comes_in_pieces_of_an_endless_line_is_masked(tmp_path, masks, before):
    lines = []
    log = StepLog(tmp_path / "log", lambda stream, line: lines.append(line), masks)
    data = ("x" * before + SECRET + "y" * (2 * MAX_LINE)).encode()
    for start in range(0, len(data), 7):
        await log.feed(StreamKind.STDOUT, data[start : start + 7])
    log.end()
    await log.flush()
    told = "".join(lines)
    assert told == "x" * before + MASK + "y" * (2 * MAX_LINE)
    assert SECRET not in (tmp_path / "log").read_text()


async def test_a_flood_of_lines_is_all_in_the_file_and_masked(tmp_path, masks):
    told = []
    log = StepLog(tmp_path / "log", lambda stream, line: told.append(line), masks)
    data = "".join(f"{number} {SECRET}\r\n" for number in range(5000)).encode()
    for start in range(0, len(data), 30_001):
        await log.feed(StreamKind.STDOUT, data[start : start + 30_001])
    log.end()
    await log.flush()
    lines = [line.split(" ", 2)[2] for line in (tmp_path / "log").read_text().splitlines()]
    assert lines == [f"{number} {MASK}" for number in range(5000)]
    assert told[-1] == f"4999 {MASK}"
    assert list(log.tail) == lines[-20:]
