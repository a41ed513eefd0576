"""Run the Triton kernel where there is no GPU; used by test_triton.py in a process of its own.

``python drive_triton.py count``, with TRITON_INTERPRET=1, counts tricky tensors in Triton's interpreter and checks them
against the reference. ``python drive_triton.py compile`` compiles the kernel for GPUs that are not there.
"""

import math
import os
import sys

import numpy as np
import torch

from colordim.axis import Axis, LinearAxis, SignedLogAxis
from colordim.binning import Row, reference, triton

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2]
AXES: list[Axis] = [
    SignedLogAxis(0),
    SignedLogAxis(3),
    LinearAxis(-10, 10, 200),
    LinearAxis(0, 1, 1),
    LinearAxis(-7, -2, 50),
    LinearAxis(1e6, 1e6 + 1, 1000),
    LinearAxis(0, 1e-310, 5),
    LinearAxis(-8e307, 8e307, 10),
    SignedLogAxis(8),  # more slots than the kernel has
]


def tricky(rng: np.random.Generator, axis: Axis, n: int, dtype: torch.dtype) -> torch.Tensor:
    some = rng.choice(axis.edges, size=64)
    pool = np.concatenate(
        [
            rng.normal(scale=4, size=60),
            rng.normal(scale=10.0 ** rng.uniform(-14, 9), size=20),
            some,
            np.nextafter(some, rng.choice([-np.inf, np.inf], size=64)),
            [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-46, -1e-46, 5e-324, -5e-324, 1e39, -1e39, 1e300],
            [2.0**24, -(2.0**24), 2.0**-40, 2.0**-41, 1e-40, -1e-40, 1.17549435e-38, 65504.0, 448.0, 1 - 1e-12],
        ]
    )
    return torch.tensor(rng.choice(pool, size=n)).to(dtype)


def check(tensor: torch.Tensor, axis: Axis) -> None:
    got, want = Row.new(axis, tensor.device), Row.new(axis, tensor.device)
    for _ in range(2):  # rows add up
        assert triton.bin_into(tensor, axis, got)
        assert reference.bin_into(tensor, axis, want)
    np.testing.assert_array_equal(got.counts.numpy(), want.counts.numpy(), f"{axis} {tensor.dtype}")
    assert got.moments[2:].tolist() == want.moments[2:].tolist()
    values = tensor.to(torch.float64).numpy()
    finite = values[np.isfinite(values)]
    for moment, terms in zip(got.moments.tolist(), (finite, finite**2), strict=False):
        total = 2 * np.abs(terms).sum()
        if math.isfinite(total):
            assert abs(moment - 2 * math.fsum(terms)) <= 1e-12 * total + 1e-300, (axis, tensor.dtype)


def count() -> None:
    assert os.environ.get("TRITON_INTERPRET") == "1"
    rng = np.random.default_rng(9)
    checked = 0
    np.seterr(all="ignore")
    triton.MOST_PROGRAMS = 4  # so that a program takes more than one block
    for axis in AXES:
        for dtype in DTYPES:
            for n in (0, 1, 1023, 5000):
                check(tricky(rng, axis, n, dtype), axis)
                checked += 1

    sys.stdout.write(f"{checked} tensors counted\n")


def compile_ahead() -> None:
    from triton import compile as compile_kernel
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    compiled = 0
    for capability in (75, 90):
        for axis in (SignedLogAxis(3), LinearAxis(-10, 10, 200)):
            for dtype, kind in (("fp32", "float32"), ("fp16", "float32"), ("i16", "bfloat16"), ("fp64", "float64")):
                constants = {**triton.constants(axis), "kind": kind, "block": triton.BLOCK}
                pointers = {"values": f"*{dtype}", "n": "i32", "edges": "*fp64", "row": "*i64", "partial": "*fp64"}
                signature = {**pointers, **dict.fromkeys(constants, "constexpr")}
                source = ASTSource(triton._count, signature, constexprs=constants)
                assert compile_kernel(source, target=GPUTarget("cuda", capability, 32)).asm["cubin"]
                compiled += 1
        signature = {"partial": "*fp64", "programs": "i32", "moments": "*fp64", "width": "constexpr"}
        source = ASTSource(triton._add_moments, signature, constexprs={"width": triton.MOST_PROGRAMS})
        assert compile_kernel(source, target=GPUTarget("cuda", capability, 32)).asm["cubin"]
        compiled += 1
    sys.stdout.write(f"{compiled} kernels compiled\n")


if __name__ == "__main__":
    {"count": count, "compile": compile_ahead}[sys.argv[1]]()
