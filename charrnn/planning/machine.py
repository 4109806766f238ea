"""The machine's class, and the cores and memory that this process may use: all read from the system, none timed."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

CPUINFO = Path("/proc/cpuinfo")
NVIDIA = Path("/proc/driver/nvidia/version")
LOADED = Path("/etc/ld.so.cache")  # the libraries that the loader finds
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


def machine_class(device: str | None = None) -> str:
    """The class of the machine, which a run's defaults depend on: `gpu`, `bfloat16`, `avx512` or `other`.

    `bfloat16` is a processor with bfloat16 products. Only Linux reports what a processor supports.

    Args:
        device: `cpu` ignores a GPU; `gpu` is one.
    """
    if device == "gpu":
        return "gpu"
    hides_gpus = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if device != "cpu" and not hides_gpus and NVIDIA.exists() and _cuda_is_installed():
        return "gpu"
    with contextlib.suppress(OSError):
        flags = set(CPUINFO.read_text(encoding="utf-8", errors="replace").split())
        if flags & {"avx512_bf16", "amx_bf16"}:
            return "bfloat16"
        if "avx512f" in flags:
            return "avx512"
    return "other"


def _cuda_is_installed() -> bool:
    """Whether CUDA's libraries are there: as Python packages, by the extra charrnn[cuda], or where the loader looks."""
    if importlib.util.find_spec("nvidia") is not None:
        return True
    folders = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    if any(any(Path(folder).glob("libcudart.so*")) for folder in folders if folder):
        return True
    with contextlib.suppress(OSError):
        return b"libcudart.so" in LOADED.read_bytes()
    return False


def usable_cores(processes: int = 1) -> int:
    """The number of cores that this process may use, or its share of them beside others like it; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *_quotas()]) // processes)


def _quotas() -> Iterator[int]:
    """The processor time that this process's control groups grant it, in cores, rounded up."""
    for folder in _control_groups("cpu"):
        with contextlib.suppress(OSError, ValueError):  # not mounted there, or "max"
            quota, period = (int(number) for number in (folder / "cpu.max").read_text().split())
            yield -(-quota // period)
        with contextlib.suppress(OSError, ValueError):
            quota, period = (int((folder / f"cpu.cfs_{what}_us").read_text()) for what in ("quota", "period"))
            if quota > 0:
                yield -(-quota // period)


def memory_limit() -> int | None:
    """The memory that this process can get, in bytes: the lowest limit of the machine, its cgroup and its rlimits.

    None if the system does not report it.
    """
    limits: list[int] = []
    for folder in _control_groups("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):  # not mounted there, or "max"
                limits.append(int((folder / name).read_text()))
    with contextlib.suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(ImportError):  # Windows has no rlimits either
        import resource

        for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
            soft, _ = resource.getrlimit(kind)
            if soft != resource.RLIM_INFINITY:
                limits.append(soft)
    return min((limit for limit in limits if limit > 0), default=None)


def _control_groups(controller: str) -> Iterator[Path]:
    """The folders of this process's control group and its ancestors, for Linux cgroup versions 1 and 2."""
    with contextlib.suppress(OSError, ValueError):
        for line in OWN_CGROUPS.read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            root = CGROUPS / controller if controllers else CGROUPS
            path = PurePosixPath(group.lstrip("/"))
            yield from (root / folder for folder in (path, *path.parents))
