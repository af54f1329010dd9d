"""Settings of the driver: ``[runtime.oci]``."""

from linkspan.sdk.values import frozen


@frozen(kw_only=True)
class OciConfig:
    """Settings of the ``oci`` runtime.

    Attributes:
        runtime: ``auto`` (crun, else runc), or the path of an OCI runtime.
        conmon: ``auto`` (looked up in the PATH), or the path of conmon.
        init: ``auto`` (docker-init or tini from the PATH), or the path of an init program for ``--init``.
        cgroup_parent: Containers' cgroups are made below this one.
        keep_warm: While requests arrive, move a parked process between two cgroups, so that the kernel
            does not put every start through a grace period of 6 to 16 ms.
        seccomp_profile: Path of a profile in Docker's format; empty means the one in the box.
        no_new_privileges: Set the flag for every container.
    """

    runtime: str = "auto"
    conmon: str = "auto"
    init: str = "auto"
    cgroup_parent: str = "/linkspan"
    keep_warm: bool = True
    seccomp_profile: str = ""
    no_new_privileges: bool = False
