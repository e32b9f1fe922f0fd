"""How much memory is left on a device: what work beside the loaded model may take.

free_bytes(torch.device("cpu"))          # None where the device does not say
"""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

_CGROUP = Path("/sys/fs/cgroup")  # version 2, as containers see their own


def free_bytes(device: torch.device) -> int | None:
    """Bytes that can still be had on ``device``; on the CPU within the limit of the container, if there is one."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    if device.type != "cpu":
        return None
    available = int(psutil.virtual_memory().available)
    left = _left_in_container(_CGROUP)
    return available if left is None else min(available, left)


def _left_in_container(folder: Path) -> int | None:
    """What a container's limit leaves; file pages that the kernel would drop count as free. None without a limit."""
    try:
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        used = int((folder / "memory.current").read_text(encoding="ascii"))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
        return None if limit == "max" else max(0, int(limit) - used + int(stat.get("inactive_file", 0)))
    except (OSError, ValueError):
        return None
