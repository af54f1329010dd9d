"""What ``linkspan build`` does: name or send the context, show the steps; without click (see ``quick``)."""

from __future__ import annotations

import os

from linkspan.core.cli import words
from linkspan.core.cli.build_options import (
    PARCEL_TYPE,
    Request,
    build_arguments,
    find_dockerfile,
    folder_here,
    named_contexts,
    parcel,
    read_secrets,
)
from linkspan.core.cli.build_view import Steps
from linkspan.core.cli.common import key_values
from linkspan.core.cli.credentials import registry_config
from linkspan.core.cli.failure import USAGE, Failure
from linkspan.core.cli.progress import Display
from linkspan.core.cli.quick import Setting
from linkspan.core.client import quick_json
from linkspan.core.client.errors import ApiError
from linkspan.sdk.units import counted

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing these takes longer than a short command may
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any, Final

    from linkspan.core.cli.session import Session
    from linkspan.core.client.short import Answer

_REMOTE: Final = ("http://", "https://", "git://", "ssh://", "git@", "github.com/")
# Another daemon than ours, or one that lives in another file system.
_NOT_HERE: Final = ("folder_not_here", "no_route", "refused")


SETTINGS: Final = (
    Setting("tags", ("-t", "--tag"), "Its name", "many", "NAME[:TAG]"),
    Setting(
        "dockerfile",
        ("-f", "--file"),
        "Instead of CONTEXT/Dockerfile",
        "text",
        "FILE",
        complete="files",
    ),
    Setting("arguments", ("--build-arg",), "For ARG", "many", "NAME[=VALUE]"),
    Setting("target", ("--target",), "Stop at this stage", "text", "STAGE", ""),
    Setting("labels", ("--label",), "A label", "many", "KEY=VALUE"),
    Setting("outputs", ("-o", "--output"), "Where to", "many", "type=…,dest=…"),
    Setting("push", ("--push",), "Send the image to its registry"),
    Setting("check", ("--check",), "Only say what is likely a mistake in the Dockerfile"),
    Setting("no_cache", ("--no-cache",), "Run every step"),
    Setting("pull", ("--pull",), "Ask the registry for newer base images"),
    Setting("network", ("--network",), "For RUN", "text", "NAME", ""),
    Setting(
        "platform", ("--platform",), "Of the image", "text", "OS/ARCH", "", complete="platform"
    ),
    Setting("hosts", ("--add-host",), "A line for /etc/hosts", "many", "NAME:IP"),
    Setting("secrets", ("--secret",), "For RUN", "many", "id=ID,src=FILE"),
    Setting("contexts", ("--build-context",), "One more, for --from", "many", "NAME=FOLDER"),
    Setting("fresh", ("--no-cache-filter",), "Run this stage's steps", "many", "STAGE"),
    Setting("sources", ("--cache-from",), "Another one's cache", "many", "type=…,ref=…"),
    Setting("targets", ("--cache-to",), "Where the cache goes", "many", "type=…,ref=…"),
    Setting(
        "metadata_file",
        ("--metadata-file",),
        "Write its facts there",
        "text",
        "FILE",
        complete="files",
    ),
    Setting(
        "iidfile", ("--iidfile",), "Write the image's id there", "text", "FILE", complete="files"
    ),
)
# Not "context": the option of that name is everywhere, and means a daemon.
ARGUMENT: Final = "where"


def show(
    session: Session,
    where: str,
    *,
    check: bool,
    limits: Mapping[str, Any] | None = None,
    **options: Any,
) -> int:
    """Build an image; return the exit status.

    Args:
        where: The build context: a folder, an address, or ``-`` for stdin.
        check: Only have the Dockerfile checked.
        limits: Parameters of Docker's ``/build`` that limit RUN.
        options: What ``SETTINGS`` names.
    """
    _check_facts(options)
    request = _request(where, options, limits or {})
    try:
        if check:
            return _check(session, request)
        _build(session, request, options)
    except ApiError as error:
        raise _drawn(error, request) from error
    return 0


def _drawn(error: ApiError, request: Request) -> Failure | ApiError:
    """A fault in the Dockerfile with its line, as far as that is known here."""
    number, file = error.details.get("line"), error.details.get("file")
    if not isinstance(number, int) or file != request.dockerfile:
        return error
    try:
        data = request.outside
        if data is None and request.folder is not None:
            with open(os.path.join(request.folder, request.dockerfile), "rb") as stream:  # noqa: PTH118, PTH123
                data = stream.read()
        line = (data or b"").decode(errors="replace").splitlines()[number - 1].rstrip()
    except (OSError, IndexError):
        return error
    column = len(line) - len(line.lstrip())
    return Failure(
        f"{error.message.removeprefix(f'{file}:{number}: ')}\n --> {file}:{number}",
        id=str(error.details.get("diagnostic", "LS0102")),
        line=line,
        mark=(column, len(line) - column),
        helps=[error.help],
    )


def _request(context: str, options: dict[str, Any], limits: Mapping[str, Any]) -> Request:
    extras = {
        "secrets": read_secrets(options["secrets"]),
        "contexts": list(named_contexts(options["contexts"])),
        "no_cache_filter": list(options["fresh"]),
    }
    remote = context.startswith(_REMOTE)
    folder = None if remote or context == "-" else context
    name, outside, archive = options["dockerfile"] or "Dockerfile", None, None
    if context == "-":
        from linkspan.core.cli.build_stdin import read_context

        archive, outside = read_context(options["dockerfile"])
    if folder is not None:
        if not os.path.isdir(folder):  # noqa: PTH112
            raise Failure(
                f"the build context '{context}' is not a folder", id="LS0004", status=USAGE
            )
        name, outside = find_dockerfile(folder, options["dockerfile"])
    query = {
        "dockerfile": name,
        "remote": context if remote else None,
        "buildargs": quick_json.dumps(build_arguments(options["arguments"])),
        "labels": quick_json.dumps(key_values(options["labels"], "--label")),
        "target": options["target"] or None,
        "nocache": options["no_cache"] or None,
        "pull": options["pull"] or None,
        "networkmode": options["network"] or None,
        "platform": options["platform"] or None,
        "extrahosts": list(options["hosts"]),
        **limits,
        "rm": True,
        "version": "1",
    }
    return Request(
        query=query,
        extras={name: value for name, value in extras.items() if value},
        folder=folder,
        context=context,
        dockerfile=name,
        outside=outside,
        archive=archive,
    )


def _check(session: Session, request: Request) -> int:
    """Show what the checks have found; 1 if that is anything."""
    with _begin(session, request.changed({**request.query, "check": True})) as answer:
        found = answer.json()["warnings"]
    if session.format in ("json", "jsonl"):
        session.terminal.print(quick_json.dumps(found))
    elif found:
        for fault in found:
            session.terminal.print(fault["text"])
        count = counted(len(found), "finding")
        session.terminal.note(f"{count} in {request.dockerfile}")
    else:
        done = session.terminal.painted_sign("done", on_err=False)
        session.terminal.print(f"{done} {request.dockerfile}  nothing to complain about")
    return 1 if found else 0


def _build(session: Session, request: Request, options: dict[str, Any]) -> None:
    def run(asked: Request, tags: Sequence[str]) -> Steps:
        steps = Steps(tags[0] if tags else request.context)
        with Display(session, steps.lines, f"build of {steps.what}") as display:
            details = {"details": True} if display.mode == "live" else {}
            query = {**asked.query, **details, "t": list(tags)}
            with _begin(session, asked.changed(query)) as answer:
                _follow(answer, steps, display)
            steps.elapsed = display.elapsed
        return steps

    said: Callable[[str], None] = session.terminal.print
    tags = list(options["tags"])
    if any(options[name] for name in ("outputs", "push", "sources", "targets")):
        from linkspan.core.cli.build_delivery import build_and_deliver

        steps, stdout_is_taken = build_and_deliver(session, request, options, tags, run)
        said = session.terminal.note if stdout_is_taken else said
    else:
        steps = run(request, tags)
    _write_facts(steps.image, tags, options)
    if session.quiet:
        said(steps.image)
        return
    sign = session.terminal.painted_sign("done", on_err=False)
    named = f"{', '.join(tags)}  " if tags else ""
    said(f"{sign} {named}{words.short_digest(steps.image)}  {steps.summary}  {steps.elapsed}")
    if steps.warnings:
        hint = f"linkspan build --check {request.context}"
        session.terminal.note(f"{len(steps.warnings)} warnings: {hint}")


def _follow(answer: Answer, steps: Steps, display: Display) -> None:
    for record in display.follow(answer):
        if record.get("errorDetail") or record.get("error"):
            for line in steps.unsaid(display.mode):
                display.say(line, always=True)
            from linkspan.core.cli.image import stream_failure

            raise stream_failure(record.get("errorDetail") or record["error"])
        for line in steps.take(record):
            if display.mode == "plain":
                display.say(line)


def _check_facts(options: dict[str, Any]) -> None:
    """Fail before the daemon works for nothing."""
    for file in filter(None, (options["iidfile"], options["metadata_file"])):
        from linkspan.core.cli.output_file import output_file

        output_file(file)


def _write_facts(image: str, tags: list[str], options: dict[str, Any]) -> None:
    if not options["iidfile"] and not options["metadata_file"]:
        return
    from pathlib import Path

    if options["iidfile"]:
        Path(options["iidfile"]).write_text(image)
    if options["metadata_file"]:
        facts = {"containerimage.config.digest": image, "image.name": ",".join(tags)}
        import json

        Path(options["metadata_file"]).write_text(json.dumps(facts, indent=2) + "\n")


def _context(request: Request) -> Iterator[bytes]:
    """The context, to be sent."""
    if request.archive is not None or request.folder is None:
        return request.archive() if request.archive else iter(())
    from pathlib import Path

    from linkspan.core.cli.build_context import context_tar

    return context_tar(Path(request.folder), request.dockerfile, request.outside)


def _begin(session: Session, request: Request) -> Answer:
    """Name the folder to a daemon that sees it, too; otherwise send it."""
    logins = {"X-Registry-Config": registry_config()}
    head = {**logins, "Content-Type": PARCEL_TYPE}
    extras, query = request.extras, request.query
    if request.folder is None and request.archive is None:
        return session.api.open(
            "POST",
            "/linkspan/v1/build",
            query,
            headers=head,
            upload=[parcel(extras)],
            silence_s=None,
        )
    if request.folder is not None and request.outside is None:
        try:
            return session.api.open(
                "POST",
                "/linkspan/v1/build",
                {**query, **folder_here(request.folder)},
                headers=head if extras else logins,
                upload=[parcel(extras)] if extras else None,
                silence_s=None,
            )
        except ApiError as error:
            if error.status != 404 or error.code not in _NOT_HERE:
                raise
    tar = _context(request)
    if not extras and "check" not in query:
        head = {**logins, "Content-Type": "application/x-tar"}
        return session.api.open("POST", "/build", query, headers=head, upload=tar, silence_s=None)
    try:
        import itertools

        upload = itertools.chain([parcel(extras)], tar)
        return session.api.open(
            "POST", "/linkspan/v1/build", query, headers=head, upload=upload, silence_s=None
        )
    except ApiError as error:
        if error.status != 404 or error.code not in _NOT_HERE:
            raise
        raise Failure(
            "this daemon takes no secrets, named folders and checks for a build", id="LS0102"
        ) from error
