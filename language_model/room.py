"""How much memory is left on a device: what work beside the loaded model may take.

free_bytes(torch.device("cpu"))          # None where the device does not say
"""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
_FILES = {  # by version of Linux's control groups: limit, use, and the names of file pages that can be given up
    2: ("memory.max", "memory.current", ("inactive_file", "active_file")),
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
}


def free_bytes(device: torch.device) -> int | None:
    """Bytes that can still be had on ``device``; in main memory within the limits of the process's control groups."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    if device.type != "cpu":
        return None
    return min([int(psutil.virtual_memory().available), *_left_in_groups()])


def _left_in_groups() -> list[int]:
    """What the limits of the process's own group and of those around it leave (containers, systemd, batch systems)."""
    try:
        lines = _OWN.read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        version, root = (1, _GROUPS / "memory") if controllers else (2, _GROUPS)
        own = root / path.strip("/")
        for folder in (own, *(parent for parent in own.parents if parent.is_relative_to(root))):
            left = _left(folder, *_FILES[version])
            if left is not None:
                found.append(left)
    return found


def _left(folder: Path, limit: str, use: str, files: tuple[str, ...]) -> int | None:
    """What one group's limit leaves; pages of files count as free. None without a limit."""
    try:
        most = int((folder / limit).read_text(encoding="ascii"))  # "max" is no number
        used = int((folder / use).read_text(encoding="ascii"))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
        return max(0, most - used + sum(int(stat.get(name, 0)) for name in files))
    except (OSError, ValueError):
        return None
