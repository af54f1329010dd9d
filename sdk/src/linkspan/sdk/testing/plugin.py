"""The pytest plugin of linkspan-sdk: fixtures for the conformance kits."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from linkspan.sdk.testing.host import FakeHost


@pytest.fixture
async def fake_host(tmp_path: Path) -> AsyncIterator[FakeHost]:
    """A host whose folders are temporary and whose tasks end with the test."""
    async with trio.open_nursery() as nursery:
        yield FakeHost(root=tmp_path, nursery=nursery)
        nursery.cancel_scope.cancel()
