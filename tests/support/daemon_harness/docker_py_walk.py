"""What docker-py's methods give or raise: of Docker's daemon and of ours."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from daemon_harness.registry_answers import serving
from daemon_harness.transcripts import normal

API_VERSION: Final = "1.50"
_LONGEST: Final = 200
_LIMIT_S: Final = 60


def described(value: Any) -> Any:
    """Of a result: its types, what keys it has, and its text if that is short."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, bytes):
        return {"bytes": normal(value.decode(errors="replace")) if len(value) < _LONGEST else "…"}
    if isinstance(value, str):
        return normal(value) if len(value) < _LONGEST else "…"
    if isinstance(value, dict):
        return {key: type(inner).__name__ for key, inner in sorted(value.items())}
    if isinstance(value, tuple):
        return {type(value).__name__: [described(inner) for inner in value]}
    if isinstance(value, list):
        kinds = {json.dumps(described(inner), sort_keys=True) for inner in value}
        return {"list": [json.loads(kind) for kind in sorted(kinds)]}
    return type(value).__name__


def _failure(error: Exception) -> dict[str, Any]:
    found: dict[str, Any] = {"raises": type(error).__name__}
    if (status := getattr(error, "status_code", None)) is not None:
        found["status"] = status
    said = getattr(error, "explanation", None) or str(error)
    return {**found, "said": normal(str(said)).strip()}


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """A tar of files, for what takes one."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def walk(script: Path, url: str) -> dict[str, Any]:
    """Carry a script out: each line is an expression, or gives its value a name (``NAME = EXPRESSION``).

    Returns:
        Line → what came of it. A name keeps what it had if the expression raised.
    """
    import docker

    found: dict[str, Any] = {}
    with serving(private=False) as registry, serving(private=True) as private:
        client = docker.DockerClient(base_url=url, version=API_VERSION, timeout=_LIMIT_S)
        names: dict[str, Any] = {
            **{"client": client, "api": client.api, "docker": docker, "io": io, "tar_of": tar_of},
            **{"registry": registry, "private": private},
        }
        try:
            for line in script.read_text().splitlines():
                if line and not line.startswith("#"):
                    found[line] = _come_of(line, names)
        finally:
            client.close()
        text = json.dumps(found).replace(registry, "{registry}").replace(private, "{private}")
    whole: dict[str, Any] = json.loads(text)
    return whole


def _come_of(line: str, names: dict[str, Any]) -> Any:
    name, sign, rest = line.partition(" = ")
    stored = sign and name.isidentifier()
    try:
        value = eval(rest if stored else line, names)
    except Exception as error:  # noqa: BLE001 - what it raises is what is asked
        return _failure(error)
    if stored:
        names[name] = value
    return described(value)


def write(found: Mapping[str, Any], path: Path) -> None:
    """Keep what was recorded, one line a line."""
    rows = (f"{json.dumps(line)}: {json.dumps(what)}" for line, what in found.items())
    path.write_text("{\n" + ",\n".join(rows) + "\n}\n")
