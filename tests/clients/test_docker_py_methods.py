"""Every method of docker-py gives or raises what it gives or raises with a real dockerd.

What came of them there lies in ``docker_py/``; its README says how it was recorded.
"""

import inspect
import json
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import docker
import pytest
import requests
from daemon_harness import docker_py_walk
from daemon_harness.daemon import Daemon
from daemon_harness.recorded_image import load_archive
from docker import models
from docker.models.resource import Collection, Model

HERE = Path(__file__).parent / "docker_py"

# Docker's own plugins are not served; the others do not ask a daemon, or do so within methods that are walked.
LEFT_OUT = {
    *("plugin_privileges", "pull_plugin", "push_plugin", "create_plugin", "upgrade_plugin"),
    *("install", "configure", "disable", "enable", "push", "upgrade", "enabled", "settings"),
    *("id_attribute", "model", "prepare_model", "from_env", "from_context", "close"),
    *("create_container_config", "get_adapter", "base_url", "api_version", "timeout"),
    # Of the low level: what the methods of objects call.
    *("attach", "build", "commit", "configs", "create_network", "create_secret", "create_config"),
    *("create_service", "create_volume", "df", "diff", "events", "export", "get_archive", "ping"),
    *("get_image", "get_unlock_key", "info", "init_swarm", "inspect_config", "inspect_node"),
    *("inspect_secret", "inspect_swarm", "inspect_volume", "join_swarm", "kill", "leave_swarm"),
    *("connect_container_to_network", "disconnect_container_from_network", "login", "nodes"),
    *("load_image", "pause", "prune_containers", "prune_images", "prune_networks", "pull"),
    *("prune_volumes", "prune_builds", "put_archive", "remove_config", "remove_network", "rename"),
    *("remove_node", "remove_secret", "remove_service", "remove_volume", "resize", "restart"),
    *("remove_image", "search", "secrets", "services", "start", "stats", "stop", "top", "unpause"),
    *("unlock_swarm", "update_container", "update_node", "update_service", "update_swarm", "wait"),
    *("version", "import_image", "import_image_from_file", "import_image_from_stream"),
    *("import_image_from_image",),
}


def _classes() -> Iterator[type]:
    yield docker.DockerClient
    yield docker.APIClient
    for module in vars(models).values():
        if inspect.ismodule(module):
            for found in vars(module).values():
                if inspect.isclass(found) and issubclass(found, Model | Collection):
                    yield found


def test_no_method_is_missing() -> None:
    walked = set(re.findall(r"\.(\w+)", (HERE / "script.txt").read_text()))
    there = {name for found in _classes() for name in dir(found) if not name.startswith("_")}
    assert there - walked - LEFT_OUT - set(dir(requests.Session)) == set()


@pytest.mark.system
@pytest.mark.timeout(240)
# It leaves the sockets of streams to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_methods_do_what_they_do_with_docker(new_daemon: Callable[[], Daemon]) -> None:
    recorded = json.loads((HERE / "docker.json").read_text())
    rules = json.loads((HERE / "differences.json").read_text())
    daemon = new_daemon().start()
    load_archive(daemon.environment)
    found = docker_py_walk.walk(HERE / "script.txt", daemon.url)
    assert list(found) == list(recorded)
    wrong, used = [], []
    for line, docker_did in recorded.items():
        if docker_did == found[line]:
            continue
        texts = {
            "line": line,
            "docker": json.dumps(docker_did),
            "linkspan": json.dumps(found[line]),
        }
        meant = [rule for rule in rules if all(_matches(rule[k], texts[k]) for k in texts)]
        used += meant
        if not meant:
            wrong.append("\n  ".join(f"{who}: {text}" for who, text in texts.items()))
    assert not wrong, "\n".join(wrong)
    assert [rule for rule in rules if rule not in used] == []


def _matches(pattern: str, text: str) -> bool:
    return fnmatchcase(text, pattern.replace("[", "[[]"))
