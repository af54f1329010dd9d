"""Signals by their names."""

import signal as signals
from collections.abc import Callable, Mapping
from typing import Final

from linkspan.sdk.errors import InvalidArgument


def signal_number(text: str) -> int:
    """``SIGTERM``, ``term``, ``15``, ``SIGRTMIN+3`` as a number.

    Raises:
        InvalidArgument: code ``invalid_signal``.
    """
    word = text.strip().upper()
    if word.isdecimal() and 0 < int(word) < signals.NSIG:
        return int(word)
    base, sign, offset = _real_time(word.removeprefix("SIG"))
    if base in _REAL_TIME and (not sign or offset.isdecimal()):
        number = _REAL_TIME[base](int(offset or 0))
        if signals.SIGRTMIN <= number <= signals.SIGRTMAX:
            return number
    try:
        return int(signals.Signals[f"SIG{word.removeprefix('SIG')}"])
    except KeyError:
        raise InvalidArgument(f"invalid signal: {text}", code="invalid_signal") from None


def _real_time(word: str) -> tuple[str, str, str]:
    for sign, base in (("+", "RTMIN"), ("-", "RTMAX")):
        name, found, offset = word.partition(sign)
        if name == base:
            return name, found, offset
    return word, "", ""


_REAL_TIME: Final[Mapping[str, Callable[[int], int]]] = {
    "RTMIN": lambda offset: int(signals.SIGRTMIN) + offset,
    "RTMAX": lambda offset: int(signals.SIGRTMAX) - offset,
}
