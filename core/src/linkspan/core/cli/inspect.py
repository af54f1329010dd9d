"""``inspect`` of everything: the API's answer as one JSON array, or by a template."""

from collections.abc import Callable
from typing import Any, Final

import click

from linkspan.core.cli.command import Command, command
from linkspan.core.cli.failure import of_error
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
_NOT_THERE: Final = (404, 501, 503)


def _show(session: Session, names: tuple[str, ...], kinds: tuple[str, ...]) -> int:
    found: list[Any] = []
    status = 0
    for name in names:
        record = _find(session, name, kinds)
        if record is None:
            what = "object" if len(kinds) > 1 else kinds[0]
            failure = of_error(ApiError(404, f"no such {what}: {name}"))
            session.terminal.error(failure.render())
            status = failure.status
        else:
            found.append(record)
    if found or session.format in ("", "json"):
        session.document(found)
    return status


def _find(session: Session, name: str, kinds: tuple[str, ...]) -> Any:
    for kind in kinds:
        try:
            return session.api.get(_PATHS[kind].format(segment(name)))
        except ApiError as exc:
            # 503: not in a cluster; the next kind may be there all the same.
            if exc.status not in _NOT_THERE and not (len(kinds) > 1 and exc.status == 400):
                raise
            if len(kinds) == 1 and exc.status != 404:
                raise
    return None


def _keep_format(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value:
        ctx.ensure_object(Session).format = value


def _format_option(function: Callable[..., Any]) -> Callable[..., Any]:
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
@click.argument("names", nargs=-1, required=True)
@click.option("--type", "kind", type=click.Choice(list(_PATHS)), help="Look among these only")
@_format_option
def inspect(session: Session, names: tuple[str, ...], kind: str | None) -> int:
    """Show everything about objects."""
    return _show(session, names, (kind,) if kind else tuple(_PATHS))


def _of_kind(kind: str, example: str) -> Command:
    @command(
        "inspect",
        f"Show everything about {kind}s.",
        examples=[f"linkspan {kind} inspect {example}"],
    )
    @click.argument("names", nargs=-1, required=True)
    @_format_option
    def inspect_kind(session: Session, names: tuple[str, ...]) -> int:
        """Show everything about objects of one kind."""
        return _show(session, names, (kind,))

    return inspect_kind


container = _of_kind("container", "web")
image = _of_kind("image", "alpine")
volume = _of_kind("volume", "data")
network = _of_kind("network", "bridge")
service = _of_kind("service", "web")
node = _of_kind("node", "self")
secret = _of_kind("secret", "db-password")
config = _of_kind("config", "nginx.conf")
