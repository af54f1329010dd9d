"""Keys that leave a terminal without ending what runs in it: ``ctrl-p,ctrl-q`` (moby/term, ascii.go)."""

import attrs

from linkspan.sdk.errors import InvalidArgument

DEFAULT = "ctrl-p,ctrl-q"

_CONTROLS = {
    **{chr(ord("a") + n): n + 1 for n in range(26)},
    "@": 0,
    "[": 27,
    "\\": 28,
    "]": 29,
    "^": 30,
    "_": 31,
}


@attrs.frozen
class DetachKeys:
    """The bytes that the keys send."""

    sequence: bytes

    def watch(self) -> "KeyWatch":
        """A fresh watch for one input."""
        return KeyWatch(self.sequence)


def parse_detach_keys(text: str, *, called: str = "detach") -> DetachKeys:
    """Parse a comma-separated list of keys; empty means Docker's default.

    Raises:
        InvalidArgument: A key is none (Docker's text).
    """
    found = bytearray()
    for key in (text or DEFAULT).split(","):
        if len(key) == 1:
            found += key.encode()
        elif key.startswith("ctrl-") and key[5:] in _CONTROLS:
            found.append(_CONTROLS[key[5:]])
        else:
            raise InvalidArgument(f"Invalid {called} keys ({text}) provided")
    return DetachKeys(bytes(found))


class KeyWatch:
    """Looks for the sequence in an input, also across pieces; keys that lead nowhere are passed on."""

    def __init__(self, sequence: bytes) -> None:
        self._sequence = sequence
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What to pass on, and whether the sequence is complete."""
        out = bytearray()
        for byte in data:
            if byte == self._sequence[self._matched]:
                self._matched += 1
                if self._matched == len(self._sequence):
                    return bytes(out), True
                continue
            out += self._sequence[: self._matched]
            self._matched = 0
            if byte == self._sequence[0]:
                self._matched = 1
            else:
                out.append(byte)
        return bytes(out), False
