import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from linkspan.core.http import open_unix_listener, remove_unix_socket
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
