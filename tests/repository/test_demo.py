"""``script/demo`` keeps to itself, whatever the environment of who runs it says."""

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo", ROOT / "script" / "demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "DEMO", tmp_path / "demo")
    monkeypatch.setattr(module, "BUSYBOX", tmp_path / "busybox")
    return module


def test_the_demo_and_its_shell_lead_to_no_daemon_but_its_own(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINKSPAN_HOST", "unix:///of/somebody.sock")
    monkeypatch.setenv("LINKSPAN_CONTEXT", "production")
    monkeypatch.setenv("DOCKER_HOST", "unix:///of/docker.sock")
    demo = script.Demo()
    demo.prepare()
    config = str(tmp_path / "demo" / "linkspan.toml")
    said = demo.environment
    assert "LINKSPAN_HOST" not in said
    assert "LINKSPAN_CONTEXT" not in said
    assert (said["LINKSPAN_CONFIG"], said["DOCKER_HOST"]) == (config, f"unix://{demo.socket}")
    shown = subprocess.run(
        ["sh", "-c", f". {tmp_path}/demo/env; echo $LINKSPAN_HOST$LINKSPAN_CONTEXT $DOCKER_HOST"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert shown.stdout.split() == [f"unix://{demo.socket}"]
