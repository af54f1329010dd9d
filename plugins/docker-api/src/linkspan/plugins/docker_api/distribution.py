"""/auth and /distribution: questions that the registry answers."""

import json
from typing import Any

from linkspan.plugins.docker_api.codec_image import decode_credentials, registry_auth
from linkspan.plugins.docker_api.filters import Filters, no_number, read_filters
from linkspan.plugins.docker_api.routing import read_document
from linkspan.sdk.drivers.registry import Manifest, Registry, SearchResult
from linkspan.sdk.errors import DataLoss, InvalidArgument, Unauthenticated
from linkspan.sdk.host import Host
from linkspan.sdk.http import AnswerError, Request, Response, json_response
from linkspan.sdk.model.image import Credentials, Descriptor, Platform
from linkspan.sdk.reference import Reference, parse_reference, registry_named_by

_CONFIG_LIMIT_BYTES = 4 << 20
_INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)


class DistributionRoutes:
    """Log in, and look at images without pulling them."""

    def __init__(self, host: Host) -> None:
        self._host = host

    @property
    def _registry(self) -> Registry[Any]:
        driver: Registry[Any] = self._host.driver("registry")
        return driver

    async def login(self, request: Request) -> Response:
        """POST /auth."""
        credentials = decode_credentials(await read_document(request))
        try:
            token = await self._registry.login(credentials)
        except Unauthenticated as error:
            # Here, other than in a pull, 401 is the answer and not an error of the daemon's.
            raise AnswerError(error.message, status=401, code=error.code) from error
        return json_response({"Status": "Login Succeeded", "IdentityToken": token})

    async def search(self, request: Request) -> Response:
        """GET /images/search."""
        term, limit = request.query.get("term", ""), request.number("limit", 25)
        if not term:
            raise InvalidArgument("the parameter 'term' is missing")
        if not 0 <= limit <= 100:
            raise InvalidArgument(f"limit {limit} is outside the range of [1, 100]")
        filters = read_filters(request, ("is-automated", "is-official", "stars"))
        for text in filters.all("stars"):
            if not text.isdigit():
                raise no_number("stars", text)
        credentials = registry_auth(request, lenient=True)
        found = await self._registry.search(term, credentials, limit=limit or 25)
        registry = registry_named_by(term)
        return json_response([_found(item, registry) for item in found if _passes(item, filters)])

    async def inspect(self, request: Request) -> Response:
        """GET /distribution/{name}/json."""
        reference = parse_reference(request.params["name"]).with_default_tag()
        credentials = registry_auth(request, lenient=False)
        try:
            manifest = await self._registry.manifest(reference, credentials)
        except Unauthenticated as error:
            raise AnswerError(error.message, status=401, code=error.code) from error
        descriptor = manifest.descriptor
        return json_response(
            {
                "Descriptor": {
                    "mediaType": descriptor.media_type,
                    "digest": descriptor.digest,
                    "size": descriptor.size_bytes,
                },
                "Platforms": await self._platforms(reference, manifest, credentials) or None,
            }
        )

    async def _platforms(
        self, reference: Reference, manifest: Manifest, credentials: Credentials
    ) -> list[dict[str, Any]]:
        document = _parse(manifest.data)
        if manifest.descriptor.media_type in _INDEX_TYPES or "manifests" in document:
            entries = [e.get("platform") for e in document.get("manifests") or ()]
            return [_platform(e) for e in entries if isinstance(e, dict)]
        config = document.get("config")
        if not isinstance(config, dict) or int(config.get("size", 0)) > _CONFIG_LIMIT_BYTES:
            return []
        descriptor = Descriptor(
            media_type=str(config.get("mediaType", "")),
            digest=str(config.get("digest", "")),
            size_bytes=int(config.get("size", 0)),
        )
        data = bytearray()
        async with self._registry.blob(reference, descriptor, credentials) as chunks:
            async for chunk in chunks:
                data += chunk
                if len(data) > _CONFIG_LIMIT_BYTES:
                    return []
        return [_platform(_parse(bytes(data)))]


def _passes(item: SearchResult, filters: Filters) -> bool:
    official, automated = filters.flag("is-official"), filters.flag("is-automated")
    return (
        (official is None or item.official is official)
        and automated is not True  # builds that were Docker Hub's own are no more
        and all(item.stars >= int(text) for text in filters.all("stars"))
    )


def _found(item: SearchResult, registry: str) -> dict[str, Any]:
    """As Docker tells it: without the registry that was named, and nothing is automated any more."""
    return {
        "star_count": item.stars,
        "is_official": item.official,
        "name": item.name.removeprefix(f"{registry}/") if registry else item.name,
        "is_automated": False,
        "description": item.description,
    }


def _parse(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataLoss(f"the registry sent a manifest that is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise DataLoss("the registry sent a manifest that is no JSON object")
    return document


def _platform(entry: dict[str, Any]) -> dict[str, Any]:
    usual = Platform()
    out: dict[str, Any] = {
        "architecture": str(entry.get("architecture") or usual.architecture),
        "os": str(entry.get("os") or usual.os),
    }
    features = entry.get("os.features")
    if isinstance(features, list) and features:
        out["os.features"] = [str(feature) for feature in features]
    for name in ("os.version", "variant"):
        if entry.get(name):
            out[name] = str(entry[name])
    return out
