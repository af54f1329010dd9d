"""Why a server was not reached."""

import errno
import socket

import pytest

from linkspan.sdk.unreachable import causes, why_unreachable


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (socket.gaierror(socket.EAI_NONAME, "?"), "dial tcp: lookup ::1: no such host"),
        (ConnectionRefusedError(), "dial tcp [::1]:5: connect: connection refused"),
        (OSError(errno.ENETUNREACH, "?"), "dial tcp [::1]:5: connect: network is unreachable"),
        (OSError(errno.EHOSTUNREACH, "?"), "dial tcp [::1]:5: connect: no route to host"),
        (ValueError("?"), ""),
    ],
)
def test_the_reason_is_told_as_docker_tells_it(error: BaseException, words: str) -> None:
    outer = OSError("all attempts failed")
    outer.__cause__ = ExceptionGroup("attempts", [KeyError("other"), error])  # type: ignore[list-item]
    assert why_unreachable(outer, "::1", 5) == words


def test_causes_that_lead_back_are_told_once() -> None:
    first, second = ValueError(), ValueError()
    first.__cause__, second.__context__ = second, first
    assert list(causes(first)) == [first, second]
