"""Our registry client passes its kit against Debian's docker-registry, and logs in there."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from daemon_harness.registry import debian_registry

from linkspan.plugins.distribution_registry.config import DistributionConfig
from linkspan.plugins.distribution_registry.driver import DistributionRegistry
from linkspan.sdk.drivers.registry import Registry
from linkspan.sdk.errors import Unauthenticated
from linkspan.sdk.model.image import Credentials
from linkspan.sdk.reference import parse_reference
from linkspan.sdk.testing.conformance.registry import (
    LAYER,
    HttpRemote,
    RegistryConformance,
    describe,
    source_of,
)
from linkspan.sdk.testing.host import FakeHost

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

USER = "me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"
"""Password ``secret`` (bcrypt)."""


class TestDebianRegistry(RegistryConformance):
    driver: type[Registry[Any]] = DistributionRegistry
    deletes_tags = False

    @pytest.fixture
    def config(self, tmp_path: Path) -> DistributionConfig:
        return DistributionConfig(docker_config=tmp_path / "none.json", retry_delay_s=0.01)

    @pytest.fixture
    def remote(self) -> Iterator[HttpRemote]:
        with debian_registry() as address:
            yield HttpRemote(address)


async def test_a_registry_with_users_lets_in_whom_it_knows(
    tmp_path: Path, fake_host: FakeHost
) -> None:
    users = tmp_path / "htpasswd"
    users.write_text(USER)
    more = {"auth": {"htpasswd": {"realm": "here", "path": str(users)}}}
    docker_config = tmp_path / "config.json"
    config = DistributionConfig(docker_config=docker_config, retry_delay_s=0.01)
    me, wrong = (Credentials(username="me", password=p) for p in ("secret", "wrong"))
    with debian_registry(more) as address:
        async with DistributionRegistry.open(config, fake_host) as registry:
            reference = parse_reference(f"{address}/app:1")
            for credentials in (Credentials(), wrong):
                with pytest.raises(Unauthenticated, match="access denied for") as caught:
                    await registry.push_blob(
                        reference, describe(LAYER), source_of(LAYER), credentials
                    )
                assert caught.value.help == f"docker login {address}"
            assert (
                await registry.push_blob(reference, describe(LAYER), source_of(LAYER), me)
                == "pushed"
            )
            assert await registry.login(attrs.evolve(me, server_address=address)) == ""
            with pytest.raises(Unauthenticated, match="failed with status: 401"):
                await registry.login(attrs.evolve(wrong, server_address=address))
            known = {"auths": {address: {"username": "me", "password": "secret"}}}
            docker_config.write_text(json.dumps(known))
            async with registry.blob(reference, describe(LAYER), Credentials()) as parts:
                assert b"".join([part async for part in parts]) == LAYER


async def test_a_registry_with_its_own_certificate_is_spoken_to_on_loopback(
    tmp_path: Path, fake_host: FakeHost
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    await trio.run_process(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "1", "-subj", "/CN=registry"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        capture_stderr=True,
    )
    tls = {"http": {"tls": {"certificate": str(certificate), "key": str(key)}}}
    config = DistributionConfig(docker_config=tmp_path / "none.json", retry_delay_s=0.01)
    with debian_registry(tls) as address:
        async with DistributionRegistry.open(config, fake_host) as registry:
            reference = parse_reference(f"{address}/app:1")
            await registry.push_blob(reference, describe(LAYER), source_of(LAYER), Credentials())
            async with registry.blob(reference, describe(LAYER), Credentials()) as parts:
                assert b"".join([part async for part in parts]) == LAYER
