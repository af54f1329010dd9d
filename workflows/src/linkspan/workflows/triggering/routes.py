"""``/linkspan/v1/served``: the folders whose pipelines the daemon starts by itself.

======  =============================  ====================================================
GET     ``/linkspan/v1/served``        folders, pipelines, what starts them and when next
POST    ``/linkspan/v1/served``        serve ``{"folder": "/abs/path", "name": "shop"}``; 201
DELETE  ``/linkspan/v1/served/{name}`` serve it no more; 204
======  =============================  ====================================================
"""

from collections.abc import Callable
from pathlib import Path

from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.http import Answer, Request, Response, Router, json_response
from linkspan.workflows.triggering.served import Served


class ServedRoutes:
    """The handlers; ``served`` finds the daemon's folders when a request comes."""

    def __init__(self, served: Callable[[], Served]) -> None:
        self._served = served

    def register(self, router: Router) -> None:
        """Add the routes."""
        base = "/linkspan/v1/served"
        router.add("GET", base, self.describe)
        router.add("POST", base, self.add)
        router.add("DELETE", base + "/{name}", self.remove)

    async def describe(self, request: Request) -> Answer:
        """What is served."""
        return json_response(await self._served().describe())

    async def add(self, request: Request) -> Answer:
        """Serve a folder."""
        body = await request.json()
        folder, name = (
            (body.get("folder"), body.get("name", "")) if isinstance(body, dict) else (None, "")
        )
        if not isinstance(folder, str) or not isinstance(name, str):
            raise InvalidArgument('the body must be {"folder": PATH, "name": TEXT}')
        return json_response(await self._served().add(Path(folder), name), 201)

    async def remove(self, request: Request) -> Answer:
        """Serve a folder no more."""
        await self._served().remove(request.params["name"])
        return Response(status=204)
