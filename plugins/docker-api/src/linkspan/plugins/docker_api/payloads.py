"""/secrets and /configs."""

from linkspan.plugins.docker_api.codec_payload import decode_payload, encode_payload
from linkspan.plugins.docker_api.filters import read_filters
from linkspan.plugins.docker_api.routing import read_document
from linkspan.plugins.docker_api.swarm import orchestrator, require_cluster
from linkspan.sdk.errors import InvalidArgument, NotFound
from linkspan.sdk.host import Host
from linkspan.sdk.http import Request, Response, json_response
from linkspan.sdk.model.service import Payload, PayloadKind


class _PayloadRoutes:
    """One of the two kinds."""

    def __init__(self, host: Host, kind: PayloadKind) -> None:
        self._host = host
        self.kind = kind

    async def list(self, request: Request) -> Response:
        """All that pass the filters."""
        filters = read_filters(request, ("id", "label", "name", "names"))
        await require_cluster(self._host)
        found = [
            payload
            for payload in await orchestrator(self._host).list_payloads(self.kind)
            if filters.prefix("id", payload.id)
            and filters.prefix("name", payload.spec.name)
            and filters.among("names", payload.spec.name)
            and filters.labels(payload.spec.labels)
        ]
        if self.kind == "config":
            found = [whole for one in found if (whole := await self._whole(one.id))]
        return json_response([encode_payload(payload) for payload in found])

    async def _whole(self, ref: str) -> Payload | None:
        """With its data, if it has any to show; None: it was removed in the meantime."""
        try:
            return await orchestrator(self._host).get_payload(self.kind, ref)
        except NotFound:
            return None

    async def create(self, request: Request) -> Response:
        """Keep one; its id."""
        await require_cluster(self._host)
        spec = decode_payload(self.kind, await read_document(request))
        made = await orchestrator(self._host).create_payload(self.kind, spec)
        # The specification says Id, and Docker's daemon ID, which clients read.
        return json_response({"ID": made.id}, status=201)

    async def inspect(self, request: Request) -> Response:
        """One."""
        found = await orchestrator(self._host).get_payload(self.kind, request.params["id"])
        return json_response(encode_payload(found))

    async def remove(self, request: Request) -> Response:
        """Forget one."""
        await orchestrator(self._host).remove_payload(self.kind, request.params["id"])
        return Response(status=204)

    async def update(self, request: Request) -> Response:
        """Change labels, which is all that can change."""
        driver = orchestrator(self._host)
        body = await read_document(request)
        spec = decode_payload(self.kind, body)
        if not request.query.get("version", "").isdecimal():
            raise InvalidArgument(f"invalid {self.kind} version")
        version = request.number("version", 0)
        await driver.update_payload(self.kind, request.params["id"], spec, version=version)
        return Response()


class SecretRoutes(_PayloadRoutes):
    """Secrets."""

    def __init__(self, host: Host) -> None:
        super().__init__(host, "secret")


class ConfigRoutes(_PayloadRoutes):
    """Configs."""

    def __init__(self, host: Host) -> None:
        super().__init__(host, "config")
