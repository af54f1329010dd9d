"""Diagnostics for other programs: SARIF 2.1.0, and the commands that GitHub's log turns into notes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from linkspan.sdk.diagnostic_ids import IDS
from linkspan.sdk.diagnostics import Diagnostic, Label, Span

_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"


def as_json(diagnostic: Diagnostic) -> dict[str, Any]:
    """One diagnostic as our own JSON has it: without the file's text."""
    return attrs.asdict(diagnostic, filter=lambda attribute, _: attribute.name != "source")


def from_json(document: Mapping[str, Any], texts: Mapping[str, str]) -> Diagnostic:
    """A diagnostic that a daemon sent, with the text of its file to draw it in."""

    def label(found: Mapping[str, Any]) -> Label:
        return Label(span=Span(**found["span"]), text=found["text"])

    primary = document["primary"]
    return Diagnostic(
        id=document["id"],
        headline=document["headline"],
        file=document["file"],
        primary=None if primary is None else label(primary),
        secondary=tuple(label(each) for each in document["secondary"]),
        notes=tuple(document["notes"]),
        helps=tuple(document["helps"]),
        source=texts.get(document["file"], ""),
        severity=document["severity"],
    )


def as_sarif(diagnostics: Sequence[Diagnostic], version: str) -> dict[str, Any]:
    """One SARIF log of one run."""
    ids = sorted({diagnostic.id for diagnostic in diagnostics})
    rules = [
        {
            "id": id_,
            "shortDescription": {"text": IDS.get(id_, id_)},
            "help": {"text": f"linkspan explain {id_}"},
        }
        for id_ in ids
    ]
    driver = {"name": "linkspan", "semanticVersion": version, "rules": rules}
    results = [_result(diagnostic, ids) for diagnostic in diagnostics]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _result(diagnostic: Diagnostic, ids: Sequence[str]) -> dict[str, Any]:
    words = [
        diagnostic.headline,
        *diagnostic.notes,
        *(f"help: {text}" for text in diagnostic.helps),
    ]
    result: dict[str, Any] = {
        "ruleId": diagnostic.id,
        "ruleIndex": ids.index(diagnostic.id),
        "level": diagnostic.severity,
        "message": {"text": "\n".join(words)},
        "locations": [_location(diagnostic.file, diagnostic.primary.span)]
        if diagnostic.primary
        else [{"physicalLocation": {"artifactLocation": {"uri": diagnostic.file}}}],
    }
    related = [
        {**_location(diagnostic.file, label.span), "message": {"text": label.text}}
        for label in diagnostic.secondary
    ]
    if related:
        result["relatedLocations"] = related
    return result


def _location(file: str, span: Span) -> dict[str, Any]:
    region = {
        "startLine": span.line,
        "startColumn": span.column,
        "endColumn": span.column + span.length,
    }
    return {"physicalLocation": {"artifactLocation": {"uri": file}, "region": region}}


def as_github(diagnostics: Iterable[Diagnostic]) -> Iterable[str]:
    """A workflow command for each: shown beside the line of the pull request."""
    for diagnostic in diagnostics:
        fields = {"file": diagnostic.file}
        if diagnostic.primary is not None:
            span = diagnostic.primary.span
            fields |= {
                "line": str(span.line),
                "col": str(span.column),
                "endColumn": str(span.column + span.length),
            }
        fields["title"] = diagnostic.id
        shown = ",".join(f"{name}={_escaped(value, ':,')}" for name, value in fields.items())
        words = "\n".join([diagnostic.headline, *diagnostic.helps])
        yield f"::{diagnostic.severity} {shown}::{_escaped(words)}"


def _escaped(text: str, more: str = "") -> str:
    for char in "%\r\n" + more:
        text = text.replace(char, f"%{ord(char):02X}")
    return text
