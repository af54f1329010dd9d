"""What every command has at hand: options, terminal, client."""

from __future__ import annotations

import os
import time

from linkspan.core.cli.failure import USAGE, Failure
from linkspan.core.cli.terminal import Terminal
from linkspan.core.client.resolve import docker_config, resolve_address, tls_of
from linkspan.core.client.short import Api

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing these takes longer than a short command may
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Final

    from linkspan.core.client.address import Address

COMPLETE_VARIABLE: Final = "_LINKSPAN_COMPLETE"
"""Set by a shell that asks what may follow."""
_FORMATS: Final = ("table", "wide", "docker", "json", "jsonl", "yaml")


class Session:
    """One call of the command line.

    Attributes:
        host: ``--host``.
        context: ``--context``.
        config: ``--config``.
        format: ``--format``; empty for the command's own, ``table`` for ``wide``.
        wide: Tables are shown whole, on a terminal too.
        quiet: ``-q``.
        color: ``auto``, ``always``, ``never``.
        progress: ``auto``, ``live``, ``plain``, ``json``, ``none``.
        verbose: Show tracebacks and details.
        timeout_s: How long the daemon may stay silent; None for the client's own.
        format_from: Where ``format`` comes from, if it was no option.
        tls: What Docker's options for it say: ``tls``, ``verify``, ``ca``, ``cert``, ``key``.
    """

    def __init__(self) -> None:
        self.host = ""
        self.context = ""
        self.config = ""
        self.wide = False
        self.format = ""
        self.format_from = ""
        self.quiet = False
        self.color = "auto"
        self.progress = "auto"
        self.verbose = False
        self.timeout_s: float | None = None
        self.tls: dict[str, str] = {}
        self._terminal: Terminal | None = None
        self._address: Address | None = None
        self._api: Api | None = None

    @property
    def format(self) -> str:
        """How the answer is to look."""
        return self._format

    @format.setter  # noqa: A003 - it is the property
    def format(self, value: str) -> None:
        self.wide = value == "wide"
        self._format = "table" if self.wide else value

    @property
    def terminal(self) -> Terminal:
        """stdout and stderr; made when the options are known."""
        if self._terminal is None:
            self._terminal = Terminal(color=self.color, progress=self.progress, quiet=self.quiet)
            self._terminal.wide = self.wide
        return self._terminal

    @property
    def address(self) -> Address:
        """Which daemon."""
        if self._address is None:
            self._address = resolve_address(self.host, self.config, context=self.context)
            if self.tls:
                self._address.tls = tls_of(os.environ, self.tls)
        return self._address

    @property
    def api(self) -> Api:
        """The daemon; started when it is needed and nobody answers."""
        if self._api is None:
            self._api = Api(self.address, start=_start_daemon)
            if self.timeout_s is not None:
                self._api.silence_s = self.timeout_s
        return self._api

    def prefer(self, key: str) -> None:
        """Without ``--format`` and ``-q``, take the format that the docker CLI's ``config.json`` has.

        Args:
            key: Of the file: ``psFormat``.
        """
        if not self.format and not self.quiet:
            self.format = self.preference(key)
            self.format_from = where(key) if self.format else ""

    def preference(self, key: str) -> str:
        """A text of the docker CLI's ``config.json``; empty if it says nothing.

        A file that cannot be read is remarked upon, and passed over, as the docker CLI does.
        """
        path = docker_config(os.environ)
        try:
            with open(path, "rb") as stream:  # noqa: PTH123 - pathlib is slow to import
                data = stream.read()
        except OSError:
            return ""
        if f'"{key}"'.encode() not in data:  # nearly always; and then it need not be parsed
            return ""
        from linkspan.core.client import quick_json

        try:
            found = quick_json.loads(data)
        except (ValueError, RecursionError):
            self.terminal.note(f"'{path}' is not JSON; its '{key}' is passed over")
            return ""
        value = found.get(key, "") if isinstance(found, dict) else ""
        if not isinstance(value, str):
            self.terminal.note(f"{where(key)} is no text; it is passed over")
            return ""
        return value

    def _compiled(self, text: str) -> Any:
        try:
            return compile_template(text)
        except Failure as failure:
            raise self._told(failure) from failure.__cause__

    def _rendered(self, template: Any, record: Any) -> str:
        try:
            return render_template(template, record)
        except Failure as failure:
            raise self._told(failure) from failure.__cause__

    def _told(self, failure: Failure) -> Failure:
        """What is wrong with a format says where it stands, if it is no option."""
        if self.format_from:
            failure.notes.append(("cause", f"{self.format_from} says '{self.format}'"))
            failure.helps.append("mend it there, or give --format")
        return failure

    def rows(
        self,
        records: Sequence[Any],
        fields: Callable[[Any], dict[str, Any]],
        columns: Callable[[Any], Sequence[str]],
        headers: Sequence[str],
        *,
        ids: str = "ID",
        drop: Sequence[str] = (),
        keep: Sequence[str] = (),
        trunc: bool = True,
        titles: Mapping[str, str] | None = None,
        docker: str = "",
    ) -> None:
        """Print a list in the format that was asked for.

        Args:
            records: What the API sent; ``json``, ``jsonl`` and ``yaml`` print it as it is.
            fields: Docker's names for templates.
            columns: The cells of the table.
            headers: Of the table.
            ids: The field that ``-q`` prints.
            drop: See ``Terminal.table``.
            keep: See ``Terminal.table``.
            trunc: See ``Terminal.table``.
            titles: Headers of fields in ``table {{…}}`` that their names do not say.
            docker: The template of Docker's own columns, for ``--format docker``; empty if Docker has no
                such list.
        """
        terminal = self.terminal
        if self.quiet and not self.format:
            for record in records:
                terminal.print(str(fields(record)[ids]))
        elif self.format == "json":
            print_json(terminal, list(records))
        elif self.format == "jsonl":
            for record in records:
                print_json_line(terminal, record)
        elif self.format == "yaml":
            print_yaml(terminal, list(records))
        elif self.format in ("", "table") or (self.format == "docker" and not docker):
            cells = [columns(record) for record in records]
            terminal.table(headers, cells, drop=drop, keep=keep, trunc=trunc)
        elif self.format == "docker":
            self._templated(records, fields, f"table {docker}", titles or {})
        else:
            self._templated(records, fields, self.format, titles or {})

    def _templated(
        self,
        records: Sequence[Any],
        fields: Callable[[Any], dict[str, Any]],
        text: str,
        titles: Mapping[str, str],
    ) -> None:
        table = text.startswith("table ")
        text = text.removeprefix("table ").strip(" ")
        template = self._compiled(text)
        from linkspan.core.cli.records import Record, header_template

        lines = [self._rendered(template, Record(fields(each), each)) for each in records]
        if not table:
            for line in lines:
                self.terminal.print(line)
            return
        headers = header_template(text, titles).split("\t")
        cells = [line.split("\t") for line in lines]
        count = len(headers)
        self.terminal.table(headers, [(row + [""] * count)[:count] for row in cells])

    def document(self, record: Any, *, default: str = "json") -> bool:
        """Print one record as json, jsonl, yaml or by a template; False if a table is asked for."""
        chosen = self.format or default
        if chosen == "table":
            return False
        if chosen == "json":
            print_json(self.terminal, record)
        elif chosen == "jsonl":
            for item in record if isinstance(record, list) else [record]:
                print_json_line(self.terminal, item)
        elif chosen == "yaml":
            print_yaml(self.terminal, record)
        else:
            template = self._compiled(chosen)
            for item in record if isinstance(record, list) else [record]:
                self.terminal.print(self._rendered(template, item))
        return True

    @property
    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()


def where(key: str) -> str:
    """A key of the docker CLI's ``config.json``, for messages."""
    return f"'{key}' in '{docker_config(os.environ)}'"


def compile_template(text: str) -> Any:
    """Compile a ``--format`` template, or fail as wrong usage."""
    from linkspan.sdk.templates import Template, TemplateError

    if "{{" not in text:
        from difflib import get_close_matches

        near = get_close_matches(text, _FORMATS, n=1)
        hint = (
            f"did you mean '{near[0]}'?"
            if near
            else "table, wide, json, jsonl, yaml or a template: '{{.ID}}'"
        )
        raise Failure(f"unknown format '{text}'", id="LS0004", status=USAGE, helps=[hint])
    try:
        return Template(text)
    except TemplateError as exc:
        raise Failure(f"template parsing error: {exc}", id="LS0004", status=USAGE) from exc


def render_template(template: Any, record: Any) -> str:
    """Fill a template, or fail as wrong usage."""
    try:
        return str(template.render(record))
    except ValueError as exc:
        raise Failure(f"template parsing error: {exc}", id="LS0004", status=USAGE) from exc


def print_json(terminal: Terminal, record: Any) -> None:
    """One document, indented."""
    import json

    terminal.print(json.dumps(record, indent=4, ensure_ascii=False))


def print_json_line(terminal: Terminal, record: Any) -> None:
    """One document on one line."""
    import json

    terminal.print(json.dumps(record, ensure_ascii=False, separators=(",", ":")))


def print_yaml(terminal: Terminal, record: Any) -> None:
    """One document, in block style; texts that YAML 1.1 would read as something else are quoted."""
    import yaml

    text = yaml.safe_dump(record, sort_keys=False, allow_unicode=True, width=1 << 20)
    terminal.print(text.removesuffix("\n"))


def _start_daemon(address: Address) -> None:
    from linkspan.core.cli.autostart import start

    start(address)
