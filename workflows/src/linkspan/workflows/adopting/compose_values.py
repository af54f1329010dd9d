"""Texts of a compose file: variables of the environment become inputs, entries of lists what `deploy` takes."""

import re
import shlex
from typing import Any, Final

from linkspan.workflows.adopting.draft import Draft, fields, text
from linkspan.workflows.concealing import called_secret
from linkspan.workflows.parse import Node, Scalar, Sequence

_VARIABLE: Final = re.compile(
    r"\$(?:(?P<dollar>\$)|(?P<plain>[A-Za-z_]\w*)"
    r"|\{(?P<name>[A-Za-z_]\w*)(?:(?P<how>:?[-?+])(?P<word>[^}]*))?\})"
)
_PORTS: Final = re.compile(
    r"(?:(?P<address>[0-9.]+|\[[0-9a-fA-F:]+\]):)?(?P<first>\d+)(?:-(?P<last>\d+))?"
    r":(?P<target>\d+)(?:-\d+)?(?P<kind>/(?:tcp|udp))?"
)
_MAX_RANGE: Final = 50


def value(draft: Draft, node: Node, written: str) -> str:
    """A text with an input in place of each variable of the environment."""

    def replaced(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        name = match["plain"] or match["name"]
        word = match["word"] or ""
        if match["how"] in (":+", "+"):
            draft.lose(node, match[0], "only a default has a counterpart; it is empty now")
            return ""
        default = "" if match["how"] in (":?", "?") else word
        if called_secret(name):
            why = "inputs are recorded; declare a secret, and read it in a step it is granted to"
            draft.lose(node, match[0], why)
            return default
        spec: dict[str, Any] = {"type": "string"}
        spec |= {"required": True} if match["how"] in (":?", "?") else {"default": default}
        draft.top.setdefault("inputs", {}).setdefault(name, spec)
        draft.notes.append(f"${name} is an input now: --input {name}=VALUE")
        return f"${{{{ inputs.{name} }}}}"

    return _VARIABLE.sub(replaced, written.replace("${{", "$ {{"))


def words(draft: Draft, node: Node) -> list[str]:
    """A command; Compose splits one that is a text, and gives it to no shell."""
    if isinstance(node, Sequence):
        return [value(draft, item, text(item)) for item in node.items]
    try:
        parts = shlex.split(text(node))
    except ValueError:
        parts = text(node).split()
    return [value(draft, node, part) for part in parts]


def volume(draft: Draft, node: Node) -> list[str]:
    """An entry of ``volumes``; none if it has no counterpart."""
    if isinstance(node, Scalar):
        return [value(draft, node, node.text)]
    long = {name: text(field.value) for name, field in fields(node).items()}
    if not long.get("source") or not long.get("target"):
        draft.lose(node, f"volumes: {long.get('type', '')}", "it names no source and target")
        return []
    mode = ":ro" if long.get("read_only") == "true" else ""
    return [value(draft, node, f"{long['source']}:{long['target']}{mode}")]


def ports(draft: Draft, node: Node) -> list[str]:
    """An entry of ``ports``, each port of a range for itself; none if it has no counterpart."""
    if isinstance(node, Scalar):
        written = node.text
    else:
        long = {name: text(field.value) for name, field in fields(node).items()}
        if not long.get("published") or not long.get("target"):
            draft.lose(node, "ports", "the entry names no published port and target")
            return []
        kind = "/udp" if long.get("protocol") == "udp" else ""
        address = f"{long['host_ip']}:" if long.get("host_ip") else ""
        written = f"{address}{long['published']}:{long['target']}{kind}"
    found = _PORTS.fullmatch(written)
    if found is None:
        if ":" not in written:
            draft.lose(node, written, "choose the port of the machine: PORT:PORT")
            return []
        return [value(draft, node, written)]
    if found["address"]:
        draft.lose(node, f"{found['address']}:", "ports of services are open on every address")
    first, target = int(found["first"]), int(found["target"])
    count = int(found["last"] or first) - first + 1
    if not 0 < count <= _MAX_RANGE:
        draft.lose(node, written, f"write out which ports; at most {_MAX_RANGE} are converted")
        return []
    kind = found["kind"] or ""
    return [f"{first + i}:{target + i}{kind}" for i in range(count)]
