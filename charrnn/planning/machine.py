"""What this process may use of its machine: cores and memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_CGROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """The number of cores that the process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_limit() -> int | None:
    """The most memory that the process can get, in bytes: of the machine, its cgroup and its rlimits the least.

    None if the system does not tell.
    """
    limits = [*_cgroup_limits()]
    with contextlib.suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(ImportError):  # nor rlimits
        import resource

        for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
            soft, _ = resource.getrlimit(kind)
            if soft != resource.RLIM_INFINITY:
                limits.append(soft)
    return min((limit for limit in limits if limit > 0), default=None)


def _cgroup_limits() -> Iterator[int]:
    """The limits of the process's control group and of those around it, Linux's versions 1 and 2."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if "memory" in controllers.split(","):
                root, name = _CGROUPS / "memory", "memory.limit_in_bytes"
            elif not controllers:
                root, name = _CGROUPS, "memory.max"
            else:
                continue
            path = PurePosixPath(group.lstrip("/"))
            for folder in (path, *path.parents):
                with contextlib.suppress(OSError, ValueError):  # not mounted there, or "max"
                    yield int((root / folder / name).read_text())
