"""Logins to registries, kept where the docker CLI keeps them: ``~/.docker/config.json`` and its helpers.

A helper is a program ``docker-credential-NAME`` that keeps passwords in a safe place; the file says
which one (``credsStore``, or ``credHelpers`` for single registries).
"""

from __future__ import annotations

import binascii
import os

from linkspan.core.cli.failure import Failure
from linkspan.core.client import quick_json
from linkspan.core.client.resolve import docker_config

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing these takes longer than a short command may
    from pathlib import Path
    from typing import Any, Final

DOCKER_HUB: Final = "https://index.docker.io/v1/"
_TOKEN_USER: Final = "<token>"  # noqa: S105 - a user's name, by the protocol
_HELPER_TIMEOUT_S: Final = 30
_NOT_FOUND: Final = "credentials not found"


def config_file() -> Path:
    """``config.json`` of the docker CLI; ``DOCKER_CONFIG`` names its folder."""
    from pathlib import Path

    return Path(docker_config(os.environ))


def read_config() -> dict[str, Any]:
    """The file's document; empty if there is none, or none that can be read."""
    try:
        with open(docker_config(os.environ), "rb") as stream:  # noqa: PTH123
            found = quick_json.loads(stream.read())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _changeable() -> dict[str, Any]:
    """The file's document, to be written again with a change.

    Raises:
        Failure: It cannot be read: what is in it would be lost.
    """
    try:
        with open(docker_config(os.environ), "rb") as stream:  # noqa: PTH123
            found = quick_json.loads(stream.read() or b"{}")
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise Failure(f"cannot read '{docker_config(os.environ)}': {exc.strerror}") from exc
    except ValueError:
        found = None
    if not isinstance(found, dict):
        hint = "mend it, or move it away"
        raise Failure(
            f"'{docker_config(os.environ)}' is not a JSON object; it is left alone", helps=[hint]
        )
    return found


def write_config(document: dict[str, Any]) -> None:
    """Replace the file; nobody else may read it.

    Raises:
        Failure: It cannot be written.
    """
    import json

    from linkspan.sdk.files import replace_file

    file = config_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(file.resolve(), json.dumps(document, indent="\t").encode(), durable=True)
    except OSError as exc:
        raise Failure(f"cannot write '{file}': {exc.strerror}") from exc


def registry_of(reference: str) -> str:
    """The registry of a reference, as logins are kept under."""
    first, slash, _ = reference.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return server_name(first)
    return DOCKER_HUB


def server_name(text: str) -> str:
    """``docker.io`` and its like become the address that Docker Hub's login is kept under."""
    bare = text.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return DOCKER_HUB if bare in ("", "docker.io", "index.docker.io") else bare


def lookup(server: str) -> dict[str, str]:
    """The login for a registry as the API's AuthConfig; empty if there is none."""
    document = read_config()
    helper = _helper(document, server)
    if helper:
        found = _run_helper(helper, "get", server)
        if found is None:
            return {}
        user, secret = str(found.get("Username", "")), str(found.get("Secret", ""))
        if user == _TOKEN_USER:
            return {"identitytoken": secret, "serveraddress": server}
        return {"username": user, "password": secret, "serveraddress": server}
    auths = document.get("auths")
    entry = _entry(auths if isinstance(auths, dict) else {}, server)
    if entry.get("identitytoken"):
        return {"identitytoken": str(entry["identitytoken"]), "serveraddress": server}
    try:
        text = binascii.a2b_base64(str(entry.get("auth") or "")).decode()
    except ValueError:
        return {}
    user, _, password = text.partition(":")
    if not user:
        return {}
    return {"username": user, "password": password, "serveraddress": server}


def _entry(auths: dict[str, Any], server: str) -> dict[str, Any]:
    for key in (server, f"https://{server}", f"http://{server}", f"https://{server}/v1/"):
        entry = auths.get(key)
        if isinstance(entry, dict):
            return entry
    return {}


def keep(server: str, login: dict[str, str]) -> str:
    """Keep a login (the API's AuthConfig, or its identity token).

    Returns:
        Where it is kept, for the user.
    """
    document = _changeable()
    helper = _helper(document, server)
    user = _TOKEN_USER if login.get("identitytoken") else login["username"]
    secret = login.get("identitytoken") or login["password"]
    if helper:
        _run_helper(helper, "store", {"ServerURL": server, "Username": user, "Secret": secret})
        entry: dict[str, str] = {}
    elif login.get("identitytoken"):
        entry = {"identitytoken": secret}
    else:
        entry = {"auth": binascii.b2a_base64(f"{user}:{secret}".encode(), newline=False).decode()}
    if not isinstance(document.get("auths"), dict):
        document["auths"] = {}
    document["auths"][server] = entry
    write_config(document)
    return f"docker-credential-{helper}" if helper else str(config_file())


def forget(server: str) -> bool:
    """Remove a login; False if there was none."""
    document = _changeable()
    helper = _helper(document, server)
    auths = document.get("auths") if isinstance(document.get("auths"), dict) else {}
    known = [
        key for key in (server, f"https://{server}", f"http://{server}") if key in (auths or {})
    ]
    if helper:
        _run_helper(helper, "erase", server)
    if not known:
        return False
    for key in known:
        del document["auths"][key]
    write_config(document)
    return True


def _helper(document: dict[str, Any], server: str) -> str:
    helpers = document.get("credHelpers")
    named = helpers.get(server) if isinstance(helpers, dict) else None
    return str(named or document.get("credsStore") or "")


def _run_helper(name: str, verb: str, message: object) -> dict[str, Any] | None:
    """Talk to a helper: what it answers, None if it has no such login.

    Raises:
        Failure: It is not there, or fails.
    """
    import subprocess  # few have a helper, and every build reads the logins

    program = f"docker-credential-{name}"
    text = message if isinstance(message, str) else quick_json.dumps(message)
    try:
        done = subprocess.run(
            [program, verb],
            input=text.encode(),
            capture_output=True,
            check=False,
            timeout=_HELPER_TIMEOUT_S,
        )
    except FileNotFoundError as exc:
        raise Failure(
            f"there is no program '{program}', which '{config_file()}' names", helps=["install it"]
        ) from exc
    except subprocess.TimeoutExpired as exc:
        raise Failure(f"'{program} {verb}' says nothing for {_HELPER_TIMEOUT_S} s") from exc
    said = done.stdout.decode(errors="replace").strip()
    if done.returncode:
        if _NOT_FOUND in said or verb == "erase":
            return None
        raise Failure(f"'{program} {verb}' failed: {said or done.stderr.decode(errors='replace')}")
    try:
        found = quick_json.loads(said) if verb == "get" else {}
    except ValueError as exc:
        raise Failure(f"'{program} {verb}' did not answer in JSON") from exc
    return found if isinstance(found, dict) else {}


def registry_auth(reference: str) -> str:
    """The X-Registry-Auth header for an image's registry."""
    return encode(lookup(registry_of(reference)))


def encode(login: dict[str, str]) -> str:
    """A login as a header."""
    return _urlsafe(quick_json.dumps(login))


def _urlsafe(text: str) -> str:
    """Base64 with ``-`` and ``_`` (RFC 4648 §5)."""
    data = binascii.b2a_base64(text.encode(), newline=False)
    return data.translate(bytes.maketrans(b"+/", b"-_")).decode()


def registry_config() -> str:
    """The X-Registry-Config header: the logins for all registries that the file knows of."""
    document = read_config()
    named = [document.get(name) for name in ("auths", "credHelpers")]
    servers = dict.fromkeys(server for each in named if isinstance(each, dict) for server in each)
    logins = {server: lookup(server) for server in servers}
    return _urlsafe(quick_json.dumps({server: login for server, login in logins.items() if login}))
