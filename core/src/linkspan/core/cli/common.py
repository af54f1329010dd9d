"""What several commands do alike."""

from __future__ import annotations

from linkspan.core.cli.failure import FAILED, USAGE, Failure, of_error
from linkspan.core.client.errors import ApiError
from linkspan.sdk.errors import LinkspanError

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing these takes longer than a short command may
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    import click

    from linkspan.core.cli.session import Session


def bad_value(reason: str, option: str) -> Failure:
    """The value of an option cannot be used."""
    return Failure(f"invalid value for {option}: {reason}", id="LS0004", status=USAGE)


def filters(pairs: Iterable[str]) -> dict[str, list[str]] | None:
    """``--filter label=a --filter name=x`` as the API takes it; None if there are none.

    Raises:
        Failure: A filter has no ``=``.
    """
    found: dict[str, list[str]] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise bad_value(f"'{pair}' is not of the form key=value", "--filter")
        found.setdefault(key.strip(), []).append(value.strip())
    return found or None


def key_values(pairs: Iterable[str], hint: str) -> dict[str, str]:
    """``a=1`` pairs as a mapping; a bare key has an empty value."""
    found = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if not key:
            raise bad_value(f"'{pair}' is not of the form key=value", hint)
        found[key] = value
    return found


def each(
    session: Session,
    names: Sequence[str],
    act: Callable[[str], Any],
    *,
    missing_ok: bool = False,
) -> int:
    """Do the same for several objects and print each name; go on after an error.

    Args:
        session: Of the command.
        names: The objects.
        act: Does it; may return lines to print instead of the name.
        missing_ok: What does not exist is told, but is no error (as with Docker's ``--force``).

    Returns:
        The exit status: of the last error, 0 if all went well.
    """
    status = 0
    for name in dict.fromkeys(names):
        try:
            said = act(name)
        except LinkspanError as exc:
            failure = of_error(exc)
            if failure.id == "LS0101":  # nobody answers: the others will fare alike
                raise
            session.terminal.error(failure.render())
            if not (missing_ok and isinstance(exc, ApiError) and exc.status == 404):
                status = failure.status or FAILED
        else:
            for line in said if isinstance(said, list) and not session.quiet else [name]:
                session.terminal.print(line)
            session.terminal.out.flush()
    return status


def content_trust(function: Callable[..., Any]) -> Callable[..., Any]:
    """Docker's ``--disable-content-trust``: there is none to disable, and none to ask for."""
    import click

    def refuse(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if not value:
            raise click.BadParameter("images cannot be verified by content trust here", ctx, param)

    return click.option(
        "--disable-content-trust/--no-disable-content-trust",
        default=True,
        hidden=True,
        expose_value=False,
        callback=refuse,
    )(function)


def asked(ctx: click.Context, path: str) -> Any:
    """What the daemon answers to a completion, quickly; None if it is not there, or says an error.

    It never starts a daemon.
    """
    from linkspan.core.client.resolve import resolve_address
    from linkspan.core.client.short import Api

    root = ctx.find_root().params
    try:
        host, context = str(root.get("_host") or ""), str(root.get("_context") or "")
        return Api(resolve_address(host, context=context), silence_s=0.3).get(path)
    except (LinkspanError, OSError, ValueError):
        return None


def complete(path: str, names: Callable[[Any], Iterable[str]]) -> Callable[..., list[str]]:
    """A completion with names from a list of the daemon's."""

    def finish(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
        answer = asked(ctx, path) or ()
        records = answer.get("Volumes") or () if isinstance(answer, dict) else answer
        found = [n for record in records for n in names(record)]
        return [name for name in found if name.startswith(incomplete)]

    return finish


def container_names(record: Any) -> list[str]:
    """Names without their slash."""
    return [name.lstrip("/") for name in record.get("Names") or ()]


def _name(record: Any) -> list[str]:
    return [record.get("Name") or (record.get("Spec") or {}).get("Name", "")]


complete_running = complete("/containers/json", container_names)
complete_container = complete("/containers/json?all=1", container_names)
complete_image = complete("/images/json", lambda record: record.get("RepoTags") or [])
complete_network = complete("/networks", _name)
complete_volume = complete("/volumes", _name)
complete_service = complete("/services", _name)
