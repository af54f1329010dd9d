"""The contract of role ``secrets``. Subclass ``SecretsConformance`` and set ``driver``.

A driver without WRITE overrides ``keep``, which puts a secret there from outside.
"""

from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest

from linkspan.sdk.drivers.secrets import SECRET_LIMIT_BYTES, Secrets, SecretsCap
from linkspan.sdk.errors import InvalidArgument, NotFound, Unsupported
from linkspan.sdk.testing.host import FakeHost


class SecretsConformance:
    """See the module."""

    driver: ClassVar[type[Secrets[Any]]]

    @pytest.fixture
    def config(self) -> Any:
        return self.driver.config_type()

    @pytest.fixture
    async def store(self, config: Any, fake_host: FakeHost) -> AsyncIterator[Secrets[Any]]:
        async with self.driver.open(config, fake_host) as driver:
            await driver.recover()
            yield driver

    async def keep(self, store: Secrets[Any], key: str, value: str) -> None:
        """Make a secret be there."""
        await store.put(key, value)

    def writable(self, store: Secrets[Any]) -> None:
        """Skip what takes WRITE."""
        if not store.capabilities & SecretsCap.WRITE:
            pytest.skip("it cannot be written")

    # -- the tests ----------------------------------------------------------------------------

    async def test_what_is_there_is_given_as_it_was_kept(self, store: Secrets[Any]) -> None:
        await self.keep(store, "DB_PASSWORD", "hunter2 ünïcode\nsecond line ")
        assert await store.get("DB_PASSWORD") == "hunter2 ünïcode\nsecond line "

    async def test_what_is_not_there_is_named_with_a_code(self, store: Secrets[Any]) -> None:
        with pytest.raises(NotFound, match="NOBODY") as caught:
            await store.get("NOBODY")
        assert caught.value.code == "secret_not_found"

    async def test_the_list_has_keys_in_order_and_no_values(self, store: Secrets[Any]) -> None:
        for key in ("B", "A"):
            await self.keep(store, key, f"value-of-{key}")
        found = await store.list()
        assert [info.key for info in found] == ["A", "B"]
        assert "value-of" not in repr(found)

    async def test_a_new_value_replaces_the_old_one(self, store: Secrets[Any]) -> None:
        self.writable(store)
        await store.put("A", "one")
        await store.put("A", "two")
        assert await store.get("A") == "two"

    async def test_what_was_kept_is_there_for_the_next_driver(
        self, store: Secrets[Any], config: Any, fake_host: FakeHost
    ) -> None:
        await self.keep(store, "A", "one")
        async with self.driver.open(config, fake_host) as other:
            assert [info.key for info in await other.list()] == ["A"]
            assert await other.get("A") == "one"

    async def test_what_was_deleted_is_gone(self, store: Secrets[Any]) -> None:
        self.writable(store)
        await store.put("A", "one")
        await store.delete("A")
        for method in (store.get, store.delete):
            with pytest.raises(NotFound):
                await method("A")
        assert await store.list() == []

    @pytest.mark.parametrize("value", ["", "a\0b", "x" * (SECRET_LIMIT_BYTES + 1)])
    async def test_a_value_that_cannot_be_kept_is_refused_unseen(
        self, store: Secrets[Any], value: str
    ) -> None:
        self.writable(store)
        await store.put("A", "one")
        with pytest.raises(InvalidArgument) as caught:
            await store.put("A", value)
        assert not value or value not in str(caught.value)
        assert await store.get("A") == "one"

    async def test_without_write_it_says_so(self, store: Secrets[Any]) -> None:
        if store.capabilities & SecretsCap.WRITE:
            pytest.skip("it can be written")
        with pytest.raises(Unsupported):
            await store.put("A", "one")
        with pytest.raises(Unsupported):
            await store.delete("A")
