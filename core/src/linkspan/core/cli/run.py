"""``run``, ``create``, ``start``, ``exec``, ``attach``: commands that join a container's streams."""

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from linkspan.core.cli import completing
from linkspan.core.cli.command import command
from linkspan.core.cli.common import (
    complete_container,
    complete_image,
    complete_running,
    content_trust,
    each,
)
from linkspan.core.cli.failure import (
    CANNOT_RUN,
    DAEMON_FAILED,
    FAILED,
    NO_COMMAND,
    USAGE,
    Failure,
    of_error,
)
from linkspan.core.cli.runflags import container_body, container_options
from linkspan.core.cli.runvalues import environment
from linkspan.core.cli.session import Session, where
from linkspan.core.client.errors import ApiError
from linkspan.core.client.short import segment
from linkspan.core.client.terminal_stream import (
    DEFAULT_DETACH_KEYS,
    BadDetachKeysError,
    Session as Stream,
    parse_detach_keys,
)
from linkspan.sdk.errors import LinkspanError

_SETTINGS: Final = {"allow_interspersed_args": False, "help_option_names": ["--help"]}
_NOT_FOUND: Final = ("executable file not found", "no such file or directory", "not found in")
_NOT_ALLOWED: Final = ("permission denied", "is a directory", "exec format error")
_detach_keys = click.option(
    "--detach-keys", default="", metavar="KEYS", help="Keys that leave it running"
)


@command(
    "run",
    "Create and start a container; its exit code is ours.",
    examples=[
        "linkspan run --rm alpine echo hello",
        "linkspan run --rm -it alpine sh",
        "linkspan run -d --name web -p 8080:80 -v data:/srv nginx",
        "linkspan run --memory 512m --cpus 0.5 --restart on-failure:3 -d worker",
    ],
    more=["linkspan create", "linkspan exec", "linkspan logs"],
    context_settings=_SETTINGS,
    usage_status=DAEMON_FAILED,
)
@click.argument("image", shell_complete=complete_image)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND [ARG]...]")
@click.option("-d", "--detach", is_flag=True, help="Leave it running and print its id")
@click.option("--sig-proxy/--no-sig-proxy", default=True, help="Pass signals on to it")
@_detach_keys
@content_trust
@container_options
def run(
    session: Session,
    image: str,
    arguments: tuple[str, ...],
    detach: bool,
    sig_proxy: bool,
    detach_keys: str,
    **options: Any,
) -> int:
    """Create and start a container."""
    keys = _keys(session, detach_keys, joined=not detach)
    if options["interactive"] and options["tty"] and not detach:
        _need_terminal()
    if detach and options["attach"]:
        raise click.UsageError("--detach and --attach contradict each other")
    try:
        identifier = _create(session, image, arguments, options, attach=not detach)
    except LinkspanError as exc:
        raise _with_status(exc, DAEMON_FAILED) from exc
    if detach:
        _start(session, identifier, remove=options["remove"])
        session.terminal.print(identifier)
        return 0
    return _run_attached(session, identifier, options, sig_proxy, keys)


@command(
    "create",
    "Create a container without starting it, and print its id.",
    examples=["linkspan create --name job alpine sleep 10", "linkspan start job"],
    more=["linkspan run", "linkspan start"],
    context_settings=_SETTINGS,
)
@click.argument("image", shell_complete=complete_image)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND [ARG]...]")
@content_trust
@container_options
def create(session: Session, image: str, arguments: tuple[str, ...], **options: Any) -> None:
    """Create a container."""
    try:
        identifier = _create(session, image, arguments, options, attach=True)
    except LinkspanError as exc:
        raise _with_status(exc, DAEMON_FAILED) from exc
    session.terminal.print(identifier)


@command(
    "start",
    "Start containers.",
    examples=["linkspan start web db", "linkspan start --attach job"],
    more=["linkspan run", "linkspan stop"],
    usage_status=DAEMON_FAILED,
)
@click.argument("containers", nargs=-1, required=True, shell_complete=complete_container)
@click.option(
    "-a", "--attach", "attach_", is_flag=True, help="Join its output; its exit code is ours"
)
@click.option("-i", "--interactive", is_flag=True, help="Send it our stdin")
@_detach_keys
def start(
    session: Session,
    containers: tuple[str, ...],
    attach_: bool,
    interactive: bool,
    detach_keys: str,
) -> int:
    """Start containers."""
    if not (attach_ or interactive):
        return each(
            session,
            containers,
            lambda name: session.api.post(f"/containers/{segment(name)}/start"),
        )
    if len(containers) != 1:
        raise click.UsageError("only one container can be attached to at a time")
    found = session.api.get(f"/containers/{segment(containers[0])}/json")
    options = {
        "tty": found["Config"].get("Tty", False),
        "interactive": interactive and found["Config"].get("OpenStdin", False),
        "remove": (found.get("HostConfig") or {}).get("AutoRemove", False),
        "attach": (),
    }
    return _run_attached(session, found["Id"], options, True, _keys(session, detach_keys))


@command(
    "attach",
    "Join the streams of a running container.",
    examples=["linkspan attach web        (ctrl-p ctrl-q leaves it running)"],
    more=["linkspan exec", "linkspan logs --follow"],
    usage_status=DAEMON_FAILED,
)
@click.argument("container", shell_complete=complete_running)
@click.option("--no-stdin", is_flag=True, help="Only watch")
@click.option("--sig-proxy/--no-sig-proxy", default=True, help="Pass signals on to it")
@_detach_keys
def attach(
    session: Session, container: str, no_stdin: bool, sig_proxy: bool, detach_keys: str
) -> int:
    """Join a running container."""
    keys = _keys(session, detach_keys)
    found = session.api.get(f"/containers/{segment(container)}/json")
    if not found["State"].get("Running"):
        raise Failure(
            f"container '{container}' does not run",
            helps=[f"linkspan start --attach {container}"],
        )
    identifier, tty = found["Id"], found["Config"].get("Tty", False)
    stdin = not no_stdin and found["Config"].get("OpenStdin", False)
    streams = _streams({"attach": (), "interactive": stdin})
    stream = _attach(session, identifier, tty=tty, streams=streams, sig_proxy=sig_proxy, keys=keys)
    with session.api.open("POST", f"/containers/{identifier}/wait", silence_s=None) as waiting:
        if not _joined(session, stream, container):
            return 0
        return int(waiting.json()["StatusCode"])


@command(
    "exec",
    "Run a command in a running container; its exit code is ours.",
    examples=["linkspan exec web ls /", "linkspan exec -it -u root web sh"],
    more=["linkspan attach", "linkspan run"],
    context_settings={"allow_interspersed_args": False},
    usage_status=DAEMON_FAILED,
)
@click.argument("container", shell_complete=complete_running)
@click.argument(
    "arguments", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND [ARG]..."
)
@click.option("-d", "--detach", is_flag=True, help="Do not wait for it")
@click.option("-i", "--interactive", is_flag=True, help="Send it our stdin")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal")
@click.option(
    "-e",
    "--env",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="Environment",
    shell_complete=completing.variable,
)
@click.option(
    "--env-file",
    multiple=True,
    metavar="FILE",
    shell_complete=completing.files,
    help="Environment from a file",
)
@click.option("-u", "--user", default="", metavar="USER[:GROUP]", help="Run as")
@click.option("-w", "--workdir", default="", metavar="DIR", help="Working directory")
@click.option("--privileged", is_flag=True, help="With all capabilities")
@_detach_keys
def exec_(
    session: Session,
    container: str,
    arguments: tuple[str, ...],
    detach: bool,
    interactive: bool,
    tty: bool,
    env: tuple[str, ...],
    env_file: tuple[str, ...],
    user: str,
    workdir: str,
    privileged: bool,
    detach_keys: str,
) -> int:
    """Run a command in a running container."""
    keys = _keys(session, detach_keys, joined=not detach)
    if interactive and tty and not detach:
        _need_terminal()
    body = {
        "AttachStdin": interactive and not detach,
        "AttachStdout": not detach,
        "AttachStderr": not detach,
        "Tty": tty,
        "Cmd": list(arguments),
        "Env": environment(env, env_file),
        "User": user,
        "WorkingDir": workdir,
        "Privileged": privileged,
    }
    if detach:
        api = session.api
        identifier = api.post(f"/containers/{segment(container)}/exec", None, body)["Id"]
        api.post(f"/exec/{identifier}/start", None, {"Detach": True, "Tty": tty})
        return 0
    return exec_joined(session, container, body, keys)


def exec_joined(
    session: Session,
    container: str,
    body: dict[str, Any],
    keys: bytes = parse_detach_keys(DEFAULT_DETACH_KEYS),
) -> int:
    """Run a command in a container with our streams; its exit code, 0 if it was left running.

    Args:
        session: Of the command.
        container: A running one.
        body: As the API takes it (``ExecConfig``); ``Tty`` and ``AttachStdin`` say which streams.
        keys: Leave it running.
    """
    api = session.api
    identifier = api.post(f"/containers/{segment(container)}/exec", None, body)["Id"]
    settings = {"Detach": False, "Tty": body["Tty"]}
    try:
        sock, early, _ = api.hijack(f"/exec/{identifier}/start", None, settings)
    except ApiError as exc:
        raise _with_status(exc, _status_of(exc, 1)) from exc
    with sock:
        stream = Stream(
            sock,
            early,
            tty=body["Tty"],
            stdin=body["AttachStdin"],
            resize=lambda h, w: api.post(f"/exec/{identifier}/resize", {"h": h, "w": w}),
            detach_keys=keys,
        )
        if not stream.run():
            return 0
    return int(api.get(f"/exec/{identifier}/json").get("ExitCode") or 0)


def _keys(session: Session, text: str, *, joined: bool = True) -> bytes:
    """The keys of the option, else those of the docker CLI's ``config.json``, else the usual ones."""
    set_ = session.preference("detachKeys") if joined and not text else ""
    try:
        return parse_detach_keys(text or set_ or DEFAULT_DETACH_KEYS)
    except BadDetachKeysError as exc:
        if not set_:
            raise click.BadParameter(str(exc), param_hint="--detach-keys") from exc
        raise Failure(
            f"invalid value for {where('detachKeys')}: {exc}",
            id="LS0004",
            status=USAGE,
            helps=["mend it there, or give --detach-keys"],
        ) from exc


def _need_terminal() -> None:
    if not sys.stdin.isatty():
        raise Failure(
            "-it needs a terminal, and stdin is none",
            id="LS0004",
            status=USAGE,
            helps=["leave out -t to send stdin as it is"],
        )


def _create(
    session: Session,
    image: str,
    arguments: tuple[str, ...],
    options: dict[str, Any],
    *,
    attach: bool,
) -> str:
    """Create the container, pulling its image if it is missing; return its id."""
    body = container_body(image, arguments, options)
    streams = _streams(options) if attach else frozenset()
    body |= {"AttachStdout": "stdout" in streams, "AttachStderr": "stderr" in streams}
    body["AttachStdin"] = body["StdinOnce"] = "stdin" in streams
    cidfile = Path(options["cidfile"]) if options["cidfile"] else None
    if cidfile is not None and cidfile.exists():
        raise Failure(
            f"the file '{cidfile}' exists already", status=DAEMON_FAILED, helps=[f"rm {cidfile}"]
        )
    if cidfile is not None and not cidfile.absolute().parent.is_dir():
        raise Failure(
            f"there is no folder '{cidfile.absolute().parent}' for --cidfile", status=DAEMON_FAILED
        )
    if options["pull"] == "always":
        _pull(session, image, options["platform"])
    query = {"name": options["name"], "platform": options["platform"]}
    try:
        made = session.api.post("/containers/create", query, body)
    except ApiError as exc:
        if not _image_is_missing(exc) or options["pull"] == "never":
            raise
        _pull(session, image, options["platform"])
        made = session.api.post("/containers/create", query, body)
    for warning in made.get("Warnings") or ():
        session.terminal.note(f"{session.terminal.painted_sign('warned')} {warning}")
    if cidfile is not None:
        cidfile.write_text(made["Id"])
    return str(made["Id"])


def _streams(options: dict[str, Any]) -> frozenset[str]:
    """Which of a container's streams are joined."""
    if options["attach"]:
        return frozenset(options["attach"])
    return frozenset(("stdout", "stderr", *(("stdin",) if options["interactive"] else ())))


def _image_is_missing(exc: ApiError) -> bool:
    return exc.status == 404 and (
        exc.code == "image_not_found" or "no such image" in exc.message.lower()
    )


def _pull(session: Session, image: str, platform: str | None) -> None:
    from linkspan.core.cli.image import pull_image

    try:
        pull_image(session, image, platform=platform or "", transient=True)
    except Failure as failure:
        if failure.status == FAILED:
            failure.status = DAEMON_FAILED
        raise


def _start(session: Session, identifier: str, *, remove: bool) -> None:
    try:
        session.api.post(f"/containers/{identifier}/start")
    except ApiError as exc:
        if remove:
            with suppress(LinkspanError):
                session.api.delete(f"/containers/{identifier}", {"force": True, "v": True})
        raise _with_status(exc, _status_of(exc, DAEMON_FAILED)) from exc


def _run_attached(
    session: Session, identifier: str, options: dict[str, Any], sig_proxy: bool, keys: bytes
) -> int:
    """Attach, then start, so that nothing is missed; wait was asked for before, for the same reason."""
    stream = _attach(
        session,
        identifier,
        tty=options["tty"],
        streams=_streams(options),
        sig_proxy=sig_proxy,
        keys=keys,
    )
    condition = "removed" if options["remove"] else "next-exit"
    query = {"condition": condition}
    path = f"/containers/{identifier}/wait"
    with session.api.open("POST", path, query, silence_s=None) as waiting:
        start = partial(_start, session, identifier, remove=options["remove"])
        if not _joined(session, stream, identifier[:12], start):
            return 0
        ended = waiting.json()
    if (ended.get("Error") or {}).get("Message"):
        raise Failure(ended["Error"]["Message"], id="LS0102", status=DAEMON_FAILED)
    return int(ended["StatusCode"])


def _joined(
    session: Session, stream: Stream, name: str, started: Callable[[], None] | None = None
) -> bool:
    """Whether the container's output has ended; if not, the user is told how to go on."""
    try:
        ended = stream.run(started)
    except KeyboardInterrupt:
        session.terminal.note(f"left running; to end it: linkspan kill {name}")
        raise
    if not ended:
        session.terminal.note(f"left running; to come back: linkspan attach {name}")
    return ended


def _attach(
    session: Session,
    identifier: str,
    *,
    tty: bool,
    streams: frozenset[str],
    sig_proxy: bool,
    keys: bytes,
) -> Stream:
    api = session.api
    path = f"/containers/{identifier}"
    query = {"stream": True, **{name: name in streams for name in ("stdin", "stdout", "stderr")}}
    sock, early, _ = api.hijack(f"{path}/attach", query)
    return Stream(
        sock,
        early,
        tty=tty,
        stdin="stdin" in streams,
        resize=lambda h, w: api.post(f"{path}/resize", {"h": h, "w": w}),
        kill=(lambda name: api.post(f"{path}/kill", {"signal": name})) if sig_proxy else None,
        detach_keys=keys,
    )


def _status_of(exc: ApiError, other: int) -> int:
    """126: it cannot be run; 127: there is no such program (Docker's exit statuses)."""
    message = exc.message.lower()
    if exc.code in ("command_not_found",) or any(text in message for text in _NOT_FOUND):
        return NO_COMMAND
    if exc.code in ("command_not_executable",) or any(text in message for text in _NOT_ALLOWED):
        return CANNOT_RUN
    return other


def _with_status(exc: LinkspanError, status: int) -> Failure:
    failure = of_error(exc)
    if failure.id == "LS0102" or isinstance(exc, ApiError):
        failure.status = status
    return failure
