"""``linkspan secret`` and ``linkspan config``: small files that the cluster hands to services."""

import base64
import sys
from pathlib import Path
from typing import Any, Final

import click

from linkspan.core.cli import completing, words
from linkspan.core.cli.command import Command, command
from linkspan.core.cli.common import complete, each, filters, key_values
from linkspan.core.cli.failure import USAGE, Failure
from linkspan.core.cli.list_options import filter_option
from linkspan.core.cli.session import Session
from linkspan.core.client.short import segment

_LIMIT: Final = {"secret": 500 * 1024, "config": 1000 * 1024}
"""Bytes, as in Docker."""


def _names(record: Any) -> list[str]:
    return [(record.get("Spec") or {}).get("Name", "")]


_COMPLETE: Final = {"secret": complete("/secrets", _names), "config": complete("/configs", _names)}


_DOCKER: Final = {
    "secret": "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.CreatedAt}}\t{{.UpdatedAt}}",
    "config": "{{.ID}}\t{{.Name}}\t{{.CreatedAt}}\t{{.UpdatedAt}}",
}


def _fields(record: Any, now: float) -> dict[str, Any]:
    spec = record.get("Spec") or {}
    return {
        "ID": record.get("ID", ""),
        "Name": spec.get("Name", ""),
        "Driver": (spec.get("Driver") or {}).get("Name", ""),
        "CreatedAt": words.ago(record.get("CreatedAt", ""), now),
        "UpdatedAt": words.ago(record.get("UpdatedAt", ""), now),
        "Labels": words.labels(spec.get("Labels")),
    }


def _ls(noun: str) -> Command:
    @command("ls", f"List {noun}s; what is in them is not shown.", examples=[f"linkspan {noun} ls"])
    @filter_option(noun)
    def ls(session: Session, filter_: tuple[str, ...]) -> None:
        """List them."""
        session.prefer(f"{noun}Format")
        records = session.api.get(f"/{noun}s", {"filters": filters(filter_)})
        records.sort(key=lambda record: words.natural(_names(record)[0]))
        now = session.now

        def cells(record: Any) -> list[str]:
            shown = _fields(record, now)
            ages = [words.age_of(record.get(k, ""), now) for k in ("CreatedAt", "UpdatedAt")]
            return [shown["Name"], shown["ID"], *ages, shown["Labels"]]

        session.rows(
            records,
            lambda record: _fields(record, now),
            cells,
            ["NAME", "ID", "AGE", "UPDATED", "LABELS"],
            drop=["LABELS", "UPDATED", "ID"],
            keep=["NAME"],
            titles={"CreatedAt": "CREATED"},
            docker=_DOCKER[noun],
        )

    return ls


def _read(file: str, noun: str) -> bytes:
    if file == "-":
        if sys.stdin.isatty():
            raise Failure(
                "stdin is a terminal; name a file, or use a pipe", id="LS0004", status=USAGE
            )
        data = sys.stdin.buffer.read(_LIMIT[noun] + 1)
    else:
        try:
            with Path(file).open("rb") as stream:
                data = stream.read(_LIMIT[noun] + 1)
        except OSError as exc:
            raise Failure(
                f"cannot read '{file}': {exc.strerror}", id="LS0004", status=USAGE
            ) from exc
    if len(data) > _LIMIT[noun]:
        raise Failure(f"a {noun} has at most {_LIMIT[noun] // 1024} kB", id="LS0004", status=USAGE)
    return data


def _create(noun: str, example: str) -> Command:
    @command(
        "create",
        f"Create a {noun} from a file, or from stdin (-), and print its id.",
        examples=[
            f"linkspan {noun} create {example}",
            f"linkspan {noun} create --label app=shop {example.split()[0]} - < {example.split()[1]}",
        ],
        more=[f"linkspan {noun} ls", "linkspan service create"],
    )
    @click.argument("name")
    @click.argument("file", default="", metavar="FILE|-", shell_complete=completing.files)
    @click.option("-l", "--label", multiple=True, metavar="KEY=VALUE", help="A label")
    @click.option("-d", "--driver", default="", metavar="NAME", help="Who keeps the value")
    @click.option("--template-driver", default="", metavar="NAME", help="Who fills in the value")
    def create(
        session: Session,
        name: str,
        file: str,
        label: tuple[str, ...],
        driver: str,
        template_driver: str,
    ) -> None:
        """Create one."""
        body: dict[str, Any] = {"Name": name, "Labels": key_values(label, "--label")}
        if driver:
            body["Driver"] = {"Name": driver}
        if not driver or file:
            body["Data"] = base64.b64encode(_read(file or "-", noun)).decode()
        if template_driver:
            body["Templating"] = {"Name": template_driver}
        session.terminal.print(str(session.api.post(f"/{noun}s/create", None, body)["ID"]))

    return create


def _rm(noun: str, name: str) -> Command:
    @command("rm", f"Remove {noun}s that no service uses.", examples=[f"linkspan {noun} rm {name}"])
    @click.argument("names", nargs=-1, required=True, shell_complete=_COMPLETE[noun])
    def rm(session: Session, names: tuple[str, ...]) -> int:
        """Remove them."""
        return each(session, names, lambda n: session.api.delete(f"/{noun}s/{segment(n)}"))

    return rm


secret_ls, config_ls = _ls("secret"), _ls("config")
secret_create = _create("secret", "db-password password.txt")
config_create = _create("config", "nginx.conf ./nginx.conf")
secret_rm, config_rm = _rm("secret", "db-password"), _rm("config", "nginx.conf")
