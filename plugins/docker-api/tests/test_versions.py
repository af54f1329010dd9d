"""Fields that come and go with the version of the API, and what is said of versions we do not speak."""

from typing import Any

import pytest

# Path, field (dots go into objects and first entries), first version with it, first without it again.
HISTORY = (
    ("/images/json", "VirtualSize", (1, 24), (1, 43)),
    ("/images/app:1/json", "VirtualSize", (1, 24), (1, 44)),
    ("/images/app:1/json", "ContainerConfig", (1, 24), (1, 45)),
    ("/images/app:1/json", "Container", (1, 24), (1, 45)),
    ("/images/app:1/json", "Config.Hostname", (1, 24), (1, 50)),
    ("/images/app:1/json", "Config.AttachStdin", (1, 24), (1, 50)),
    ("/images/app:1/json", "Config.Env", (1, 24), None),
    ("/info", "KernelMemory", (1, 24), (1, 42)),
    ("/info", "KernelMemoryTCP", (1, 40), (1, 42)),
    ("/info", "BridgeNfIptables", (1, 24), (1, 50)),
    ("/info", "FirewallBackend.Driver", (1, 49), None),
    ("/info", "RegistryConfig.AllowNondistributableArtifactsCIDRs", (1, 24), (1, 47)),
    ("/info", "RegistryConfig.InsecureRegistryCIDRs", (1, 24), None),
    ("/system/df?type=container", "BuilderSize", (1, 31), (1, 42)),
    ("/version", "Components", (1, 24), None),
)
NEWEST = 50


def holds(answer: Any, field: str) -> bool:
    for part in field.split("."):
        answer = answer[0] if isinstance(answer, list) else answer
        if part not in answer:
            return False
        answer = answer[part]
    return True


@pytest.mark.parametrize(("path", "field", "since", "until"), HISTORY)
async def test_a_field_is_there_in_its_versions_only(api, path, field, since, until) -> None:
    for minor in range(24, NEWEST + 1):
        answer = (await api.ask("GET", f"/v1.{minor}{path}")).json
        expected = since <= (1, minor) and (until is None or (1, minor) < until)
        assert holds(answer, field) is expected, f"1.{minor}"


async def test_docker_compose_1_gets_the_fields_that_it_knows(api) -> None:
    agent = {"user-agent": "docker-compose/1.29.2 docker-py/5.0.3 Linux/6.1"}
    seen = (await api.ask("GET", "/v1.50/images/app:1/json", **agent)).json
    assert seen["ContainerConfig"]["ExposedPorts"] == {"80/tcp": {}}
