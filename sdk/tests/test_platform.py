"""Platforms against 91 cases computed with containerd/platforms."""

import json
from pathlib import Path
from typing import Any

import pytest

from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.model.image import Descriptor, Platform
from linkspan.sdk.platform import (
    host_platform,
    match_rank,
    normalize_platform,
    parse_platform,
    rank_platforms,
    select_manifest,
)

CASES = json.loads((Path(__file__).parent / "data/platform-match.json").read_text())["cases"]
HOST = Platform(os="linux", architecture="amd64")
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def name_of(case: dict[str, Any]) -> str:
    return case.get("input") or f"{case.get('want')}-{case.get('mode')}"


@pytest.mark.parametrize("case", [c for c in CASES if c["kind"] == "parse"], ids=name_of)
def test_a_platform_parses_as_containerd_parses_it(case: dict[str, Any]) -> None:
    if "error" in case:
        with pytest.raises(InvalidArgument) as caught:
            parse_platform(case["input"], host=HOST)
        assert caught.value.code == "invalid_platform"
        return
    found = parse_platform(case["input"], host=HOST)
    expected = case["expected"]
    assert found == Platform(
        os=expected["os"],
        architecture=expected["architecture"],
        variant=expected.get("variant", ""),
        os_version=expected.get("os.version", ""),
    )
    assert str(normalize_platform(found)) == case["normalized"]


@pytest.mark.parametrize("case", [c for c in CASES if c["kind"] == "select"], ids=name_of)
def test_candidates_are_ranked_as_containerd_ranks_them(case: dict[str, Any]) -> None:
    wanted = parse_platform(case["want"], host=HOST)
    candidates = [(parse_platform(text, host=HOST), text) for text in case["candidates"]]
    ranked = rank_platforms(wanted, candidates, strict=case["mode"] == "strict")
    assert ranked == case["acceptable_in_order"]


def descriptor(digit: str, platform: Platform | None, media_type: str = OCI_MANIFEST) -> Descriptor:
    return Descriptor(
        media_type=media_type, digest=f"sha256:{digit * 64}", size_bytes=1, platform=platform
    )


def test_an_index_entry_with_the_platform_wins_over_one_without() -> None:
    bare, named = descriptor("a", None), descriptor("b", HOST)
    assert select_manifest(HOST, [bare, named]) == named
    assert select_manifest(HOST, [bare]) == bare


def test_attestations_and_foreign_entries_are_passed_over() -> None:
    attestation = descriptor("a", Platform(os="unknown", architecture="unknown"))
    foreign = descriptor("b", HOST, "application/vnd.example.thing")
    assert select_manifest(HOST, [attestation, foreign]) is None


def test_the_host_serves_itself() -> None:
    assert match_rank(host_platform(), host_platform(), strict=True) == 0
