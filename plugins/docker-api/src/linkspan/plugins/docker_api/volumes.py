"""/volumes."""

import trio

from linkspan.plugins.docker_api.codec_volume import decode_volume, encode_volume, shown_labels
from linkspan.plugins.docker_api.filters import Filters, read_filters
from linkspan.plugins.docker_api.prune_events import tell_pruned
from linkspan.plugins.docker_api.routing import NO_CONTENT, read_document
from linkspan.sdk.errors import Conflict, NotFound, Unsupported
from linkspan.sdk.host import Host
from linkspan.sdk.http import Request, Response, json_response
from linkspan.sdk.model.volume import Volume


class VolumeRoutes:
    """Named storage."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._volumes = host.engine.volumes
        self._pruning = trio.Lock()

    async def list(self, request: Request) -> Response:
        """GET /volumes."""
        filters = read_filters(request, ("dangling", "driver", "label", "label!", "name"))
        found = [v for v in await self._volumes.list() if self._passes(v, filters)]
        return json_response({"Volumes": [encode_volume(v) for v in found], "Warnings": None})

    def _passes(self, volume: Volume, filters: Filters) -> bool:
        dangling = filters.flag("dangling")
        return (
            (dangling is None or dangling is not bool(self._volumes.users(volume.name)))
            and filters.among("driver", volume.driver)
            and filters.pattern("name", volume.name)
            and filters.labels(shown_labels(volume))
        )

    async def create(self, request: Request) -> Response:
        """POST /volumes/create."""
        body = await read_document(request, required=False)
        return json_response(
            encode_volume(await self._volumes.create(decode_volume(body))), status=201
        )

    async def inspect(self, request: Request) -> Response:
        """GET /volumes/{name}."""
        return json_response(encode_volume(await self._volumes.inspect(request.params["name"])))

    async def remove(self, request: Request) -> Response:
        """DELETE /volumes/{name}."""
        await self._volumes.remove(request.params["name"], force=request.flag("force"))
        return NO_CONTENT

    async def prune(self, request: Request) -> Response:
        """POST /volumes/prune: anonymous volumes that nobody uses; with ``all`` named ones, too."""
        filters = read_filters(request, ("all", "label", "label!"))
        # Before 1.42 a prune took named volumes, too.
        everything = filters.flag("all") is True or request.api_version < (1, 42)
        if self._pruning.locked():
            raise Conflict("a prune operation is already running")
        deleted, reclaimed = [], 0
        async with self._pruning:
            for volume in list(await self._volumes.list()):
                if not (everything or volume.anonymous) or not filters.labels(shown_labels(volume)):
                    continue
                if self._volumes.users(volume.name):
                    continue
                size = await volume_size(self._host, volume)
                try:
                    await self._volumes.remove(volume.name)
                except (Conflict, NotFound):
                    # Somebody uses it now, or was quicker.
                    continue
                deleted.append(volume.name)
                reclaimed += max(size, 0)
        tell_pruned(self._host, "volume", reclaimed)
        return json_response({"VolumesDeleted": deleted or None, "SpaceReclaimed": reclaimed})


async def volume_size(host: Host, volume: Volume) -> int:
    """Bytes of its content; -1 if its driver cannot tell."""
    try:
        usage = await host.driver("volume", volume.driver).usage(volume.name)
    except (NotFound, Unsupported):
        return -1
    return int(usage.size_bytes)
