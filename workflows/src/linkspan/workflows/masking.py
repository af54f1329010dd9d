"""Secrets do not appear in what is shown or kept: every form a script may print them in is masked.

Forms: the value itself, percent-encoded, base64 (all three alignments, both alphabets, also wrapped),
hexadecimal, as JSON, HTML and shell text, and each line of a value that has several.
"""

import base64
import html
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, quote_plus

from linkspan.sdk.errors import InvalidArgument

MASK: Final = "***"
MIN_LENGTH: Final = 4
"""Characters of a secret; a shorter one would mask ordinary text everywhere, and so tell itself."""
_MIN_LINE: Final = 8
"""Characters of one line of a secret of several lines; shorter ones (``}``) are not secret."""
_MIN_ENCODED: Final = 5
_WRAPS: Final = (76, 64)
"""Columns at which ``base64`` and PEM wrap."""
_B64: Final = "[A-Za-z0-9+/_-]"


class Masks:
    """The secrets of one run. Empty at first; ``mask`` costs nothing then."""

    def __init__(self) -> None:
        self._values: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self._needles: tuple[str, ...] = ()
        self.made: dict[str, str] = {}
        """Texts that an expression has made of secrets, with it."""
        self.longest = 0
        """Characters of the longest form: as much of a text that goes on must be held back."""

    @property
    def empty(self) -> bool:
        """Whether nothing is masked."""
        return self._pattern is None

    def add(self, name: str, value: str, *, source: str = "") -> None:
        """Mask a value from now on.

        Args:
            name: For the message.
            value: The secret.
            source: The expression that has made it.

        Raises:
            InvalidArgument: It is too short to be masked; code ``secret_short``.
        """
        if len(value.strip()) < MIN_LENGTH:
            raise InvalidArgument(
                f"secret '{name}' is shorter than {MIN_LENGTH} characters and cannot be masked",
                code="secret_short",
                help="give it a longer value",
            )
        if value in self._values:
            return
        self._values.add(value)
        if source:
            self.made[value] = source
        forms = {form for each in self._values for form in _forms(each)}
        # The longest first: a form may begin with another one.
        patterns = [re.escape(form) for form in sorted(forms, key=len, reverse=True)]
        encoded = {form for each in self._values for form in _base64_forms(each)}
        patterns += [
            # What is next to the core holds some of its bits.
            f"{_B64}?{re.escape(form)}{_B64}?={{0,2}}"
            for form in sorted(encoded, key=len, reverse=True)
        ]
        self._pattern = re.compile("|".join(patterns))
        self._needles = _shortest(forms | encoded)
        self.longest = max(len(form) + 4 for form in forms | encoded)

    def mask(self, text: str) -> str:
        """The text without secrets."""
        if self._pattern is None or not self._may_hold(text):
            return text
        return self._pattern.sub(MASK, text)

    def _may_hold(self, text: str) -> bool:
        """Whether any form is in a text at all: ten times as quick as the pattern, and mostly none is."""
        return any(needle in text for needle in self._needles)

    def mask_json(self, value: Any) -> Any:
        """The same of every text in a JSON value, keys of mappings included."""
        if self._pattern is None:
            return value
        match value:
            case str():
                return self.mask(value)
            case Mapping():
                return {self.mask(str(k)): self.mask_json(item) for k, item in value.items()}
            case list() | tuple():
                return [self.mask_json(item) for item in value]
            case _:
                return value

    def holds(self, value: str) -> bool:
        """Whether a secret is in a text, in any form."""
        return self._pattern is not None and self._may_hold(value)


def _shortest(forms: Iterable[str]) -> tuple[str, ...]:
    """The forms without those that hold another one."""
    found: list[str] = []
    for form in sorted(forms, key=len):
        if not any(shorter in form for shorter in found):
            found.append(form)
    return tuple(found)


def _forms(value: str) -> Iterator[str]:
    """The ways a value may be written, but base64."""
    stripped = value.strip()
    for text in dict.fromkeys((value, stripped)):
        yield from _written(text)
    lines = [line.strip() for line in value.splitlines()]
    if len(lines) > 1:
        for line in lines:
            if len(line) >= _MIN_LINE:
                yield from _written(line)


def _written(text: str) -> Iterator[str]:
    yield text
    encoded = quote(text, safe="")
    yield from (encoded, encoded.lower(), quote(text), quote_plus(text))
    for ascii_only in (True, False):
        yield json.dumps(text, ensure_ascii=ascii_only)[1:-1]
    yield html.escape(text)
    yield html.escape(text, quote=False)
    yield shlex.quote(text)
    # Inside of quotes that somebody else has written, and as `printf %q` does it.
    yield text.replace("'", "'\\''")
    yield re.sub(r"([^A-Za-z0-9_@%+=:,./\n-])", r"\\\1", text)
    yield re.sub(r'(["\\$`])', r"\\\1", text)
    raw = text.encode()
    for digits in (raw.hex(), raw.hex().upper()):
        yield digits
        pairs = [digits[at : at + 2] for at in range(0, len(digits), 2)]
        # Each byte by itself: of a percent-encoder that spares nothing, of `od`, `xxd` and `printf`.
        yield from (" ".join(pairs), ":".join(pairs))
        yield from ("".join(f"{mark}{pair}" for pair in pairs) for mark in ("%", "\\x"))


def _base64_forms(value: str) -> Iterator[str]:
    texts = [value, value.strip(), *(line for line in value.splitlines() if len(line) >= _MIN_LINE)]
    for raw in dict.fromkeys(text.encode() for text in texts):
        for shift in range(3):
            yield from _long(_core(raw, shift))
        whole = base64.b64encode(raw).decode().rstrip("=")
        for width in _WRAPS:
            if len(whole) > width:
                yield from _long(whole[at : at + width] for at in range(0, len(whole) - 8, width))


def _core(raw: bytes, shift: int) -> Iterator[str]:
    """The characters of base64 that the value alone decides, ``shift`` bytes into a group."""
    count = shift + len(raw)
    end = count // 3 * 4 + count % 3
    start = (0, 2, 3)[shift]
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(b"\0" * shift + raw).decode()[start:end]


def _long(forms: Iterable[str]) -> Iterator[str]:
    return (form for form in forms if len(form) >= _MIN_ENCODED)
