"""Daemons on other machines: TCP, TLS, SSH, and which address is taken."""

import os
import socket
import ssl
import subprocess
import sys
import threading  # noqa: TID251 - a server beside the client under test
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from linkspan.core.client import contexts
from linkspan.core.client.address import Address, Tls
from linkspan.core.client.contexts import Context
from linkspan.core.client.errors import Unreachable
from linkspan.core.client.remote import ssh_command
from linkspan.core.client.resolve import resolve_address
from linkspan.core.client.short import Api
from linkspan.sdk.errors import Conflict, InvalidArgument, NotFound

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Server:
    """Accepts one connection at a time, and hands it to ``serve``."""

    def __init__(self, serve: Any, context: ssl.SSLContext | None = None) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self._serve, self._context = serve, context
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
                if self._context is not None:
                    sock = self._context.wrap_socket(sock, server_side=True)
                with sock:
                    self._serve(sock)
            except ssl.SSLError:
                continue
            except OSError:
                return

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._thread.join(10)


def answers(sock: socket.socket) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        data += sock.recv(65536)
    sock.sendall(ANSWER)


def echoes(sock: socket.socket) -> None:
    """Take the connection over, send all back, and a goodbye when the client has no more."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += sock.recv(1)
    sock.sendall(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
    while data := sock.recv(65536):
        sock.sendall(data)
    sock.sendall(b"bye")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, cert.pem, key.pem for 127.0.0.1, signed by themselves."""
    folder = tmp_path_factory.mktemp("keys")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *(
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=test",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
            ),
            *("-keyout", folder / "key.pem", "-out", folder / "cert.pem"),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    (folder / "ca.pem").write_bytes((folder / "cert.pem").read_bytes())
    return folder


@pytest.fixture
def secure(keys: Path) -> Iterator[Any]:
    """Starts servers with TLS that ask for the client's certificate."""
    servers: list[Server] = []

    def start(serve: Any) -> str:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(keys / "cert.pem", keys / "key.pem")
        context.load_verify_locations(keys / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        servers.append(Server(serve, context))
        return f"tcp://127.0.0.1:{servers[-1].port}"

    yield start
    for server in servers:
        server.close()


def tls_of(keys: Path) -> Tls:
    return Tls(*(str(keys / f"{name}.pem") for name in ("ca", "cert", "key")))


def cause(address: Address) -> tuple[str, str]:
    with pytest.raises(Unreachable) as caught:
        Api(address).get("/x")
    return caught.value.cause, caught.value.reason


def test_tcp_without_encryption() -> None:
    server = Server(answers)
    try:
        assert Api(Address(f"tcp://127.0.0.1:{server.port}")).get("/x") == {}
    finally:
        server.close()


def test_tls_with_certificates_on_both_sides(secure: Any, keys: Path) -> None:
    assert Api(Address(secure(answers), tls=tls_of(keys))).get("/x") == {}


def test_megabytes_go_both_ways_at_once_and_each_side_ends_alone(secure: Any, keys: Path) -> None:
    api = Api(Address(secure(echoes), tls=tls_of(keys)))
    sock, early, _ = api.hijack("/attach")
    sent = os.urandom(3 << 20)

    def send() -> None:
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    got = bytearray(early)
    while data := sock.recv(65536):
        got += data
    sender.join(10)
    sock.close()
    assert bytes(got) == sent + b"bye"


def test_an_unknown_certificate_is_not_accepted(secure: Any, keys: Path) -> None:
    ours = tls_of(keys)
    kind, reason = cause(Address(secure(answers), tls=Tls("", ours.cert, ours.key)))
    assert (kind, "certificate is not accepted" in reason) == ("refused", True)
    assert Api(Address(secure(answers), tls=Tls("", ours.cert, ours.key, False))).get("/x") == {}


def test_a_server_without_tls_is_told_apart(keys: Path) -> None:
    server = Server(lambda sock: sock.sendall(b"hello, I speak no TLS at all\r\n"))
    try:
        kind, reason = cause(Address(f"tcp://127.0.0.1:{server.port}", tls=tls_of(keys)))
    finally:
        server.close()
    assert (kind, reason.startswith("no TLS with it")) == ("version", True)


def test_keys_that_cannot_be_read_are_named(secure: Any, keys: Path) -> None:
    keyed = tls_of(keys)
    address = Address(secure(answers), tls=Tls(keyed.ca, "/absent", keyed.key))
    kind, reason = cause(address)
    assert (kind, "certificates cannot be read" in reason) == ("no-socket", True)


@pytest.mark.parametrize(
    "url",
    ["ftp://x", "tcp://", "tcp://h:port", "tcp://h:99999", "ssh://-oProxyCommand=x", "x://y?z"],
)
def test_an_address_that_cannot_be_used_is_said_to_be_one(url: str) -> None:
    kind, _ = cause(Address(url))
    assert kind == "no-socket"


def test_nobody_listens_on_a_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert cause(Address(f"tcp://127.0.0.1:{port}"))[0] == "refused"


def test_the_ssh_command_takes_user_port_and_socket() -> None:
    assert ssh_command(urlsplit("ssh://ana@h.test:2222/run/x.sock"))[2:] == [
        *("-o", "ConnectTimeout=15", "-l", "ana", "-p", "2222", "--", "h.test"),
        *("linkspan", "--host", "unix:///run/x.sock", "system", "dial-stdio"),
    ]
    for hostile in ("ssh://-x@h", "ssh://a:b@h", "ssh://h/$(x)", "ssh://h/a b", "ssh://h/;x"):
        with pytest.raises(ValueError, match=r"SSH address|socket may have"):
            ssh_command(urlsplit(hostile))


@pytest.fixture
def fake_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ``ssh`` that runs what stands behind the host, here."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "ssh"
    program.write_text('#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift 2\nexec "$@"\n')
    program.chmod(0o755)
    command = folder / "linkspan"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m linkspan.core.cli "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return program


def test_over_ssh_the_command_line_of_the_other_machine_is_the_wire(
    fake: Any, fake_ssh: Path
) -> None:
    fake.on("POST", "/things", {"Id": "x"}, 201)
    with fake.running():
        api = Api(Address(f"ssh://ana@far.test{fake.socket_path}"))
        assert api.post("/things", None, {"data": "x" * 100_000}) == {"Id": "x"}
    assert len(fake.asked("POST", "/things").json["data"]) == 100_000


def test_an_ssh_that_fails_is_no_silence(fake_ssh: Path) -> None:
    fake_ssh.write_text("#!/bin/sh\nexit 255\n")
    with pytest.raises(Exception, match="closed the connection without an answer"):
        Api(Address("ssh://far.test")).get("/x")


def settings(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"DOCKER_CONFIG": str(tmp_path / "d"), "XDG_CONFIG_HOME": str(tmp_path / "x"), **more}


def test_the_order_in_which_an_address_is_looked_for(tmp_path: Path) -> None:
    environ = settings(tmp_path)
    for name in ("used", "ours", "docks", "named"):
        contexts.write(Context(name, f"tcp://{name}:1"), environ=environ)
    (tmp_path / "x" / "linkspan").mkdir(parents=True)
    (tmp_path / "x" / "linkspan" / "context").write_text("used\n")
    found = [resolve_address(environ=environ).url]
    for key, value in (
        ("DOCKER_CONTEXT", "docks"),
        ("DOCKER_HOST", "tcp://dockhost:1"),
        ("LINKSPAN_CONTEXT", "ours"),
        ("LINKSPAN_HOST", "tcp://ourhost:1"),
    ):
        environ[key] = value
        found.append(resolve_address(environ=environ).url)
    found.append(resolve_address(environ=environ, context="named").url)
    found.append(resolve_address("tcp://flag:1", environ=environ, context="named").url)
    hosts = [urlsplit(url).hostname for url in found]
    assert hosts == ["used", "docks", "dockhost", "ours", "ourhost", "named", "flag"]
    own = {key: value for key, value in environ.items() if not key.startswith("LINKSPAN_")}
    assert resolve_address(environ=own, own=True).url == "unix:///run/linkspan/linkspan.sock"
    default = resolve_address(environ=environ, context="default")
    assert default.url == "unix:///run/linkspan/linkspan.sock"


def test_a_named_config_goes_before_what_is_meant_for_docker(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('[daemon]\nhost = ["unix:///mine.sock"]\n')
    environ = settings(tmp_path, DOCKER_HOST="tcp://other:1")
    found = resolve_address("", str(tmp_path / "c.toml"), environ)
    assert found.url == "unix:///mine.sock"


def test_dockers_variables_for_tls(tmp_path: Path, keys: Path) -> None:
    environ = settings(
        tmp_path, DOCKER_HOST="tcp://h:2376", DOCKER_TLS_VERIFY="1", DOCKER_CERT_PATH=str(keys)
    )
    found = resolve_address(environ=environ).tls
    assert found is not None
    assert vars(found) == vars(tls_of(keys))


def test_a_context_keeps_its_own_copies_of_its_keys(tmp_path: Path, keys: Path) -> None:
    environ = settings(tmp_path)
    files = {name: keys / f"{name}.pem" for name in ("ca", "cert", "key")}
    contexts.write(Context("prod", "tcp://h:1", "for people", False, files), environ=environ)
    found = contexts.read("prod", environ)
    assert (found.host, found.description, found.verify) == ("tcp://h:1", "for people", False)
    assert found.files["key"].read_bytes() == (keys / "key.pem").read_bytes()
    assert found.files["key"].stat().st_mode & 0o777 == 0o600
    with pytest.raises(Conflict):
        contexts.write(Context("prod", "tcp://other:1"), environ=environ)
    contexts.remove("prod", environ)
    assert not found.files["key"].exists()
    with pytest.raises(NotFound):
        contexts.read("prod", environ)


@pytest.mark.parametrize("name", ["default", "", "x", "../up", "a/b", "a b", "-x"])
def test_names_that_contexts_cannot_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidArgument):
        contexts.write(Context(name, "tcp://h:1"), environ=settings(tmp_path))


def test_contexts_that_cannot_be_read_are_passed_over(tmp_path: Path) -> None:
    environ = settings(tmp_path)
    contexts.write(Context("good", "tcp://h:1"), environ=environ)
    for number, text in enumerate(("", "{", "[]", '{"Name": 3, "Endpoints": []}')):
        folder = tmp_path / "d" / "contexts" / "meta" / str(number)
        folder.mkdir()
        (folder / "meta.json").write_text(text)
    assert [context.name for context in contexts.read_all(environ)] == ["good"]
