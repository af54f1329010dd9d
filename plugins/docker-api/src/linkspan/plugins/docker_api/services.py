"""/services: desired state of what runs in the cluster."""

from collections.abc import Sequence

from linkspan.plugins.docker_api.codec_image import registry_auth
from linkspan.plugins.docker_api.codec_service import decode_service, encode_service
from linkspan.plugins.docker_api.document import Document
from linkspan.plugins.docker_api.filters import read_filters
from linkspan.plugins.docker_api.routing import plain_flag, read_document
from linkspan.plugins.docker_api.service_logs import task_log_stream
from linkspan.plugins.docker_api.swarm import orchestrator, require_cluster, version_of
from linkspan.sdk.errors import InvalidArgument, LinkspanError, NotFound
from linkspan.sdk.host import Host
from linkspan.sdk.http import Request, Response, Stream, json_response
from linkspan.sdk.model.image import Credentials
from linkspan.sdk.model.service import ServiceSpec, Task
from linkspan.sdk.names import free_name


class ServiceRoutes:
    """Services."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def list(self, request: Request) -> Response:
        """GET /services."""
        filters = read_filters(request, ("id", "label", "mode", "name", "runtime"))
        await require_cluster(self._host)
        found = [
            service
            for service in await orchestrator(self._host).list_services()
            if filters.prefix("id", service.id)
            and filters.prefix("name", service.spec.name)
            and filters.among("mode", service.spec.mode)
            and filters.among("runtime", "container")
            and filters.labels(service.spec.labels)
        ]
        with_status = plain_flag(request, "status") and request.api_version >= (1, 41)
        return json_response([encode_service(s, with_status=with_status) for s in found])

    async def create(self, request: Request) -> Response:
        """POST /services/create."""
        await require_cluster(self._host)
        driver = orchestrator(self._host)
        body = await read_document(request)
        if not body.text("Name"):
            taken = {service.spec.name for service in await driver.list_services()}
            body = Document({**body.value, "Name": free_name(taken)})
        spec = decode_service(body)
        warnings = await self._fetch(request, spec)
        service = await driver.create_service(spec)
        return json_response({"ID": service.id, "Warnings": [*warnings] or None}, status=201)

    async def _fetch(self, request: Request, spec: ServiceSpec) -> Sequence[str]:
        """With credentials (``--with-registry-auth``) the image is fetched now: they are not kept.

        What went wrong is a warning, as in Docker: tasks may find the image later.
        """
        credentials = registry_auth(request, lenient=True)
        image = spec.container.image
        if credentials == Credentials() or self._has(image):
            return ()
        try:
            await self._host.engine.images.pull(image, credentials=credentials)
        except LinkspanError as error:
            return (f"image {image} could not be fetched with these credentials: {error.message}",)
        return ()

    def _has(self, image: str) -> bool:
        try:
            self._host.engine.images.inspect(image)
        except NotFound:
            return False
        return True

    async def inspect(self, request: Request) -> Response:
        """GET /services/{id}."""
        service = await orchestrator(self._host).get_service(request.params["id"])
        return json_response(
            encode_service(service, defaults=plain_flag(request, "insertDefaults"))
        )

    async def remove(self, request: Request) -> Response:
        """DELETE /services/{id}."""
        await orchestrator(self._host).remove_service(request.params["id"])
        return Response()

    async def update(self, request: Request) -> Response:
        """POST /services/{id}/update; ``rollback=previous`` goes back instead."""
        await require_cluster(self._host)
        driver = orchestrator(self._host)
        body = await read_document(request)
        version = version_of(request, "service")
        rollback = request.query.get("rollback", "")
        if rollback not in ("", "none", "previous"):
            raise InvalidArgument(f"unrecognized rollback option {rollback}")
        if request.query.get("registryAuthFrom", "") not in ("", "spec", "previous-spec"):
            raise InvalidArgument("unsupported registryAuthFrom value")
        warnings: Sequence[str] = ()
        if rollback == "previous":
            await driver.rollback_service(request.params["id"], version=version)
        else:
            spec = decode_service(body)
            warnings = await self._fetch(request, spec)
            await driver.update_service(request.params["id"], spec, version=version)
        return json_response({"Warnings": [*warnings] or None})

    async def logs(self, request: Request) -> Stream:
        """GET /services/{id}/logs: of all its tasks on this node."""
        driver = orchestrator(self._host)
        service = await driver.get_service(request.params["id"])
        tasks: Sequence[Task] = await driver.list_tasks(service=service.id)
        return task_log_stream(self._host, request, tasks)
