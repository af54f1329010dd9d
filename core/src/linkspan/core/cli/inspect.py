"""``inspect`` of everything: the API's answer as one JSON array, or by a template."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import click

from linkspan.core.cli import completing
from linkspan.core.cli.command import Command, Platform, command
from linkspan.core.cli.failure import of_error
from linkspan.core.cli.inspect_shapes import whole
from linkspan.core.cli.session import Session
from linkspan.core.client.errors import ApiError
from linkspan.core.client.short import segment

_PATHS: Final = {
    "container": "/containers/{}/json",
    "image": "/images/{}/json",
    "volume": "/volumes/{}",
    "network": "/networks/{}",
    "service": "/services/{}",
    "node": "/nodes/{}",
    "task": "/tasks/{}",
    "secret": "/secrets/{}",
    "config": "/configs/{}",
}
_ASKED: Final = {"service": {"insertDefaults": True}}
"""Kind → parameters of its path: what holds where nobody said anything is shown, too."""
_NOT_THERE: Final = (404, 501, 503)


def _show(
    session: Session,
    names: tuple[str, ...],
    kinds: tuple[str, ...],
    query: dict[str, Any] | None = None,
    *,
    pretty: bool = False,
) -> int:
    if kinds == ("service",):
        pretty = _of_services(session, pretty)
    found: list[Any] = []
    status = 0
    for name in names:
        kind, record = _find(session, name, kinds, query)
        if record is None:
            what = "object" if len(kinds) > 1 else kinds[0]
            failure = of_error(ApiError(404, f"no such {what}: {name}"))
            session.terminal.error(failure.render())
            status = failure.status
        else:
            found.append(whole(record, kind) if "{{" in session.format else record)
    if pretty and not session.format:
        for record in found:
            for line in outline(record):
                session.terminal.print(line)
    elif found or session.format in ("", "json"):
        session.document(found)
    return status


def _of_services(session: Session, pretty: bool) -> bool:
    """Whether services are shown for people; Docker has a setting for their format, and two words more."""
    if not pretty:
        session.prefer("serviceInspectFormat")
    if session.format not in ("pretty", "raw"):
        return pretty
    pretty = session.format == "pretty"
    session.format = ""
    return pretty


def outline(value: Any, indent: int = 0) -> Iterator[str]:
    """What an object has, for people: a line a value, what is empty left out."""
    pad = "  " * indent
    for key, item in value.items() if isinstance(value, dict) else ():
        if item in (None, "", [], {}):
            continue
        if isinstance(item, dict):
            yield f"{pad}{key}:"
            yield from outline(item, indent + 1)
        elif isinstance(item, list) and any(isinstance(entry, dict) for entry in item):
            yield f"{pad}{key}:"
            for entry in item:
                first, *rest = outline(entry, indent + 2)
                yield f"{pad}  - {first.strip()}"
                yield from rest
        else:
            shown = ", ".join(map(str, item)) if isinstance(item, list) else str(item)
            yield f"{pad}{key}: {shown}"


def _find(
    session: Session, name: str, kinds: tuple[str, ...], query: dict[str, Any] | None
) -> tuple[str, Any]:
    """The kind and the record of what has this name; None if nothing has."""
    for kind in kinds:
        asked = {**(query or {}), **_ASKED.get(kind, {})}
        try:
            return kind, session.api.get(_PATHS[kind].format(segment(name)), asked)
        except ApiError as exc:
            # 503: not in a cluster; the next kind may be there all the same.
            if exc.status not in _NOT_THERE and not (len(kinds) > 1 and exc.status == 400):
                raise
            if len(kinds) == 1 and exc.status != 404:
                raise
    return "", None


def _keep_format(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value:
        ctx.ensure_object(Session).format = value


def format_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """``-f`` for ``--format``, where Docker has it."""
    return click.option(
        "-f",
        "--format",
        expose_value=False,
        callback=_keep_format,
        help="json, jsonl or a template: '{{.State.Status}}'",
    )(function)


@command(
    "inspect",
    "Show everything about containers, images, volumes, networks, services, nodes.",
    examples=[
        "linkspan inspect web",
        "linkspan inspect -f '{{.State.Status}}' web",
        "linkspan inspect --type volume data",
    ],
)
@click.argument("names", nargs=-1, required=True, shell_complete=completing.objects())
@click.option("--type", "kind", type=click.Choice(list(_PATHS)), help="Look among these only")
@click.option("-s", "--size", is_flag=True, help="The sizes of containers, too")
@format_option
def inspect(session: Session, names: tuple[str, ...], kind: str | None, size: bool) -> int:
    """Show everything about objects."""
    return _show(session, names, (kind,) if kind else tuple(_PATHS), {"size": size or None})


Options = Sequence[Callable[[Callable[..., Any]], Callable[..., Any]]]


def _of_kind(kind: str, example: str, options: Options = ()) -> Command:
    def inspect_kind(
        session: Session, names: tuple[str, ...], *, pretty: bool = False, **query: Any
    ) -> int:
        """Show everything about objects of one kind."""
        asked = {key: value or None for key, value in query.items()}
        return _show(session, names, (kind,), asked, pretty=pretty)

    function: Callable[..., Any] = inspect_kind
    for option in (format_option, *options):
        function = option(function)
    names = completing.objects(kind)
    function = click.argument("names", nargs=-1, required=True, shell_complete=names)(function)
    return command(
        "inspect",
        f"Show everything about {kind}s.",
        examples=[f"linkspan {kind} inspect {example}"],
    )(function)


_PRETTY: Final = click.option("--pretty", is_flag=True, help="For people, not JSON")
container = _of_kind(
    "container", "web", [click.option("-s", "--size", is_flag=True, help="Its sizes, too")]
)
image = _of_kind(
    "image",
    "alpine",
    [click.option("--platform", type=Platform(), metavar="OS/ARCH", help="Of one with several")],
)
volume = _of_kind("volume", "data")
network = _of_kind(
    "network",
    "bridge",
    [click.option("-v", "--verbose", is_flag=True, help="Of services, their tasks, too")],
)
service = _of_kind("service", "web", [_PRETTY])
node = _of_kind("node", "self", [_PRETTY])
secret = _of_kind("secret", "db-password", [_PRETTY])
config = _of_kind("config", "nginx.conf", [_PRETTY])
