"""``scan-file``: files of the workspace, looked at for what must not be in them, or must."""

import fnmatch
import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from linkspan.plugins.standard_steps.base import StandardStep
from linkspan.plugins.standard_steps.places import inside
from linkspan.sdk.drivers.step import StepContext
from linkspan.sdk.errors import InvalidArgument, LinkspanError, NotFound
from linkspan.sdk.model.step import StepIntent, StepOutcome
from linkspan.sdk.values import frozen

_LINE_LIMIT: Final = 10_000
"""Characters of a line that are looked at: a minified file is one line of megabytes."""
_FINDINGS_LIMIT: Final = 100

# Shapes that are secrets by their look alone; each has a fixed beginning, so that few other texts match.
SECRETS: Final[Mapping[str, str]] = {
    "a private key": r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----",
    "an AWS access key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a GitHub token": r"\b(?:ghp|gho|ghu|ghs|ghr)_[A-Za-z0-9]{36}\b|\bgithub_pat_[A-Za-z0-9_]{60,90}",
    "a GitLab token": r"\bglpat-[A-Za-z0-9_-]{20}",
    "a Slack token": r"\bxox[abprs]-[A-Za-z0-9-]{10,80}",
    "a password in an address": r"\b[a-z][a-z0-9+.-]{1,20}://[^/\s:@'\"{}$]{1,80}:[^/\s:@'\"{}$]{3,80}@",
}


class ScanFailed(LinkspanError):
    """A file is not as it must be; ``details`` has ``findings``."""

    default_code = "scan_failed"


@frozen
class Finding:
    """What is wrong, and where; ``line`` from 1, 0 for a file as a whole."""

    path: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}" if self.line else f"{self.path}: {self.what}"


class ScanFileStep(StandardStep):
    """Changes nothing, so there is nothing to plan or undo."""

    async def apply(self, intent: StepIntent, context: StepContext) -> Mapping[str, Any]:
        """Look at every file.

        Raises:
            NotFound: No file fits.
            InvalidArgument: A pattern cannot be read.
            ScanFailed: Something was found.
        If cancelled: nothing is left.
        """
        rules = _Rules.of(intent.settings)
        scanned, findings = await trio.to_thread.run_sync(
            _scan, intent.workspace, intent.settings, rules, abandon_on_cancel=True
        )
        for finding in findings:
            context.log(str(finding))
        if findings:
            more = f" and {len(findings) - 1} more" if len(findings) > 1 else ""
            raise ScanFailed(
                f"{findings[0]}{more}",
                details={"findings": [attrs.asdict(finding) for finding in findings]},
            )
        context.log(f"{scanned} files are as they must be")
        return {"files": scanned}

    async def observe(self, intent: StepIntent) -> StepOutcome:
        """A look that was cut off begins anew; unchanged files look the same."""
        if intent.outputs:
            return StepOutcome(applied=True, outputs=intent.outputs, detail="looked at")
        return StepOutcome(applied=False, detail="it changes nothing; looked at again")


@frozen
class _Rules:
    forbidden: tuple[tuple[str, re.Pattern[str]], ...]
    required: tuple[re.Pattern[str], ...]
    max_size_bytes: int
    sha256: str

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "_Rules":
        forbidden = [
            (f"has /{text}/, which is forbidden", _compiled(text))
            for text in settings.get("forbid", ())
        ]
        if settings.get("secrets", False):
            forbidden += [(f"has {what}", re.compile(text)) for what, text in SECRETS.items()]
        digest: str = settings.get("sha256", "").removeprefix("sha256:").lower()
        if digest and re.fullmatch(r"[0-9a-f]{64}", digest) is None:
            raise InvalidArgument(f"'{settings['sha256']}' is not a SHA-256 of 64 hex digits")
        rules = cls(
            forbidden=tuple(forbidden),
            required=tuple(_compiled(text) for text in settings.get("require", ())),
            max_size_bytes=settings.get("max-size", 0),
            sha256=digest,
        )
        if not (rules.forbidden or rules.required or rules.max_size_bytes or rules.sha256):
            raise InvalidArgument(
                "scan-file has nothing to look for", help="secrets: true, or forbid: ['TODO']"
            )
        return rules


def _compiled(text: str) -> re.Pattern[str]:
    if len(text) > 1000:
        raise InvalidArgument("a pattern is longer than 1000 characters")
    try:
        return re.compile(text)
    except re.error as error:
        raise InvalidArgument(f"'{text}' is not a regular expression: {error}") from error


def _scan(workspace: Path, settings: Mapping[str, Any], rules: _Rules) -> tuple[int, list[Finding]]:
    findings: list[Finding] = []
    count = 0
    for path, name in _files(workspace, settings):
        count += 1
        findings += _look(path, name, rules)
        if len(findings) >= _FINDINGS_LIMIT:
            break
    if count == 0:
        patterns = ", ".join(settings["paths"])
        raise NotFound(f"no file of the workspace fits {patterns}", code="no_file")
    return count, findings[:_FINDINGS_LIMIT]


def _files(workspace: Path, settings: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    root = workspace.resolve()
    excluded: list[str] = settings.get("exclude", [])
    seen: set[Path] = set()
    for pattern in settings["paths"]:
        inside(root, pattern.split("*")[0] or ".", "the path")
        if pattern.startswith("/"):
            raise InvalidArgument(f"'{pattern}' is not relative to the workspace")
        for path in sorted(root.glob(pattern)):
            name = path.relative_to(root).as_posix()
            # A link may lead out of the workspace: it is no file of it.
            if path in seen or path.is_symlink() or not path.is_file():
                continue
            if any(fnmatch.fnmatch(name, text) for text in excluded):
                continue
            seen.add(path)
            yield path, name


def _look(path: Path, name: str, rules: _Rules) -> Iterator[Finding]:
    size = path.stat().st_size
    if rules.max_size_bytes and size > rules.max_size_bytes:
        yield Finding(name, 0, f"is {size} bytes long, more than {rules.max_size_bytes}")
    if rules.sha256:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != rules.sha256:
            yield Finding(name, 0, f"has the SHA-256 {found}, not {rules.sha256}")
    missing = set(rules.required)
    if rules.forbidden or missing:
        with path.open(encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                part = line[:_LINE_LIMIT]
                for what, pattern in rules.forbidden:
                    if pattern.search(part):
                        yield Finding(name, number, what)
                missing -= {pattern for pattern in missing if pattern.search(part)}
    for pattern in rules.required:
        if pattern in missing:
            yield Finding(name, 0, f"lacks /{pattern.pattern}/")
