"""The example pipeline, and pipelines like it: sent on, killed in the middle, looked at."""

import os
import shutil
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from daemon_harness.daemon import ROOT, Daemon, until
from daemon_harness.load import get
from daemon_harness.ports import free_port


def copy_pipeline(folder: Path) -> Path:
    """The example pipeline with its context in a folder, ready to be run."""
    shutil.copytree(ROOT / "workflows/examples", folder / "examples")
    shutil.copyfile("/bin/busybox", folder / "examples/voyage/busybox")
    return folder / "examples/voyage.yaml"


class Ship:
    """The service ``web`` of a voyage, and how it is sent on one.

    Attributes:
        said: What the first voyage said.
    """

    def __init__(self, daemon: Daemon, pipeline: Path, registry: str, port: int = 0) -> None:
        self.daemon = daemon
        self.pipeline = pipeline
        self.registry = registry
        self.port = port or free_port()
        self.said = ""

    def words(self, version: str) -> list[str]:
        """The command line of a voyage."""
        inputs = (f"registry={self.registry}", f"port={self.port}", f"version={version}")
        words = ["workflow", "run", str(self.pipeline)]
        return words + [word for pair in inputs for word in ("--input", pair)]

    def sail(self, version: str, *, status: int = 0) -> str:
        """Run the pipeline; what it said."""
        return self.daemon.cli(*self.words(version), status=status).said

    def tasks(self) -> list[dict[str, Any]]:
        """Tasks that run, as ``service ps`` shows them."""
        found = self.daemon.json("service", "ps", "web")
        return [task for task in found if task["Status"]["State"] == "running"]

    def wait_settled(self) -> None:
        """Wait until no update or way back goes on and no task is being replaced."""
        until("the service is settled", self._settled)

    def _settled(self) -> bool:
        service = self.daemon.get("/services/web")
        replicas = service["Spec"]["Mode"]["Replicated"]["Replicas"]
        tasks = [t for t in self._all_tasks() if t["Status"]["State"] == "running"]
        going_on = (service.get("UpdateStatus") or {}).get("State", "completed")
        return (
            going_on in ("completed", "rollback_completed")
            and len(tasks) == replicas
            and all(task["DesiredState"] == "running" for task in tasks)
        )

    def _all_tasks(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.daemon.get('/tasks?filters={"service":["web"]}')
        return found

    def kill_a_task(self) -> tuple[dict[str, Any], float]:
        """Kill the process of a task; its record in the end, and how long until another ran in its place.

        The time is in seconds, from the kill until the daemon started the other's process.
        """
        self.wait_settled()
        victim = self.tasks()[0]
        before = {task["ID"] for task in self._all_tasks()}
        pid = self.daemon.state(_container(victim))["Pid"]
        killed = datetime.now(UTC)
        os.kill(pid, signal.SIGKILL)

        def replacement() -> dict[str, Any] | None:
            for task in self._all_tasks():
                new = task["ID"] not in before and task["Slot"] == victim["Slot"]
                if new and task["Status"]["State"] == "running":
                    return task
            return None

        found = until("a replacement runs", replacement)
        started = self.daemon.state(_container(found))["StartedAt"]
        took = datetime.fromisoformat(started[:26].rstrip("Z") + "+00:00") - killed
        (ended,) = (task for task in self._all_tasks() if task["ID"] == victim["ID"])
        return ended, took.total_seconds()

    def answers(self, times: int = 40) -> set[str]:
        """The distinct answers to some requests: which version, which replica."""
        return {get(self.port).strip() for _ in range(times)}

    def versions(self) -> set[str]:
        """The distinct versions among the answers."""
        return {answer.partition(",")[0] for answer in self.answers()}

    def kill_daemon_in(self, version: str, job: str) -> str:
        """Kill the daemon as soon as a job of a voyage has begun; the run's id."""
        command = self.daemon.begin(*self.words(version))
        run = until("a run is there", self._active_run)
        with self.daemon.stream("GET", f"/linkspan/v1/runs/{run}/events") as records:
            # Records are never missed, however short the job is; a look at the run could be.
            begun = any(r.get("kind") == "job-started" and r["job"] == job for r in records)
            self.daemon.kill9()
        assert begun, f"job {job} has not begun"
        said, complaint = command.communicate(timeout=60)
        assert command.returncode != 0, said
        assert "linkspan workflow" in complaint, complaint
        return run

    def _active_run(self) -> str:
        runs = self.daemon.get("/linkspan/v1/runs")
        return next((str(run["id"]) for run in runs if run["active"]), "")

    @staticmethod
    def repeated(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
        """Steps that had ended well before, and are shown otherwise now: they were done again."""
        old, new = _finished(before), _finished(after)
        assert old, "nothing had ended yet"
        return [step for step in old if new.get(step) != old[step]]


def _container(task: dict[str, Any]) -> str:
    return str(task["Status"]["ContainerStatus"]["ContainerID"])


def _finished(run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{job['id']}/{step['id']}": step
        for job in run["jobs"]
        for step in job["steps"]
        if step["state"] == "success"
    }
