"""What counting costs on a GPU, against reading the same tensors and against the training itself.

Measures as ``colordim doctor --gpu`` does, over more sizes, dtypes and networks. Without a GPU it says so and succeeds.
"""

from __future__ import annotations

import sys

import torch

from colordim.binning import device as on_device
from colordim.doctor import AXES, Check, backends, check_counts, check_waiting, cost, examine, speed

SIZES = (1_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
DTYPES = ("float32", "bfloat16", "float16", "float64")
NETWORKS = ((16, 64), (64, 128), (128, 512))  # width, batch size


def show(check: Check) -> bool:
    """Print one line of the report; return whether it is not wrong."""
    print(check, flush=True)
    return check.passed is not False


def main() -> int:
    """Print the report; return 1 if anything in it is wrong."""
    if not torch.cuda.is_available():
        print("There is no GPU here: nothing was measured.")
        return 0
    gpu = torch.device("cuda")
    examine(False, print)
    fine = True
    for name, count in backends():
        fine &= show(check_counts(f"counts, {name}", count, gpu, 3_000_017))
        fine &= show(check_waiting(f"no waiting, {name}", count, gpu))
        for axis in AXES[:2]:
            for dtype in DTYPES:
                for size in SIZES:
                    fine &= show(speed(f"{name}, {axis}, {size:,} {dtype}", count, gpu, size, axis=axis, dtype=dtype))
    for choice in ("torch", "triton"):
        on_device.use_backend(choice)
        name, _ = on_device.backend()
        for width, size in NETWORKS:
            fine &= show(cost(f"training, width {width}, batch {size}, {name}", gpu, width=width, size=size, rounds=20))
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
