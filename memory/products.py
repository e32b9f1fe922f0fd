"""Products of matrices for queries, computed by torch.

The sentence encoder runs on torch's threads. NumPy has threads of its own that go on spinning for a while after each
product, and an encoder pass beside them took several times as long on 2 cores. One pool of threads for both ends that.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def product(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """``left @ right``."""
    import torch  # here, because importing it takes a second that not every command has to wait

    out: NDArray[np.float32] = torch.matmul(torch.from_numpy(left), torch.from_numpy(right)).numpy()
    return out
