"""An nft that cannot be used, said so instead of died of."""

from pathlib import Path

import pytest

from linkspan.plugins.bridge_network.nftables import open_nftables
from linkspan.sdk.errors import NotUsable


def test_rules_that_this_nft_dies_of_are_told_before_they_end_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nft"
    program.write_text("#!/bin/sh\nkill -SEGV $$\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(NotUsable) as caught:
        open_nftables(owning=True)
    assert "which a newer nft has written" in caught.value.message
    assert "Segmentation fault" in caught.value.message
    assert "remove them" in caught.value.help
