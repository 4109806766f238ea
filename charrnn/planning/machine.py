"""What this process may use of its machine: its class, its cores and its memory. All of it is read, none timed."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

CPUINFO = Path("/proc/cpuinfo")
NVIDIA = Path("/proc/driver/nvidia/version")
_CGROUPS = Path("/sys/fs/cgroup")


def machine_class(device: str | None = None) -> str:
    """What a run's defaults depend on of the machine: `gpu`, `bfloat16`, `avx512` or `other`.

    `bfloat16` is a processor with products of bfloat16. Only Linux tells what a processor has.

    Args:
        device: `cpu` leaves a GPU out.
    """
    if device != "cpu" and NVIDIA.exists() and importlib.util.find_spec("nvidia") is not None:
        return "gpu"  # and CUDA's libraries, which the extra charrnn[cuda] installs
    with contextlib.suppress(OSError):
        flags = set(CPUINFO.read_text(encoding="utf-8", errors="replace").split())
        if flags & {"avx512_bf16", "amx_bf16"}:
            return "bfloat16"
        if "avx512f" in flags:
            return "avx512"
    return "other"


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
