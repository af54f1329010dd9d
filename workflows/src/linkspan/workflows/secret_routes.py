"""``/linkspan/v1/secrets``: what pipelines may be granted. Values go in and never come out.

======  =================================  =================================================
GET     ``/linkspan/v1/secrets``           ``[{driver, key, updated_at}]`` of all drivers
PUT     ``/linkspan/v1/secrets/{key}``     keep ``{"value": ...}``; ``?driver=`` names another
                                           than the chosen one; 204
DELETE  ``/linkspan/v1/secrets/{key}``     forget it; 204
======  =================================  =================================================
"""

from linkspan.sdk.errors import InvalidArgument, NotFound
from linkspan.sdk.host import Host
from linkspan.sdk.http import Answer, Request, Response, Router, json_response
from linkspan.workflows.secret_values import checked_key, secrets_driver


class SecretRoutes:
    """The handlers."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def register(self, router: Router) -> None:
        """Add the routes."""
        base = "/linkspan/v1/secrets"
        router.add("GET", base, self.list_secrets)
        router.add("PUT", base + "/{key}", self.put)
        router.add("DELETE", base + "/{key}", self.delete)

    def _names(self) -> list[str]:
        manifests = self._host.daemon.manifests
        return [d.name for m in manifests for d in m.drivers if d.role == "secrets"]

    async def list_secrets(self, request: Request) -> Answer:
        """Keys, without values."""
        rows = []
        for name in self._names():
            try:
                driver = secrets_driver(self._host, name)
            except NotFound:
                # Not usable here; `plugin ls` says why.
                continue
            rows += [
                {"driver": name, "key": info.key, "updated_at": info.updated_at}
                for info in await driver.list()
            ]
        return json_response(rows)

    async def put(self, request: Request) -> Answer:
        """Keep a value."""
        body = await request.json()
        value = body.get("value") if isinstance(body, dict) else None
        if not isinstance(value, str):
            raise InvalidArgument('the body must be {"value": TEXT}')
        key = checked_key(request.params["key"])
        await secrets_driver(self._host, request.query.get("driver", "")).put(key, value)
        return Response(status=204)

    async def delete(self, request: Request) -> Answer:
        """Forget it."""
        key = checked_key(request.params["key"])
        await secrets_driver(self._host, request.query.get("driver", "")).delete(key)
        return Response(status=204)
