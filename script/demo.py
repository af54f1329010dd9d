"""The first voyage, as a newcomer sees it: every step is a command that can be typed again.

Run by ``script/demo``, which does the set-up. Ends with status 0 only if all went as stated.
"""

import fcntl
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / ".demo"
PIPELINE = "workflows/examples/voyage.yaml"
BUSYBOX = ROOT / "workflows/examples/voyage/busybox"
LINKSPAN = ROOT / ".venv/bin/linkspan"
TOTAL = 6
# The kernel's limit for a socket's path is 107 bytes, and the longest of ours is 60 below the folder.
LONGEST_FOLDER = 45
# They come before the config that names the demo's daemon.
ELSEWHERE = ("LINKSPAN_HOST", "LINKSPAN_CONTEXT")


class Stopped(Exception):
    """A step that did not go as stated."""


class Demo:
    """Where the demo lives and how it talks."""

    def __init__(self) -> None:
        self.run_dir = self._run_dir()
        self.socket = self.run_dir / "linkspan.sock"
        self.settings = DEMO / "settings.json"
        known = json.loads(self.settings.read_text()) if self.settings.exists() else {}
        self.registry = known.get("registry") or f"127.0.0.1:{free_port(5000)}"
        self.port = known.get("port") or free_port(8080)

    @staticmethod
    def _run_dir() -> Path:
        inside = DEMO / "run"
        if len(str(inside)) <= LONGEST_FOLDER:
            return inside
        return Path(f"/run/linkspan-demo-{ROOT.stat().st_ino:x}")

    @property
    def environment(self) -> dict[str, str]:
        """That of all commands: what leads to other daemons is taken out, as ``source .demo/env`` does."""
        return {
            **{key: value for key, value in os.environ.items() if key not in ELSEWHERE},
            **self.variables,
            "PATH": f"{LINKSPAN.parent}:{os.environ.get('PATH', '/usr/sbin:/usr/bin:/sbin:/bin')}",
        }

    @property
    def variables(self) -> dict[str, str]:
        """What leads to the demo's daemon."""
        return {
            "LINKSPAN_CONFIG": str(DEMO / "linkspan.toml"),
            "DOCKER_HOST": f"unix://{self.socket}",
        }

    def prepare(self) -> None:
        """Config, environment file and the one binary that the image is made of."""
        DEMO.mkdir(exist_ok=True)
        self.settings.write_text(json.dumps({"registry": self.registry, "port": self.port}))
        (DEMO / "linkspan.toml").write_text(
            f'[daemon]\nhost = ["unix://{self.socket}"]\ndata-root = "{DEMO}/data"\n'
            f'exec-root = "{self.run_dir}"\n\n[registry-server]\nlisten = "{self.registry}"\n'
        )
        lines = [
            f"unset {' '.join(ELSEWHERE)}",
            *(f"export {key}='{value}'" for key, value in self.variables.items()),
            f'export PATH="{LINKSPAN.parent}:$PATH"',
        ]
        (DEMO / "env").write_text("\n".join(lines) + "\n")
        shutil.copyfile("/bin/busybox", BUSYBOX)
        BUSYBOX.chmod(0o755)

    # -- commands -----------------------------------------------------------------------------

    def start(self, *words: str, quiet: bool = False) -> subprocess.Popen[str]:
        """Start a linkspan command and print it."""
        if not quiet:
            print(f"\n$ linkspan {' '.join(words)}", flush=True)
        return subprocess.Popen([str(LINKSPAN), *words], env=self.environment, cwd=ROOT, text=True)

    def do(self, *words: str, status: int = 0) -> None:
        """Run a linkspan command, printed so that it can be retyped; its status must be as stated."""
        found = self.start(*words).wait()
        if found != status:
            raise Stopped(f"`linkspan {' '.join(words)}` ended with {found}, not {status}")

    def ask(self, *words: str) -> Any:
        """Run a command quietly and read its JSON."""
        done = subprocess.run(
            [str(LINKSPAN), *words, "--format", "json"],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Stopped(f"`linkspan {' '.join(words)}` failed:\n{done.stderr}")
        return json.loads(done.stdout)

    def voyage(self, *inputs: str) -> list[str]:
        """The words of the main job."""
        words = ["workflow", "run", PIPELINE]
        given = [f"registry={self.registry}", f"port={self.port}", *inputs]
        defaults = {"registry=127.0.0.1:5000", "port=8080", "version=1"}
        for pair in given:
            if pair not in defaults:
                words += ["--input", pair]
        return words

    def answer(self) -> str:
        """One request to the published port."""
        return get(self.port)

    # -- the steps ----------------------------------------------------------------------------

    def sail(self) -> None:
        """All of it."""
        step(1, "the main job: build, test, push, deploy, check, scale")
        self.do(*self.voyage())
        self.expect_answer("voyage 1")
        step(2, "a rolling update while a client asks all the time")
        with Load(self.port) as load:
            self.do(*self.voyage("version=2"))
        load.expect_none_failed()
        self.expect_answer("voyage 2")
        step(3, "one task's process is killed")
        self.kill_one_task()
        step(4, "a bad release: rolled back, and nobody notices")
        with Load(self.port) as load:
            self.do(*self.voyage("version=bad"), status=1)
        load.expect_none_failed()
        self.expect_answer("voyage 2")
        step(5, "kill -9 of the daemon in the middle of a run, then resume")
        self.kill_daemon_and_resume()
        step(6, "what runs where")
        self.do("service", "ls")
        self.do("ps")

    def expect_answer(self, text: str) -> None:
        """The service says what it should."""
        found = self.answer()
        print(f"$ curl -s http://127.0.0.1:{self.port}/\n{found.strip()}", flush=True)
        if text not in found:
            raise Stopped(f"the service should answer '{text}'")

    def running_tasks(self) -> dict[str, Any]:
        """Task id → container of the tasks that run."""
        containers = self.ask("ps")
        label = "com.docker.swarm.task.id"
        return {c["Labels"][label]: c for c in containers if label in c.get("Labels", {})}

    def kill_one_task(self) -> None:
        """A replacement must be up within two seconds."""
        before = self.running_tasks()
        victim = next(iter(before.values()))
        pid = self.ask("inspect", victim["Id"])[0]["State"]["Pid"]
        print(f"\n$ kill -9 {pid}        # {victim['Names'][0].lstrip('/')}", flush=True)
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        while True:
            tasks = self.ask("service", "ps", "web")
            running = [t for t in tasks if t["Status"]["State"] == "running"]
            fresh = [t for t in running if t["ID"] not in before]
            if fresh and len(running) == len(before):
                break
            if time.monotonic() - killed > 5:
                raise Stopped("no replacement within two seconds")
            time.sleep(0.05)
        took = time.monotonic() - killed
        print(f"a replacement was up after {took:.1f} s", flush=True)
        self.do("service", "ps", "web")
        if took > 2:
            raise Stopped("it took more than two seconds")

    def kill_daemon_and_resume(self) -> None:
        """Same end, finished steps not repeated."""
        run = self.start(*self.voyage("version=1"))
        run_id = self.wait_for_step("deploy")
        pid = int(self.ask("daemon", "status")["pid"])
        print(f"\n$ kill -9 {pid}        # the daemon", flush=True)
        os.kill(pid, signal.SIGKILL)
        run.wait()
        self.do("daemon", "start")
        self.do("workflow", "resume", run_id)
        self.expect_answer("voyage 1")

    def wait_for_step(self, job: str) -> str:
        """The newest run's id, once a job of it runs."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            runs = self.ask("workflow", "ls")
            if runs and runs[0]["active"]:
                shown = self.ask("workflow", "show", runs[0]["id"])
                if any(j["id"] == job and j["state"] == "running" for j in shown["jobs"]):
                    return str(runs[0]["id"])
            time.sleep(0.05)
        raise Stopped(f"job '{job}' did not start")

    def clean(self) -> None:
        """Stop what runs and remove every trace."""
        if (DEMO / "linkspan.toml").exists():
            subprocess.run(
                [str(LINKSPAN), "daemon", "start", "-q"],
                env=self.environment,
                check=False,
                capture_output=True,
            )
            env = self.environment
            quiet: dict[str, Any] = {
                "env": env,
                "check": False,
                "capture_output": True,
                "text": True,
            }
            subprocess.run([str(LINKSPAN), "swarm", "leave", "--force"], **quiet)
            names = subprocess.run(
                [str(LINKSPAN), "ps", "-aq", "--no-trunc"], **quiet
            ).stdout.split()
            if names:
                subprocess.run([str(LINKSPAN), "rm", "-f", "-v", *names], **quiet)
            subprocess.run([str(LINKSPAN), "daemon", "stop"], **quiet)
        for folder in (self.run_dir, DEMO):
            shutil.rmtree(folder, ignore_errors=True)
        BUSYBOX.unlink(missing_ok=True)
        if DEMO.exists():
            raise Stopped(f"{DEMO} could not be removed: something in it is still mounted")
        print("script/demo: nothing is left")


class Load:
    """A client that asks all the time, in a process of its own."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._process: subprocess.Popen[str] | None = None
        self.result: dict[str, Any] = {}

    def __enter__(self) -> "Load":
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--load", str(self._port)], stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        said, _ = self._process.communicate()
        self.result = json.loads(said)

    def expect_none_failed(self) -> None:
        """Not one request may have failed."""
        asked, failed = self.result["asked"], self.result["failed"]
        print(f"{asked} requests meanwhile, {len(failed)} failed", flush=True)
        if failed:
            raise Stopped(f"requests failed: {failed[:3]}")
        if asked < 20:
            raise Stopped(f"only {asked} requests were made")


def load(port: int) -> None:
    """Ask until SIGTERM, each time on a new connection; print what happened."""
    stop = False

    def ended(*_: object) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGTERM, ended)
    asked, failed = 0, []
    while not stop:
        asked += 1
        try:
            get(port)
        except (OSError, http.client.HTTPException, Stopped) as error:
            failed.append(f"{type(error).__name__}: {error}")
        time.sleep(0.01)
    print(json.dumps({"asked": asked, "failed": failed}))


def get(port: int) -> str:
    """The body of ``GET /``."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        body = answer.read().decode(errors="replace")
        if answer.status != 200:
            raise Stopped(f"status {answer.status}: {body[:100]}")
        return body
    finally:
        connection.close()


def alone() -> None:
    """Hold the checkout until this process ends: two demos in one folder would undo each other."""
    folder = os.open(ROOT, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Stopped(
            "another one is at work in this folder; wait for it, or end it with Ctrl-C"
        ) from None


def free_port(wanted: int) -> int:
    """The wanted port, or the next one that is free."""
    for port in range(wanted, wanted + 200):
        with socket.socket() as probe:
            # As servers do: connections that have ended do not hold a port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))  # noqa: S104 - only asks whether it is free
            except OSError:
                continue
        return port
    raise Stopped(f"no port from {wanted} on is free")


def step(number: int, text: str) -> None:
    """A heading."""
    print(f"\n{number}/{TOTAL} {text}", flush=True)


def main(arguments: list[str]) -> int:
    """Run the demo, or clean up after it."""
    if arguments[:1] == ["--load"]:
        load(int(arguments[1]))
        return 0
    began = time.monotonic()
    try:
        alone()
        demo = Demo()
        if arguments == ["--clean"]:
            demo.clean()
            return 0
        print("Linkspan demo: lives in ./.demo, touches nothing else on this machine.")
        demo.prepare()
        demo.sail()
    except Stopped as error:
        print(f"\nscript/demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "\nscript/demo: interrupted; what runs goes on (script/demo --clean)", file=sys.stderr
        )
        return 130
    look = "sudo -s, then " if "SUDO_UID" in os.environ else ""
    print(
        f"""
✓ {time.monotonic() - began:.0f}s. It all still runs. To look around:  {look}source .demo/env
    linkspan ps     linkspan service ps web     linkspan workflow show last
    docker ps       (your own docker CLI, same daemon)
    curl http://127.0.0.1:{demo.port}/
  To stop the daemon (containers go on):  linkspan daemon stop
  To remove every trace:  script/demo --clean"""
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
