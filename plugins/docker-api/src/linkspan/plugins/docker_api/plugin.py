"""Hook implementations: the routes of the Engine API.

What answers them is imported by the first request for it: there are some fifty modules, of which a daemon
that builds nothing and has no services uses half.
"""

import importlib
from functools import cached_property
from typing import Any, Final

from linkspan.plugins.docker_api.routing import DockerRouter
from linkspan.plugins.docker_api.unsupported import add_unsupported
from linkspan.sdk.hooks import hookimpl
from linkspan.sdk.host import Host
from linkspan.sdk.http import Answer, Handler, Request, Router

ROUTES: Final = {
    "ping:PingRoutes": {
        "GET /_ping": "ping",
    },
    "system:SystemRoutes": {
        "GET /version": "version",
        "GET /info": "info",
        "GET /system/df": "disk_usage",
    },
    "containers:ContainerRoutes": {
        "GET /containers/json": "list",
        "POST /containers/create": "create",
        "POST /containers/prune": "prune",
        "GET /containers/{id}/json": "inspect",
        "GET /containers/{id}/top": "top",
        "POST /containers/{id}/start": "start",
        "POST /containers/{id}/stop": "stop",
        "POST /containers/{id}/restart": "restart",
        "POST /containers/{id}/kill": "kill",
        "POST /containers/{id}/pause": "pause",
        "POST /containers/{id}/unpause": "unpause",
        "POST /containers/{id}/rename": "rename",
        "POST /containers/{id}/update": "update",
        "POST /containers/{id}/wait": "wait",
        "DELETE /containers/{id}": "remove",
        "DELETE /containers/{id}/{alias}": "remove_link",
    },
    "container_streams:ContainerStreamRoutes": {
        "POST /containers/{id}/attach": "attach",
        "GET /containers/{id}/attach/ws": "attach_websocket",
        "POST /containers/{id}/resize": "resize",
        "GET /containers/{id}/logs": "logs",
        "GET /containers/{id}/stats": "stats",
    },
    "container_files:ContainerFileRoutes": {
        "HEAD /containers/{id}/archive": "stat",
        "GET /containers/{id}/archive": "read",
        "PUT /containers/{id}/archive": "write",
        "GET /containers/{id}/export": "export",
        "GET /containers/{id}/changes": "changes",
    },
    "execs:ExecRoutes": {
        "POST /containers/{id}/exec": "create",
        "POST /exec/{id}/start": "start",
        "POST /exec/{id}/resize": "resize",
        "GET /exec/{id}/json": "inspect",
    },
    "images:ImageRoutes": {
        "GET /images/json": "list",
        "POST /images/create": "pull",
        "POST /images/prune": "prune",
        "GET /images/{name:path}/json": "inspect",
        "GET /images/{name:path}/history": "history",
        "POST /images/{name:path}/push": "push",
        "POST /images/{name:path}/tag": "tag",
        "DELETE /images/{name:path}": "remove",
    },
    "image_archives:ImageArchiveRoutes": {
        "GET /images/get": "save",
        "GET /images/{name:path}/get": "save",
        "POST /images/load": "load",
        "POST /commit": "commit",
    },
    "build:BuildRoutes": {
        "POST /build": "build",
        "POST /build/cancel": "cancel",
        "POST /session": "session",
        "POST /grpc": "grpc",
        "POST /linkspan/v1/build": "build_more",
        "POST /build/prune": "prune",
    },
    "networks:NetworkRoutes": {
        "GET /networks": "list",
        "POST /networks/create": "create",
        "POST /networks/prune": "prune",
        "GET /networks/{id}": "inspect",
        "DELETE /networks/{id}": "remove",
        "POST /networks/{id}/connect": "connect",
        "POST /networks/{id}/disconnect": "disconnect",
    },
    "volumes:VolumeRoutes": {
        "GET /volumes": "list",
        "POST /volumes/create": "create",
        "POST /volumes/prune": "prune",
        "GET /volumes/{name}": "inspect",
        "DELETE /volumes/{name}": "remove",
    },
    "events:EventRoutes": {
        "GET /events": "events",
    },
    "distribution:DistributionRoutes": {
        "POST /auth": "login",
        "GET /distribution/{name:path}/json": "inspect",
        "GET /images/search": "search",
    },
    "swarm:SwarmRoutes": {
        "GET /swarm": "inspect",
        "POST /swarm/init": "init",
        "POST /swarm/join": "join",
        "POST /swarm/leave": "leave",
        "POST /swarm/update": "update",
        "GET /swarm/unlockkey": "unlock_key",
        "POST /swarm/unlock": "unlock",
    },
    "services:ServiceRoutes": {
        "GET /services": "list",
        "POST /services/create": "create",
        "GET /services/{id}": "inspect",
        "DELETE /services/{id}": "remove",
        "POST /services/{id}/update": "update",
        "GET /services/{id}/logs": "logs",
    },
    "tasks:TaskRoutes": {
        "GET /tasks": "list",
        "GET /tasks/{id}": "inspect",
        "GET /tasks/{id}/logs": "logs",
    },
    "nodes:NodeRoutes": {
        "GET /nodes": "list",
        "GET /nodes/{id}": "inspect",
        "POST /nodes/{id}/update": "update",
        "DELETE /nodes/{id}": "remove",
    },
    "payloads:SecretRoutes": {
        "GET /secrets": "list",
        "POST /secrets/create": "create",
        "GET /secrets/{id}": "inspect",
        "DELETE /secrets/{id}": "remove",
        "POST /secrets/{id}/update": "update",
    },
    "payloads:ConfigRoutes": {
        "GET /configs": "list",
        "POST /configs/create": "create",
        "GET /configs/{id}": "inspect",
        "DELETE /configs/{id}": "remove",
        "POST /configs/{id}/update": "update",
    },
}
"""Module and class of each subject, which is made with the host; its routes, and their methods."""


class Subject:
    """Routes of one subject, made when one of them is asked for.

    Args:
        place: A key of ``ROUTES``.
    """

    def __init__(self, place: str, host: Host) -> None:
        self._place = place
        self._host = host

    @cached_property
    def answers(self) -> Any:
        """The object whose methods answer."""
        module, _, name = self._place.partition(":")
        return getattr(importlib.import_module(f"{__package__}.{module}"), name)(self._host)

    def handler(self, method: str) -> Handler:
        """Calls a method of it."""

        async def handle(request: Request) -> Answer:
            answer: Answer = await getattr(self.answers, method)(request)
            return answer

        return handle


@hookimpl
def linkspan_register_routes(router: Router, host: Host) -> None:
    """Add the routes of the Docker Engine API."""
    routes = DockerRouter(router)
    for place, handlers in ROUTES.items():
        subject = Subject(place, host)
        for route, name in handlers.items():
            method, pattern = route.split(" ", 1)
            routes.add(method, pattern, subject.handler(name))
    add_unsupported(routes)
