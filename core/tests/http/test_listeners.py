import errno
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from linkspan.core.http import open_unix_listener, remove_unix_socket
from linkspan.core.http.listeners import accept_all
from linkspan.sdk.errors import Conflict, InvalidArgument


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ls") as name:
        yield Path(name)


async def test_the_socket_has_its_mode_and_its_folder_is_made(folder: Path) -> None:
    place = folder / "deep" / "er" / "d.sock"
    listener = await open_unix_listener(place, 0o660)
    assert stat.S_IMODE(place.stat().st_mode) == 0o660
    await listener.aclose()
    remove_unix_socket(place)
    assert not place.exists()
    remove_unix_socket(place)


async def test_a_stale_socket_is_replaced(folder: Path) -> None:
    place = folder / "d.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(place))
    stale.close()
    listener = await open_unix_listener(place)
    await listener.aclose()


async def test_a_second_daemon_is_refused_and_the_first_goes_on(folder: Path) -> None:
    place = folder / "d.sock"
    first = await open_unix_listener(place)
    with pytest.raises(Conflict) as caught:
        await open_unix_listener(place)
    assert caught.value.code == "daemon_running"
    assert str(place) in caught.value.message
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(place))
    client.close()
    await first.aclose()


async def test_a_file_that_is_no_socket_is_left_alone(folder: Path) -> None:
    place = folder / "d.sock"
    place.write_text("mine")
    with pytest.raises(Conflict, match="is not a socket"):
        await open_unix_listener(place)
    assert place.read_text() == "mine"


async def test_a_path_that_the_kernel_cannot_take_is_named(folder: Path) -> None:
    with pytest.raises(InvalidArgument, match="107"):
        await open_unix_listener(folder / ("x" * 120))


class _Troubled:
    """A listener's socket that fails before it gives what it has."""

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)

    async def accept(self) -> tuple[str, str]:
        await trio.lowlevel.checkpoint()
        if not self.errors:
            return "a connection", "its address"
        number = self.errors.pop(0)
        raise OSError(number, os.strerror(number))


async def _first(folder: Path, *errors: int) -> str:
    listener = await open_unix_listener(folder / "d.sock")
    listener.socket.close()
    listener.socket = _Troubled(*errors)  # type: ignore[assignment]
    listener.aclose = trio.lowlevel.checkpoint  # type: ignore[method-assign]
    taken: list[str] = []

    async def take(connection: object) -> None:
        taken.append(str(connection))
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        await accept_all(listener, take, nursery)
    return taken[0]


async def test_a_lack_of_descriptors_and_a_client_that_went_stop_no_listener(
    folder: Path, mock_clock: trio.testing.MockClock
) -> None:
    mock_clock.autojump_threshold = 0.01
    errors = (errno.EMFILE, errno.ENFILE, errno.ECONNABORTED, errno.ENOMEM)
    assert await _first(folder, *errors) == "a connection"


@pytest.mark.usefixtures("mock_clock")
async def test_a_listener_that_is_none_any_more_is_an_error(folder: Path) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="Invalid argument")):
        await _first(folder, errno.EINVAL)
