"""Writes docs/reference/commands.md from the commands themselves.

``python -m linkspan.core.cli.reference > docs/reference/commands.md``; a test compares the two.
"""

import sys

import click

from linkspan.core.cli.command import Command, global_options, load
from linkspan.core.cli.table import ROWS

_HEAD = """\
# Commands

The words, options and exit codes are Docker's where Docker has them. This page is made from the
commands themselves (`python -m linkspan.core.cli.reference`); `linkspan COMMAND --help` shows the same.

Plugins add commands of their own (`linkspan workflow …`); `linkspan --help` lists them.

## Everywhere

"""

_STATUS = """
In front of a command stand, as with Docker, `-c` for `--context`, `-D` for `--verbose`, `-v` for `--version`, and
`--tls`, `--tlsverify`, `--tlscacert`, `--tlscert` and `--tlskey`. A flag may be given its value (`--rm=false`),
Docker's other words (`list`, `remove`, `container ps`) are understood, and `linkspan help COMMAND` shows its help.

## Exit status

| status | meaning |
| --- | --- |
| 0 | done |
| 1 | failed |
| 2 | wrong usage, or findings in a file |
| 3 | refused (policy, a predefined object) |
| 4 | not allowed to open the daemon's socket |
| 69 | no daemon answers |
| 124 | timed out |
| 130 | interrupted |
| 141 | the reader of our output has gone; silent |
| 125, 126, 127 | the daemon failed; the program cannot be run; there is no such program |

`run`, `exec`, `attach` and `start` end with the program's own status, or one of the last three; 125 is for
wrong usage, too.

## Output

stdout carries the answer: rows, ids, JSON, a container's own stdout. stderr carries progress, remarks
and errors. On a terminal columns are shortened or left out to fit; a pipe gets everything, without
colours, escape sequences or carriage returns. Colours follow `--color`, `NO_COLOR`, `FORCE_COLOR`,
`TERM=dumb`; with the last one live tables are printed once.

`--format` takes `table` (the default), `wide` (the same, whole on a terminal), `yaml`,
`docker` (Docker's own columns), `json` (one document; lists are an
array), `jsonl` (a document a line), a Go template (`'{{.Names}}'`), or a table of one
(`'table {{.Names}}\\t{{.Status}}'`). Field names and headers are Docker's. A template has all that Go's
`text/template` has: fields and variables (`.A.b`, `$x := …`), pipes, `if`/`else if`/`else`, `with`, `range` with
`break` and `continue`, `define`, `template` and `block`, remarks and trimming (`{{-`, `-}}`), and the functions
`json`, `join`, `split`, `upper`, `lower`, `title`, `pad`, `truncate`, `len`, `index`, `slice`, `call`, `print`,
`printf`, `println`, `html`, `js`, `urlquery`, `eq`, `ne`, `lt`, `le`, `gt`, `ge`, `and`, `or`, `not`. What is
wrong with it is told in Go's words, with its line and column. Lists, maps and texts that `inspect` has no value
for are empty (`[]`, `map[]`) in a template, what may be missing is `<nil>`, and to `json` both are null.

Without `--format` and `-q`, a list has the format that the docker CLI's `config.json` (in `~/.docker`, or the
folder `DOCKER_CONFIG`) gives it: `psFormat` (not with `--watch`), `imagesFormat`, `networksFormat`,
`volumesFormat`, `statsFormat`, `servicesFormat`, `tasksFormat`, `nodesFormat`, `secretFormat`, `configFormat`, and
`serviceInspectFormat` for `service inspect` (`pretty` and `raw`, too). `detachKeys` are those of `run`, `start`,
`attach` and `exec` without `--detach-keys`. A format or keys that are wrong fail with the file's path; a file that
is not JSON, or a value that is no text, is remarked upon and passed over.

## Which daemon

The first that is given: `--host`; `--context`; `LINKSPAN_HOST`; `LINKSPAN_CONTEXT`; and, unless a config file is
named, `DOCKER_HOST`, `DOCKER_CONTEXT` and the context of `linkspan context use`; the config's `[daemon] host`;
the default `unix:///run/linkspan/linkspan.sock`. Only a daemon that was not named by address or context is started
when none answers and `[daemon] autostart` is on.

An address is `unix:///path`, `tcp://host:port` (with TLS by a context's keys, or by `DOCKER_TLS_VERIFY` and
`DOCKER_CERT_PATH`), or `ssh://[user@]host[:port][/path/of/the.sock]`, which needs `linkspan` at the other end.
Contexts are the docker CLI's (`~/.docker/contexts`): either program's are known to the other; which one is in use
is not shared.
"""


def render() -> str:
    """The whole page."""
    out = [_HEAD, _options([*global_options()], hidden=True), _STATUS]
    seen: dict[str, str] = {}
    for row in ROWS:
        alias = seen.get(row.run)
        if alias is not None:
            continue
        seen[row.run] = row.words
        others = [r.words for r in ROWS if r.run == row.run and r.words != row.words]
        out.append(_command(row.words, load(row.run), others))
    return "\n".join(out)


def _command(words: str, command: click.Command, others: list[str]) -> str:
    assert isinstance(command, Command)
    context = click.Context(command, info_name=f"linkspan {words}")
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [f"## linkspan {words}", "", (command.help or "").strip(), ""]
    if others:
        names = ", ".join(f"`linkspan {other}`" for other in others)
        lines += [f"Also: {names}", ""]
    lines += ["```", f"linkspan {words} {usage}", "", *command.examples, "```", ""]
    own = [p for p in command.params if isinstance(p, click.Option)]
    table = _options(own, hidden=False)
    return "\n".join([*lines, table] if table else lines)


def _options(options: list[click.Option], *, hidden: bool) -> str:
    rows = []
    for option in options:
        if option.hidden and not hidden:
            continue
        names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
        # As code, or brackets would be read as links.
        kind = f"`{option.metavar}`" if option.metavar else ""
        if isinstance(option.type, click.Choice):
            kind = ", ".join(f"`{choice}`" for choice in option.type.choices)
        rows.append(f"| {names} | {kind.replace('|', ' or ')} | {option.help or ''} |")
    if not rows:
        return ""
    return "\n".join(["| option | value | |", "| --- | --- | --- |", *rows, ""])


if __name__ == "__main__":
    sys.stdout.write(render())
