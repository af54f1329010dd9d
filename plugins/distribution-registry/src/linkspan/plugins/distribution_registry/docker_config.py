"""Credentials from Docker's config file (``~/.docker/config.json``) and its helpers."""

import base64
import binascii
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import trio

from linkspan.plugins.distribution_registry.addresses import is_docker_hub
from linkspan.sdk.errors import Unauthenticated
from linkspan.sdk.files import replace_file
from linkspan.sdk.model.image import Credentials
from linkspan.sdk.programs import Ended, run_program
from linkspan.sdk.values import frozen

HUB_KEY = "https://index.docker.io/v1/"
HELPER_TIMEOUT_S = 30.0
_CONFIG_LIMIT_BYTES = 1 << 20
_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_NOT_THERE = "credentials not found in native store"


@frozen
class DockerConfig:
    """Where credentials come from when a caller brings none.

    Attributes:
        path: The file; None means ``config.json`` in ``$DOCKER_CONFIG`` or ``~/.docker``.
    """

    path: Path | None = None

    async def credentials(self, domain: str, repository: str) -> Credentials:
        """What the file or its helper has for a repository; anonymous if there is nothing.

        Raises:
            Unauthenticated: code ``credential_helper``: the helper failed.
        If cancelled: the helper is killed.
        """
        document = await trio.to_thread.run_sync(self._read)
        helper = _helper_for(document, domain)
        if helper:
            found = await _ask_helper(helper, HUB_KEY if is_docker_hub(domain) else domain)
            if found is not None:
                return attrs.evolve(found, server_address=domain)
        auths = document.get("auths")
        return _from_auths(auths if isinstance(auths, Mapping) else {}, domain, repository)

    async def store(self, credentials: Credentials) -> None:
        """Keep credentials for ``server_address``, as ``docker login`` does: with the helper, or in the file.

        Raises:
            Unauthenticated: code ``credential_helper`` or ``docker_config``: they could not be kept.
        """
        domain = credentials.server_address
        document = await trio.to_thread.run_sync(self._read)
        key = HUB_KEY if is_docker_hub(domain) else domain
        helper = _helper_for(document, domain)
        user, secret = credentials.username, credentials.password
        if credentials.identity_token:
            user, secret = "<token>", credentials.identity_token
        if helper:
            entry = {"ServerURL": key, "Username": user, "Secret": secret}
            done = await _run_helper(helper, "store", json.dumps(entry))
            if done.status != 0:
                raise _helper_failed(helper, _said(done))
            return
        entry = {
            "auth": base64.b64encode(
                f"{credentials.username}:{credentials.password}".encode()
            ).decode()
        }
        if credentials.identity_token:
            entry = {"auth": base64.b64encode(f"{credentials.username}:".encode()).decode()}
            entry["identitytoken"] = credentials.identity_token
        await trio.to_thread.run_sync(self._change, key, entry)

    async def erase(self, domain: str) -> None:
        """Forget what is kept for a server; silent if there is nothing."""
        document = await trio.to_thread.run_sync(self._read)
        helper = _helper_for(document, domain)
        if helper:
            await _run_helper(helper, "erase", HUB_KEY if is_docker_hub(domain) else domain)
        for key in _host_keys(domain):
            await trio.to_thread.run_sync(self._change, key, None)

    def _change(self, key: str, entry: Mapping[str, str] | None) -> None:
        """Write the file anew, whole and for its owner alone, with all that others keep in it."""
        path = self.path or _default_path()
        document = dict(self._read())
        auths = dict(document.get("auths") or {})
        if entry is None and key not in auths:
            return
        auths.pop(key, None)
        if entry is not None:
            auths[key] = entry
        document["auths"] = auths
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(path, json.dumps(document, indent="\t").encode(), durable=True)
        except OSError as error:
            raise Unauthenticated(
                f"cannot keep the credentials in {path}: {error.strerror}", code="docker_config"
            ) from error

    def _read(self) -> Mapping[str, Any]:
        path = self.path or _default_path()
        try:
            with path.open("rb") as file:
                document = json.loads(file.read(_CONFIG_LIMIT_BYTES))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            raise Unauthenticated(
                f"cannot read the credentials in {path}: {error}", code="docker_config"
            ) from error
        return document if isinstance(document, dict) else {}


def _default_path() -> Path:
    folder = os.environ.get("DOCKER_CONFIG")
    return (Path(folder) if folder else Path("~/.docker").expanduser()) / "config.json"


def _helper_for(document: Mapping[str, Any], domain: str) -> str:
    helpers = document.get("credHelpers")
    for key in _host_keys(domain):
        if isinstance(helpers, Mapping) and isinstance(helpers.get(key), str):
            return str(helpers[key])
    store = document.get("credsStore")
    return store if isinstance(store, str) else ""


def _host_keys(domain: str) -> tuple[str, ...]:
    if is_docker_hub(domain):
        return (HUB_KEY, "index.docker.io", "docker.io", "registry-1.docker.io")
    return (domain,)


async def _ask_helper(name: str, server: str) -> Credentials | None:
    done = await _run_helper(name, "get", server)
    text = _said(done)
    if done.status != 0:
        if _NOT_THERE in text:
            return None
        raise _helper_failed(name, text)
    try:
        answer = json.loads(text)
        user, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _helper_failed(name, "its answer is not what a helper answers") from error
    if user == "<token>":
        return Credentials(identity_token=secret)
    return Credentials(username=user, password=secret)


async def _run_helper(name: str, verb: str, text: str) -> Ended:
    """Ask ``docker-credential-NAME``, whatever it answers."""
    if _HELPER_NAME.fullmatch(name) is None:
        raise _helper_failed(name, "its name is not valid")
    try:
        with trio.fail_after(HELPER_TIMEOUT_S):
            return await run_program([f"docker-credential-{name}", verb], given=text.encode())
    except OSError as error:
        raise _helper_failed(name, f"it cannot be run: {error}") from error
    except trio.TooSlowError as error:
        raise _helper_failed(name, f"it gave no answer in {HELPER_TIMEOUT_S:g} s") from error


def _said(done: Ended) -> str:
    text = done.output.decode(errors="replace").strip()
    return text if done.status == 0 else text[:200] or f"exit code {done.status}"


def _helper_failed(name: str, why: str) -> Unauthenticated:
    return Unauthenticated(
        f"credential helper docker-credential-{name} failed: {why}", code="credential_helper"
    )


def _from_auths(auths: Mapping[str, Any], domain: str, repository: str) -> Credentials:
    normal = {_normal_key(key): entry for key, entry in auths.items()}
    for key in _auth_keys(domain, repository):
        entry = auths.get(key, normal.get(key))
        if isinstance(entry, Mapping) and (found := _entry(entry)) != Credentials():
            return attrs.evolve(found, server_address=domain)
    return Credentials()


def _normal_key(key: str) -> str:
    """Legacy keys are URLs; containers-style keys are ``host/path``."""
    bare = key.partition("://")[2] or key
    host, _, path = bare.partition("/")
    return host if path.rstrip("/") in ("", "v1", "v2") else bare.rstrip("/")


def _auth_keys(domain: str, repository: str) -> Iterator[str]:
    """The most specific first."""
    parts = repository.split("/")
    for count in range(len(parts), 0, -1):
        yield f"{domain}/{'/'.join(parts[:count])}"
    yield from _host_keys(domain)


def _entry(entry: Mapping[str, Any]) -> Credentials:
    def text(key: str) -> str:
        value = entry.get(key)
        return value if isinstance(value, str) else ""

    username, password = text("username"), text("password")
    if text("auth"):
        try:
            decoded = base64.b64decode(text("auth"), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            decoded = ""
        user, colon, secret = decoded.partition(":")
        if colon:
            username, password = user, secret.rstrip("\0")
    return Credentials(
        username=username,
        password=password,
        identity_token=text("identitytoken"),
        registry_token=text("registrytoken"),
    )
