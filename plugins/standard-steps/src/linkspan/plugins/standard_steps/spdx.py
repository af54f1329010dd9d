"""The packages of an image as an SPDX 2.3 document (JSON)."""

import hashlib
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlencode

from linkspan.sdk.model.image import Package

SPDX: Final = "application/spdx+json"
"""Media type of the document, and of the artifact that carries it."""
_UNKNOWN: Final = "NOASSERTION"
_NAMESPACE: Final = uuid.UUID("5d0b4a54-6f1f-5d1c-9a3c-1f0a7f4f1d2e")
_LICENSES: Final = frozenset(
    (  # noqa: SIM905 - a list of words reads better as text
        "0BSD AGPL-3.0-only AGPL-3.0-or-later Apache-2.0 Artistic-2.0 BSD-2-Clause BSD-3-Clause BSL-1.0 "
        "CC0-1.0 GPL-2.0-only GPL-2.0-or-later GPL-3.0-only GPL-3.0-or-later ISC LGPL-2.0-or-later "
        "LGPL-2.1-only LGPL-2.1-or-later LGPL-3.0-only LGPL-3.0-or-later MIT MIT-0 MPL-2.0 OpenSSL PSF-2.0 "
        "Python-2.0 Unicode-3.0 Unlicense Vim Zlib bzip2-1.0.6 curl"
    ).split()
)
"""Of the SPDX list, as far as packages commonly say one of them and nothing else."""


def sbom(
    image_id: str, name: str, packages: Sequence[Package], *, created: str, tool: str, comment: str
) -> bytes:
    """The document.

    Args:
        image_id: Digest of the image's config.
        name: Of the image, for people.
        created: RFC 3339, whole seconds, ``Z``.
        tool: ``linkspan-0.1.0``.
        comment: What it does not say; may be empty.
    """
    licenses: dict[str, str] = {}
    listed = [_package(package, licenses) for package in packages]
    digest = image_id.removeprefix("sha256:")
    document: dict[str, Any] = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": f"urn:uuid:{uuid.uuid5(_NAMESPACE, f'{image_id} {created}')}",
        "creationInfo": {"created": created, "creators": [f"Tool: {tool}"]},
        "packages": [_image(name, digest), *listed],
        "relationships": [
            _related("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Image"),
            *(_related("SPDXRef-Image", "CONTAINS", each["SPDXID"]) for each in listed),
        ],
    }
    if licenses:
        document["hasExtractedLicensingInfos"] = [
            {"licenseId": key, "extractedText": text, "name": text}
            for text, key in licenses.items()
        ]
    if comment:
        document["comment"] = comment
    return json.dumps(document, indent=1, ensure_ascii=False).encode()


def created_of(document: bytes) -> str:
    """When a document of ``sbom`` was made."""
    return str(json.loads(document)["creationInfo"]["created"])


def _image(name: str, digest: str) -> Mapping[str, Any]:
    return {
        "SPDXID": "SPDXRef-Image",
        "name": name,
        "versionInfo": f"sha256:{digest}",
        "downloadLocation": _UNKNOWN,
        "filesAnalyzed": False,
        "primaryPackagePurpose": "CONTAINER",
        "checksums": [{"algorithm": "SHA256", "checksumValue": digest}],
    }


def _package(package: Package, licenses: dict[str, str]) -> Mapping[str, Any]:
    purl = package_url(package)
    mark = hashlib.sha256(purl.encode()).hexdigest()[:12]
    word = re.sub(r"[^A-Za-z0-9.-]", "-", package.name)
    found = {
        "SPDXID": f"SPDXRef-Package-{package.kind}-{word}-{mark}",
        "name": package.name,
        "versionInfo": package.version,
        "downloadLocation": _UNKNOWN,
        "filesAnalyzed": False,
        "licenseConcluded": _UNKNOWN,
        "licenseDeclared": _license(package.license, licenses),
        "copyrightText": _UNKNOWN,
        "externalRefs": [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": purl,
            }
        ],
    }
    if package.source:
        found["sourceInfo"] = f"built from the source package {package.source}"
    return found


def _license(text: str, licenses: dict[str, str]) -> str:
    """An identifier of SPDX, or a reference to what the package says in its own words."""
    if not text:
        return _UNKNOWN
    if text in _LICENSES:
        return text
    mark = hashlib.sha256(text.encode()).hexdigest()[:12]
    return licenses.setdefault(text, f"LicenseRef-{mark}")


def _related(one: str, how: str, other: str) -> Mapping[str, str]:
    return {"spdxElementId": one, "relationshipType": how, "relatedSpdxElement": other}


def package_url(package: Package) -> str:
    """``pkg:deb/debian/curl@7.88.1-10?arch=amd64&distro=debian-12``."""
    name = package.name
    if package.kind == "pypi":
        name = re.sub(r"[-_.]+", "-", name).lower()
    parts = filter(None, (package.namespace.lower(), name))
    path = "/".join(quote(part, safe="") for part in parts)
    # An epoch's colon may stand in a version as it is.
    version = quote(package.version, safe=":")
    more = {"arch": package.architecture, "distro": package.distro}
    query = urlencode({key: value for key, value in more.items() if value})
    return f"pkg:{package.kind}/{path}@{version}{f'?{query}' if query else ''}"
