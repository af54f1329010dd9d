"""``linkspan context``: daemons with names; shared with the docker CLI, save which one is in use."""

import io
import json
import os
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Final

import click

from linkspan.core.cli import completing
from linkspan.core.cli.command import command
from linkspan.core.cli.common import each
from linkspan.core.cli.failure import USAGE, Failure
from linkspan.core.cli.inspect import format_option
from linkspan.core.cli.session import Session
from linkspan.core.client import contexts
from linkspan.core.client.address import DEFAULT_CONTEXT
from linkspan.core.client.contexts import Context
from linkspan.core.client.resolve import (
    current_context,
    current_file,
    of_environment,
    resolve_address,
)
from linkspan.sdk.errors import Conflict, LinkspanError

_KEYS: Final = ("host", "ca", "cert", "key", "skip-tls-verify")
_SCHEMES: Final = ("unix://", "tcp://", "ssh://", "http://", "https://")
_LIMIT: Final = 10 << 20
_ENDPOINT: Final = "host=URL,ca=FILE,…"


def _complete(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return [c.name for c in contexts.read_all() if c.name.startswith(incomplete)]


def in_use(session: Session) -> str:
    """The context of this command; an address goes before contexts, and is the default one's."""
    if session.host or session.context:
        return session.context or DEFAULT_CONTEXT
    host, named = of_environment(os.environ)
    return DEFAULT_CONTEXT if host else named or current_context(os.environ) or DEFAULT_CONTEXT


def _document(context: Context) -> dict[str, Any]:
    endpoint = {"Host": context.host, "SkipTLSVerify": not context.verify}
    return {
        "Name": context.name,
        "Metadata": {"Description": context.description},
        "Endpoints": {"docker": endpoint},
        "TLSMaterial": {"docker": [f"{key}.pem" for key in context.files]} if context.files else {},
    }


def _default() -> Context:
    host, _ = of_environment(os.environ)
    url = resolve_address(host, context=DEFAULT_CONTEXT).url
    return Context(DEFAULT_CONTEXT, url, "What the config or the environment says")


@command(
    "ls",
    "List the daemons that have names.",
    examples=["linkspan context ls", "linkspan context ls -q"],
    more=["linkspan context use"],
)
def ls(session: Session) -> None:
    """List contexts."""
    used = in_use(session)

    def fields(context: Context) -> dict[str, Any]:
        return {
            "Name": context.name,
            "Current": context.name == used,
            "Description": context.description,
            "DockerEndpoint": context.host,
            "Error": "",
        }

    found = [_default(), *contexts.read_all()]
    rows = {context.name: context for context in found}

    def cells(record: Any) -> list[str]:
        context = rows[record["Name"]]
        mark = "*" if context.name == used else ""
        return [context.name, mark, context.host, context.description]

    session.rows(
        [fields(context) for context in found],
        lambda record: record,
        cells,
        ["NAME", "USED", "ADDRESS", "DESCRIPTION"],
        ids="Name",
        drop=["DESCRIPTION"],
        keep=["NAME", "USED"],
        docker="{{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}",
        titles={"Current": ""},
    )


def _endpoint(text: str) -> dict[str, str]:
    found = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if key.strip() not in _KEYS or not equals:
            raise click.BadParameter(
                f"'{part}' is none of {', '.join(f'{k}=…' for k in _KEYS)}", param_hint="--docker"
            )
        found[key.strip()] = value
    return found


def _with(context: Context, endpoint: dict[str, str], description: str | None) -> Context:
    files = dict(context.files)
    files |= {key: Path(endpoint[key]) for key in ("ca", "cert", "key") if endpoint.get(key)}
    skip = endpoint.get("skip-tls-verify")
    host = endpoint.get("host", "unix://")
    if not host.startswith(_SCHEMES):
        raise click.BadParameter(
            f"'{host}' is no address; write one of {', '.join(f'{s}…' for s in _SCHEMES)}",
            param_hint="--docker",
        )
    return Context(
        context.name,
        endpoint.get("host", context.host),
        context.description if description is None else description,
        context.verify if skip is None else skip.lower() not in ("true", "1"),
        files,
    )


@command(
    "create",
    "Give a daemon a name.",
    examples=[
        "linkspan context create build --docker host=ssh://ana@build.example.test",
        "linkspan context create prod --docker host=tcp://10.0.0.5:2376,ca=ca.pem,cert=cert.pem,key=key.pem",
    ],
    more=["linkspan context use", "linkspan context ls"],
)
@click.argument("name")
@click.option("--docker", "endpoint", default="", metavar=_ENDPOINT, help="Where it is")
@click.option("--description", default="", metavar="TEXT", help="For people")
@click.option("--from", "origin", default="", metavar="CONTEXT", help="Begin with another one")
def create(session: Session, name: str, endpoint: str, description: str, origin: str) -> None:
    """Give a daemon a name."""
    base = Context(name, "")
    if origin:
        base = (_default() if origin == DEFAULT_CONTEXT else contexts.read(origin))._replace(
            name=name
        )
    made = _with(base, _endpoint(endpoint) if endpoint else {}, description or None)
    if not made.host:
        raise Failure(
            "the context has no address",
            id="LS0004",
            status=USAGE,
            helps=[f"linkspan context create {name} --docker host=unix:///path"],
        )
    contexts.write(made)
    session.terminal.print(name)


@command(
    "update",
    "Change the address or the description of a context.",
    examples=["linkspan context update build --docker host=ssh://ana@new.example.test"],
)
@click.argument("name", shell_complete=_complete)
@click.option("--docker", "endpoint", default="", metavar=_ENDPOINT, help="Where it is")
@click.option("--description", metavar="TEXT", help="For people")
def update(session: Session, name: str, endpoint: str, description: str | None) -> None:
    """Change a context."""
    made = _with(contexts.read(name), _endpoint(endpoint) if endpoint else {}, description)
    contexts.write(made, replace=True)
    session.terminal.print(name)


@command(
    "use",
    "Take this daemon from now on; `default` is the one of the config.",
    examples=["linkspan context use build", "linkspan context use default"],
    more=["linkspan context ls"],
)
@click.argument("name", shell_complete=_complete)
def use(session: Session, name: str) -> None:
    """Choose a context."""
    if name != DEFAULT_CONTEXT:
        contexts.read(name)
    file = Path(current_file(os.environ))
    try:
        if name == DEFAULT_CONTEXT:
            file.unlink(missing_ok=True)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary = file.with_name(f"{file.name}.{os.getpid()}")
            temporary.write_text(f"{name}\n")
            temporary.replace(file)
    except OSError as exc:
        raise Failure(f"cannot write '{file}': {exc.strerror}") from exc
    for variable in ("LINKSPAN_HOST", "LINKSPAN_CONTEXT", "DOCKER_HOST", "DOCKER_CONTEXT"):
        if os.environ.get(variable):
            session.terminal.note(
                f"{session.terminal.painted_sign('warned')} {variable} is set and goes before it"
            )
            break
    session.terminal.print(name)


@command("show", "Print the name of the context in use.", examples=["linkspan context show"])
def show(session: Session) -> None:
    """Print which one."""
    session.terminal.print(in_use(session))


@command(
    "inspect",
    "Show everything about contexts, without the contents of their keys.",
    examples=["linkspan context inspect build"],
)
@click.argument("names", nargs=-1, shell_complete=_complete)
@format_option
def inspect(session: Session, names: tuple[str, ...]) -> None:
    """Show contexts."""
    session.document(
        [
            _document(_default() if name == DEFAULT_CONTEXT else contexts.read(name))
            for name in names or (in_use(session),)
        ]
    )


@command(
    "rm",
    "Forget contexts.",
    examples=["linkspan context rm build"],
)
@click.argument("names", nargs=-1, required=True, shell_complete=_complete)
@click.option(
    "-f", "--force", is_flag=True, help="Even the one in use; no error if it is not there"
)
def rm(session: Session, names: tuple[str, ...], force: bool) -> int:
    """Forget contexts."""

    def remove(name: str) -> None:
        if name == DEFAULT_CONTEXT:
            raise Conflict(f"context '{name}' is always there: it cannot be removed")
        if name == current_context(os.environ):
            if not force:
                raise Conflict(
                    f"context '{name}' is in use", help="linkspan context use default, or --force"
                )
            Path(current_file(os.environ)).unlink(missing_ok=True)
        try:
            contexts.remove(name)
        except LinkspanError:
            if not force:
                raise

    return each(session, names, remove)


@command(
    "export",
    "Write a context with its keys to a file, or to stdout (-).",
    examples=[
        "linkspan context export build",
        "linkspan context export build - > build.dockercontext",
    ],
    more=["linkspan context import"],
)
@click.argument("name", shell_complete=_complete)
@click.argument("file", default="", metavar="[FILE|-]", shell_complete=completing.files)
def export(session: Session, name: str, file: str) -> None:
    """Write a context."""
    context = contexts.read(name)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        document = {key: value for key, value in _document(context).items() if key != "TLSMaterial"}
        _add(archive, "meta.json", json.dumps(document).encode())
        for key, path in context.files.items():
            _add(archive, f"tls/docker/{key}.pem", path.read_bytes())
    if file == "-":
        if sys.stdout.isatty():
            raise Failure("stdout is a terminal; name a file", id="LS0004", status=USAGE)
        sys.stdout.buffer.write(out.getvalue())
        sys.stdout.buffer.flush()
        return
    target = Path(file or f"{name}.dockercontext")
    try:
        with os.fdopen(
            os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb"
        ) as stream:
            stream.write(out.getvalue())
    except OSError as exc:
        raise Failure(f"cannot write '{target}': {exc.strerror}") from exc
    session.terminal.note(f"written to {target}; it holds the keys")


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o600
    archive.addfile(info, io.BytesIO(data))


@command(
    "import",
    "Read a context that export has written.",
    examples=["linkspan context import build build.dockercontext"],
    more=["linkspan context export"],
)
@click.argument("name")
@click.argument("file", metavar="FILE|-", shell_complete=completing.files)
def import_(session: Session, name: str, file: str) -> None:
    """Read a context."""
    try:
        if file == "-":
            data = sys.stdin.buffer.read(_LIMIT + 1)
        else:
            with Path(file).open("rb") as stream:
                data = stream.read(_LIMIT + 1)
    except OSError as exc:
        raise Failure(f"cannot read '{file}': {exc.strerror}", id="LS0004", status=USAGE) from exc
    if len(data) > _LIMIT:
        raise Failure(f"'{file}' is too large for a context", id="LS0004", status=USAGE)
    with tempfile.TemporaryDirectory() as folder:
        contexts.write(_unpack(name, data, file, Path(folder)))
    session.terminal.print(name)


def _unpack(name: str, data: bytes, file: str, folder: Path) -> Context:
    """The context in an archive; only the files that it may have are looked at."""
    wanted = {f"tls/docker/{key}.pem": key for key in ("ca", "cert", "key")}
    files: dict[str, Path] = {}
    document: Any = None
    # Docker's command line leaves the end of its archive away, and the padding of the last file.
    whole = data + bytes(-len(data) % tarfile.BLOCKSIZE) + bytes(2 * tarfile.BLOCKSIZE)
    try:
        with tarfile.open(fileobj=io.BytesIO(whole), mode="r:") as archive:
            for info in archive:
                stream = archive.extractfile(info) if info.isreg() else None
                if stream is None:
                    continue
                if info.offset_data + info.size > len(data):
                    raise ValueError("the archive is cut off")
                if info.name == "meta.json":
                    document = json.loads(stream.read())
                elif info.name in wanted:
                    files[wanted[info.name]] = folder / wanted[info.name]
                    files[wanted[info.name]].write_bytes(stream.read())
        endpoint = document["Endpoints"]["docker"]
        description = str((document.get("Metadata") or {}).get("Description") or "")
        host, skip = str(endpoint["Host"]), bool(endpoint.get("SkipTLSVerify"))
    except (tarfile.TarError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise Failure(f"'{file}' holds no context", id="LS0004", status=USAGE) from exc
    return Context(name, host, description, not skip, files)
