"""``linkspan build``: sends the context, shows the steps (API: POST /build)."""

import itertools
import json
from pathlib import Path
from typing import Any, Final

import click

from linkspan.core.cli import words
from linkspan.core.cli.build_context import context_tar, find_dockerfile
from linkspan.core.cli.build_options import (
    PARCEL_TYPE,
    build_arguments,
    folder_here,
    named_contexts,
    parcel,
    read_secrets,
)
from linkspan.core.cli.build_view import Steps
from linkspan.core.cli.command import Size, command
from linkspan.core.cli.common import key_values
from linkspan.core.cli.credentials import registry_config
from linkspan.core.cli.failure import USAGE, Failure
from linkspan.core.cli.image import stream_failure
from linkspan.core.cli.progress import Display
from linkspan.core.cli.session import Session
from linkspan.core.client.errors import ApiError
from linkspan.core.client.short import Answer

# Another daemon than ours, or one that lives in another file system.
_NOT_HERE: Final = ("folder_not_here", "no_route", "refused")


@command(
    "build",
    "Build an image from a Dockerfile and a folder.",
    examples=[
        "linkspan build -t web .",
        "linkspan build -t web -f deploy/Dockerfile --build-arg VERSION=2 --target app .",
    ],
    more=["linkspan push", "linkspan images"],
)
@click.argument("context")
@click.option("-t", "--tag", "tags", multiple=True, metavar="NAME[:TAG]", help="Its name")
@click.option("-f", "--file", "dockerfile", metavar="FILE", help="Instead of CONTEXT/Dockerfile")
@click.option("--build-arg", "arguments", multiple=True, metavar="NAME[=VALUE]", help="For ARG")
@click.option("--target", default="", metavar="STAGE", help="Stop at this stage")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label")
@click.option("--no-cache", is_flag=True, help="Run every step")
@click.option("--pull", is_flag=True, help="Ask the registry for newer base images")
@click.option("--network", default="", metavar="NAME", help="For RUN")
@click.option("--platform", default="", metavar="OS/ARCH", help="Of the image")
@click.option("--add-host", "hosts", multiple=True, metavar="NAME:IP", help="A line for /etc/hosts")
@click.option("-m", "--memory", type=Size(), metavar="BYTES", help="Memory limit for RUN")
@click.option("--shm-size", type=Size(), metavar="BYTES", help="Size of /dev/shm for RUN")
@click.option("--secret", "secrets", multiple=True, metavar="id=ID,src=FILE", help="For RUN")
@click.option(
    "--build-context", "contexts", multiple=True, metavar="NAME=FOLDER", help="One more, for --from"
)
@click.option(
    "--no-cache-filter", "fresh", multiple=True, metavar="STAGE", help="Run this stage's steps"
)
@click.option("--metadata-file", metavar="FILE", help="Write facts about the image there")
@click.option("--iidfile", metavar="FILE", help="Write the image's id there")
def build(
    session: Session,
    context: str,
    tags: tuple[str, ...],
    dockerfile: str | None,
    arguments: tuple[str, ...],
    labels: tuple[str, ...],
    hosts: tuple[str, ...],
    iidfile: str | None,
    **options: Any,
) -> None:
    """Build an image."""
    root = Path(context)
    extras = {
        "secrets": read_secrets(options["secrets"]),
        "contexts": list(named_contexts(options["contexts"])),
        "no_cache_filter": list(options["fresh"]),
    }
    extras = {name: value for name, value in extras.items() if value}
    if not root.is_dir():
        raise Failure(f"the build context '{context}' is not a folder", id="LS0004", status=USAGE)
    name, outside = find_dockerfile(root, dockerfile)
    query = {
        "t": list(tags),
        "dockerfile": name,
        "buildargs": json.dumps(build_arguments(arguments)),
        "labels": json.dumps(key_values(labels, "--label")),
        "target": options["target"] or None,
        "nocache": options["no_cache"] or None,
        "pull": options["pull"] or None,
        "networkmode": options["network"] or None,
        "platform": options["platform"] or None,
        "extrahosts": list(hosts),
        "memory": options["memory"],
        "shmsize": options["shm_size"],
        "rm": True,
        "version": "1",
    }
    steps = Steps(tags[0] if tags else str(root))
    with Display(session, steps.lines, f"build of {steps.what}") as display:
        with _begin(session, query, extras, (root, name, outside)) as answer:
            for record in answer.json_lines():
                display.event(record)
                if record.get("errorDetail") or record.get("error"):
                    for line in steps.unsaid(display.mode):
                        display.say(line)
                    raise stream_failure(record.get("errorDetail") or record["error"])
                for line in steps.take(record):
                    if display.mode == "plain":
                        display.say(line)
                display.update()
        terminal = session.terminal
        named = f"{', '.join(tags)}  " if tags else ""
        summary = (
            f"{terminal.painted_sign('done', on_err=False)} {named}"
            f"{words.short_digest(steps.image)}  {steps.summary}  {display.elapsed}"
        )
    if iidfile:
        Path(iidfile).write_text(steps.image)
    if options["metadata_file"]:
        facts = {"containerimage.config.digest": steps.image, "image.name": ",".join(tags)}
        Path(options["metadata_file"]).write_text(json.dumps(facts, indent=2) + "\n")
    terminal.print(steps.image if session.quiet else summary)


def _begin(
    session: Session,
    query: dict[str, Any],
    extras: dict[str, Any],
    place: tuple[Path, str, bytes | None],
) -> Answer:
    """Name the folder to a daemon that sees it, too; otherwise send it.

    Args:
        extras: What Docker's ``/build`` cannot carry.
        place: The folder, the Dockerfile's name in it, and its text if it lies outside.
    """
    root, name, outside = place
    logins = {"X-Registry-Config": registry_config()}
    head = {**logins, "Content-Type": PARCEL_TYPE}
    if outside is None:
        try:
            return session.api.open(
                "POST",
                "/linkspan/v1/build",
                {**query, **folder_here(root)},
                headers=head if extras else logins,
                upload=[parcel(extras)] if extras else None,
                silence_s=None,
            )
        except ApiError as error:
            if error.status != 404 or error.code not in _NOT_HERE:
                raise
    tar = context_tar(root, name, outside)
    if not extras:
        head = {**logins, "Content-Type": "application/x-tar"}
        return session.api.open("POST", "/build", query, headers=head, upload=tar, silence_s=None)
    try:
        upload = itertools.chain([parcel(extras)], tar)
        return session.api.open(
            "POST", "/linkspan/v1/build", query, headers=head, upload=upload, silence_s=None
        )
    except ApiError as error:
        if error.status != 404 or error.code not in _NOT_HERE:
            raise
        raise Failure(
            "this daemon takes no secrets and no named folders for a build", id="LS0004"
        ) from error
