"""TCP with certificates on both sides: the docker CLI works, and nobody else gets a word in."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from daemon_harness.daemon import Daemon, until
from daemon_harness.ports import free_port

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


def _openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two authorities, ``ca`` and ``other``, each with a certificate for who serves and who asks."""
    folder = tmp_path_factory.mktemp("keys")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    for authority in ("ca", "other"):
        new = ("req", "-newkey", "rsa:2048", "-nodes", "-keyout")
        _openssl(folder, *new, f"{authority}-key.pem", "-x509", "-days", "2", "-subj",
                 f"/CN={authority}", "-out", f"{authority}.pem")  # fmt: skip
        _openssl(folder, *new, f"{authority}-end-key.pem", "-subj", "/CN=end", "-out", "end.csr")
        _openssl(folder, "x509", "-req", "-in", "end.csr", "-CA", f"{authority}.pem", "-CAkey",
                 f"{authority}-key.pem", "-CAcreateserial", "-days", "2", "-extfile", "names",
                 "-out", f"{authority}-end.pem")  # fmt: skip
    return folder


def _docker(keys: Path, port: int, authority: str, *words: str) -> subprocess.CompletedProcess[str]:
    files = ("--tlscacert", keys / "ca.pem", "--tlscert", keys / f"{authority}-end.pem",
             "--tlskey", keys / f"{authority}-end-key.pem")  # fmt: skip
    return subprocess.run(
        ["docker", "-H", f"tcp://127.0.0.1:{port}", "--tlsverify", *map(str, files), *words],
        capture_output=True, text=True, check=False, timeout=60, input="spoken\n",
        env={**os.environ, "DOCKER_CONFIG": str(keys)},
    )  # fmt: skip


def test_the_docker_cli_over_tls_and_a_stranger(
    new_daemon: Callable[..., Daemon], keys: Path
) -> None:
    port = free_port()
    daemon = new_daemon()
    text = daemon.config.read_text()
    hosts = f'host = ["{daemon.url}"]\ntls-verify = true\n'
    files = "".join(
        f'tls-{name} = "{keys / file}"\n'
        for name, file in (("ca-cert", "ca.pem"), ("cert", "ca-end.pem"), ("key", "ca-end-key.pem"))
    )
    daemon.config.write_text(text.replace(f'host = ["{daemon.url}"]\n', hosts + files))
    daemon.hosts = (daemon.url, f"tcp://127.0.0.1:{port}")
    daemon.start()
    daemon.build_busybox()
    run = ("run", "-i", "--rm", "busybox", "sh", "-c", "cat; exit 3")
    done = until(
        "it answers",
        lambda: found if (found := _docker(keys, port, "ca", *run)).returncode == 3 else None,
    )
    assert done.stdout == "spoken\n"
    stranger = _docker(keys, port, "other", "ps")
    assert (stranger.returncode, stranger.stdout) == (1, "")
    assert "remote error: tls: unknown certificate authority" in stranger.stderr
    until("its log says why", lambda: "CERTIFICATE_VERIFY_FAILED" in daemon.log.read_text())
    plain = subprocess.run(
        ["docker", "-H", f"tcp://127.0.0.1:{port}", "ps"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert plain.returncode != 0
    assert "Client sent an HTTP request to an HTTPS server." in plain.stderr
    assert daemon.request("GET", "/_ping") == (200, "OK")


def test_plain_tcp_is_refused_with_what_it_takes(daemon: Daemon) -> None:
    refused = daemon.cli(
        "daemon", "run", "--host", "tcp://127.0.0.1:1", "--data-root", daemon.folder / "d2",
        "--exec-root", daemon.folder / "e2", status=None,
    )  # fmt: skip
    assert refused.status != 0
    assert "is plain TCP" in refused.said
    assert "tls-verify" in refused.said
