import shutil
from pathlib import Path

import pytest
from left_behind import mark

from linkspan.plugins.oci_runtime.config import OciConfig
from linkspan.plugins.oci_runtime.driver import OciRuntime
from linkspan.sdk.testing.conformance.runtime import RuntimeConformance


@pytest.mark.system
class TestOciRuntime(RuntimeConformance):
    driver = OciRuntime

    @pytest.fixture(params=["crun", "runc"])
    def config(self, request: pytest.FixtureRequest) -> OciConfig:
        path = shutil.which(request.param, path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
        if path is None:
            pytest.skip(f"{request.param} is not installed")
        return OciConfig(runtime=path, cgroup_parent=f"/linkspan-{mark()}")

    @pytest.fixture
    def rootfs(self, busybox_rootfs: Path) -> Path:
        return busybox_rootfs
