"""Blobs, manifests and tags as files; every function blocks and belongs into a worker thread.

::

    blobs/sha256/<hex>                          content, also of manifests; appears complete or not at all
    repositories/<name>/_blobs/sha256/<hex>     empty: the repository may hand out this blob
    repositories/<name>/_manifests/sha256/<hex> the manifest's media type
    repositories/<name>/_tags/<tag>             the digest it names
    repositories/<name>/_referrers/sha256/<hex of the subject>/<digest>   a descriptor
    uploads/<id>                                what is arriving; dropped when the server starts

No part of a repository's name begins with ``_``, so the folders cannot collide. Who may change what
at the same time is the service's business; each single change is atomic by rename.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from linkspan.plugins.registry_server.names import ALGORITHMS, check_digest
from linkspan.plugins.registry_server.refusal import (
    blob_unknown,
    manifest_unknown,
    name_unknown,
)
from linkspan.sdk.files import DRAFT_SUFFIX, replace_file, sync


@attrs.frozen(kw_only=True)
class StoredManifest:
    """A manifest of a repository."""

    digest: str
    media_type: str
    data: bytes


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    """``sha256:…``."""
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


class Store:
    """The registry's files below one folder."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs"
        self._repositories = root / "repositories"
        self.uploads = root / "uploads"

    def prepare(self) -> None:
        """Make the folders; drop uploads and half files of a crash, and blobs that nobody names."""
        shutil.rmtree(self.uploads, ignore_errors=True)
        for algorithm in ALGORITHMS:
            (self._blobs / algorithm).mkdir(parents=True, exist_ok=True)
        self._repositories.mkdir(parents=True, exist_ok=True)
        self.uploads.mkdir()
        self._sweep()

    def _sweep(self) -> None:
        named: set[tuple[str, str]] = set()
        for folder, _, files in os.walk(self._repositories):
            for name in files:
                if name.endswith(DRAFT_SUFFIX):
                    (Path(folder) / name).unlink(missing_ok=True)
            path = Path(folder)
            if path.parent.name in ("_blobs", "_manifests"):
                named.update((path.name, name) for name in files)
        for algorithm in ALGORITHMS:
            for blob in (self._blobs / algorithm).iterdir():
                if (algorithm, blob.name) not in named:
                    blob.unlink(missing_ok=True)

    # --- blobs

    def _write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data, 0o644, durable=True)

    def _blob(self, digest: str) -> Path:
        algorithm, digits = check_digest(digest)
        return self._blobs / algorithm / digits

    def _link(self, name: str, kind: str, digest: str) -> Path:
        algorithm, digits = check_digest(digest)
        return self._repositories / name / kind / algorithm / digits

    def has_blob(self, name: str, digest: str) -> bool:
        """Whether a repository may hand out a blob, and has it."""
        return self._link(name, "_blobs", digest).exists() and self._blob(digest).exists()

    def open_blob(self, name: str, digest: str) -> tuple[int, int]:
        """An open file and its size; the caller closes it. BLOB_UNKNOWN."""
        if not self._link(name, "_blobs", digest).exists():
            raise blob_unknown(digest)
        try:
            fd = os.open(self._blob(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise blob_unknown(digest) from None
        return fd, os.fstat(fd).st_size

    def adopt_blob(self, name: str, digest: str, upload: Path) -> None:
        """Make a verified, synced upload a blob of a repository."""
        target = self._blob(digest)
        if target.exists():
            upload.unlink(missing_ok=True)
        else:
            upload.rename(target)
            sync(target.parent)
        self.link_blob(name, digest)

    def link_blob(self, name: str, digest: str) -> None:
        """Let a repository hand out a stored blob."""
        link = self._link(name, "_blobs", digest)
        if not link.exists():
            self._write(link, b"")

    def delete_blob(self, name: str, digest: str) -> None:
        """Take a blob from a repository; its bytes go when no repository names them. BLOB_UNKNOWN."""
        try:
            self._link(name, "_blobs", digest).unlink()
        except FileNotFoundError:
            raise blob_unknown(digest) from None
        self._drop_if_unnamed(digest)

    def _drop_if_unnamed(self, digest: str) -> None:
        for name in self.repositories(with_manifests=False):
            for kind in ("_blobs", "_manifests"):
                if self._link(name, kind, digest).exists():
                    return
        self._blob(digest).unlink(missing_ok=True)

    # --- manifests and tags

    def resolve(self, name: str, reference: str) -> str:
        """The digest of a tag or digest. MANIFEST_UNKNOWN, NAME_UNKNOWN."""
        if ":" in reference:
            return reference
        try:
            return (self._repositories / name / "_tags" / reference).read_text()
        except FileNotFoundError:
            self._check_known(name)
            raise manifest_unknown(reference) from None

    def _check_known(self, name: str) -> None:
        if not (self._repositories / name / "_manifests").is_dir():
            raise name_unknown(name)

    def manifest(self, name: str, reference: str) -> StoredManifest:
        """A manifest by tag or digest. MANIFEST_UNKNOWN, NAME_UNKNOWN."""
        digest = self.resolve(name, reference)
        try:
            media_type = self._link(name, "_manifests", digest).read_text()
            data = self._blob(digest).read_bytes()
        except FileNotFoundError:
            self._check_known(name)
            raise manifest_unknown(reference) from None
        return StoredManifest(digest=digest, media_type=media_type, data=data)

    def put_manifest(self, name: str, manifest: StoredManifest, tags: tuple[str, ...]) -> None:
        """Store a manifest and point tags at it."""
        blob = self._blob(manifest.digest)
        if not blob.exists():
            self._write(blob, manifest.data)
        self._write(self._link(name, "_manifests", manifest.digest), manifest.media_type.encode())
        for tag in tags:
            self._write(self._repositories / name / "_tags" / tag, manifest.digest.encode())

    def delete_tag(self, name: str, tag: str) -> None:
        """Forget a tag; the manifest stays. MANIFEST_UNKNOWN, NAME_UNKNOWN."""
        self.resolve(name, tag)
        (self._repositories / name / "_tags" / tag).unlink(missing_ok=True)

    def delete_manifest(self, name: str, digest: str) -> None:
        """Forget a manifest, its tags, and what it refers to. MANIFEST_UNKNOWN, NAME_UNKNOWN."""
        found = self.manifest(name, digest)
        for tag in self._tag_files(name):
            with contextlib.suppress(FileNotFoundError):
                if tag.read_text() == digest:
                    tag.unlink()
        subject = subject_of(found.data)
        if subject is not None:
            self._referrer(name, subject, digest).unlink(missing_ok=True)
        self._link(name, "_manifests", digest).unlink(missing_ok=True)
        self._drop_if_unnamed(digest)

    def _tag_files(self, name: str) -> Iterator[Path]:
        folder = self._repositories / name / "_tags"
        if folder.is_dir():
            yield from (p for p in folder.iterdir() if not p.name.endswith(DRAFT_SUFFIX))

    def tags(self, name: str) -> list[str]:
        """All tags, sorted. NAME_UNKNOWN."""
        self._check_known(name)
        return sorted(path.name for path in self._tag_files(name))

    def repositories(self, *, with_manifests: bool = True) -> list[str]:
        """All repositories, sorted; by default those from which something can be pulled."""
        found = []
        for folder, children, _ in os.walk(self._repositories):
            path = Path(folder)
            kinds = [c for c in children if c.startswith("_")]
            children[:] = [c for c in children if not c.startswith("_")]
            if (not with_manifests and kinds) or (
                "_manifests" in kinds
                and any(any(algorithm.iterdir()) for algorithm in (path / "_manifests").iterdir())
            ):
                found.append(path)
        return sorted(str(path.relative_to(self._repositories)) for path in found)

    # --- referrers

    def _referrer(self, name: str, subject: str, digest: str) -> Path:
        algorithm, digits = check_digest(subject)
        folder = self._repositories / name / "_referrers" / algorithm / digits
        return folder / digest.replace(":", "-")

    def add_referrer(self, name: str, subject: str, descriptor: dict[str, Any]) -> None:
        """Remember that a manifest refers to another."""
        self._write(
            self._referrer(name, subject, descriptor["digest"]), json.dumps(descriptor).encode()
        )

    def referrers(self, name: str, subject: str) -> list[dict[str, Any]]:
        """Descriptors of what refers to a manifest, in the order of their digests."""
        folder = self._referrer(name, subject, "x").parent
        if not folder.is_dir():
            return []
        files = sorted(path for path in folder.iterdir() if not path.name.endswith(DRAFT_SUFFIX))
        return [json.loads(path.read_bytes()) for path in files]


def subject_of(data: bytes) -> str | None:
    """The digest that a stored manifest refers to."""
    subject = json.loads(data).get("subject")
    return subject.get("digest") if isinstance(subject, dict) else None
