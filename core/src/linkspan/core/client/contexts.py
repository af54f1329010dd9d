"""Named daemons, kept where the docker CLI keeps its contexts, so that both know the same ones.

``~/.docker/contexts/meta/HASH/meta.json`` has name, description and address,
``~/.docker/contexts/tls/HASH/docker/`` the files for TLS; HASH is the name's SHA-256.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from linkspan.core.client.address import DEFAULT_CONTEXT, Address, Tls
from linkspan.sdk.errors import Conflict, InvalidArgument, NotFound

_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.+-]+")
_FILES: Final = ("ca", "cert", "key")


class Context(NamedTuple):
    """A daemon with a name.

    Attributes:
        name: Letters, digits and ``_.+-``, two at least.
        host: Its address.
        description: For people.
        verify: Whether it has to prove who it is.
        files: ``ca``, ``cert``, ``key``: the files for TLS that are there.
    """

    name: str
    host: str
    description: str = ""
    verify: bool = True
    files: Mapping[str, Path] = {}


def _folder(environ: Mapping[str, str]) -> Path:
    base = environ.get("DOCKER_CONFIG") or str(Path("~/.docker").expanduser())
    return Path(base) / "contexts"


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def check_name(name: str) -> None:
    """Refuse names that cannot be kept.

    Raises:
        InvalidArgument: It is not made of the right characters, or is ``default``.
    """
    if name == DEFAULT_CONTEXT:
        raise InvalidArgument(f"'{name}' is the context that is always there; take another name")
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            f"'{name}' cannot be the name of a context",
            help="two characters or more: letters, digits and _ . + -, beginning with one of the first two",
        )


def read(name: str, environ: Mapping[str, str] = os.environ) -> Context:
    """A context by its name.

    Raises:
        NotFound: There is none.
    """
    file = _folder(environ) / "meta" / _hash(name) / "meta.json"
    found = _parse(file, environ)
    if found is None or found.name != name:
        raise NotFound(f"there is no context '{name}'", help="linkspan context ls")
    return found


def _parse(file: Path, environ: Mapping[str, str]) -> Context | None:
    try:
        document: Any = json.loads(file.read_bytes())
        endpoint = document["Endpoints"]["docker"]
        name = str(document["Name"])
        description = str((document.get("Metadata") or {}).get("Description") or "")
        host, skip = str(endpoint.get("Host") or ""), bool(endpoint.get("SkipTLSVerify"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    tls = _folder(environ) / "tls" / _hash(name) / "docker"
    files = {key: tls / f"{key}.pem" for key in _FILES if (tls / f"{key}.pem").is_file()}
    return Context(name, host, description, not skip, files)


def read_all(environ: Mapping[str, str] = os.environ) -> list[Context]:
    """All of them, by name."""
    files = (_folder(environ) / "meta").glob("*/meta.json")
    found = [context for file in files if (context := _parse(file, environ)) is not None]
    return sorted(found, key=lambda context: context.name)


def address_of(name: str, environ: Mapping[str, str] = os.environ) -> Address:
    """The address of a context.

    Raises:
        NotFound: There is none of this name.
    """
    context = read(name, environ)
    tls = None
    if context.files or not context.verify:
        paths = {key: str(path) for key, path in context.files.items()}
        tls = Tls(**paths, verify=context.verify)
    return Address(context.host, tls=tls, context=name)


def write(
    context: Context, *, replace: bool = False, environ: Mapping[str, str] = os.environ
) -> None:
    """Keep a context; the files for TLS are copied.

    Raises:
        Conflict: There is one of this name, and it is not to be replaced.
        InvalidArgument: The name cannot be kept, or a file cannot be read.
    """
    check_name(context.name)
    base, key = _folder(environ), _hash(context.name)
    meta, tls = base / "meta" / key, base / "tls" / key / "docker"
    if (meta / "meta.json").exists() and not replace:
        raise Conflict(
            f"there is a context '{context.name}' already",
            help=f"linkspan context update {context.name} …",
        )
    try:
        contents = {name: path.read_bytes() for name, path in context.files.items()}
    except OSError as exc:
        raise InvalidArgument(f"cannot read '{exc.filename}': {exc.strerror}") from exc
    if tls.exists():
        shutil.rmtree(tls)
    if contents:
        tls.mkdir(parents=True, mode=0o700)
        for name, data in contents.items():
            with os.fdopen(
                os.open(tls / f"{name}.pem", os.O_WRONLY | os.O_CREAT, 0o600), "wb"
            ) as to:
                to.write(data)
    document = {
        "Name": context.name,
        "Metadata": {"Description": context.description} if context.description else {},
        "Endpoints": {"docker": {"Host": context.host, "SkipTLSVerify": not context.verify}},
    }
    meta.mkdir(parents=True, exist_ok=True, mode=0o755)
    temporary = meta / f".meta.json.{os.getpid()}"
    temporary.write_text(json.dumps(document))
    temporary.replace(meta / "meta.json")


def remove(name: str, environ: Mapping[str, str] = os.environ) -> None:
    """Forget a context with its files.

    Raises:
        NotFound: There is none.
    """
    read(name, environ)
    base, key = _folder(environ), _hash(name)
    shutil.rmtree(base / "meta" / key)
    shutil.rmtree(base / "tls" / key, ignore_errors=True)
