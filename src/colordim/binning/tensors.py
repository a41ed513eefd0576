"""Which tensors can be counted, and as which values."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["as_real", "as_tensor", "flatten"]

# Plain storage of numbers of one byte or less, or of packed ones: no value to read off directly.
_OPAQUE = {
    dtype
    for name in ("bits8", "bits16", "bits1x8", "bits2x4", "bits4x2", "float4_e2m1fn_x2")
    if (dtype := getattr(torch, name, None)) is not None
}


def as_tensor(values: Any) -> Tensor:
    """Return a tensor of an array of another library, a list or a number, without a copy where possible.

    Arrays that can be exchanged (DLPack: JAX, CuPy, ...) stay on their device and keep their dtype, bfloat16 included.
    """
    if isinstance(values, Tensor):
        return values
    if hasattr(values, "__dlpack__") and not isinstance(values, np.ndarray):
        try:
            return torch.utils.dlpack.from_dlpack(values)
        except (BufferError, RuntimeError, TypeError):
            values = np.asarray(values)
    if isinstance(values, np.ndarray):
        return torch.from_numpy(
            values if values.flags.writeable else values.copy()
        )  # torch warns of what it cannot write
    return torch.as_tensor(values)


def flatten(tensor: Tensor) -> tuple[Tensor, int] | None:
    """Return the stored values of a tensor in one dimension, without a copy where possible.

    Parameters
    ----------
    tensor : Tensor
        Of any shape, dtype, layout and device; subclasses included.

    Returns
    -------
    (Tensor, int) or None
        The values, shape ``[n]``, detached, dtype unchanged (quantised ones dequantised to float32),
        in no particular order; and the number of zeros that a sparse tensor implies besides.
        None if the tensor has no values that could be read: meta, fake, inside a functorch
        transform, or of a packed dtype.
    """
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return None
    local = getattr(tensor, "to_local", None)
    if local is not None:  # DTensor: the local shard; shards of all ranks add up
        tensor = local()
    if tensor.device.type == "meta" or tensor.dtype in _OPAQUE:
        return None
    tensor = tensor.detach()
    if tensor.is_nested:
        parts = [part.reshape(-1) for part in tensor.unbind()]
        return (torch.cat(parts) if parts else tensor.new_empty(0)), 0
    if type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__:
        return None  # a wrapper whose memory is not the values it stands for
    if type(tensor) is not Tensor:
        tensor = tensor.as_subclass(Tensor)
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout is torch.sparse_coo:
        stored = tensor.coalesce().values()
        return stored.reshape(-1), tensor.numel() - stored.numel()
    if tensor.layout is not torch.strided:
        stored = tensor.values()
        return stored.reshape(-1), tensor.numel() - stored.numel()
    if tensor.is_conj() or tensor.is_neg():
        tensor = tensor.resolve_conj().resolve_neg()
    if tensor.is_contiguous():
        return tensor.reshape(-1), 0
    # Order does not matter for counting, so dense memory (channels last) is read as it lies.
    by_stride = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    return tensor.permute(by_stride).reshape(-1), 0


def as_real(values: Tensor) -> Tensor:
    """Return values as float32 or float64 such that no value changes.

    Half, bfloat16 and float8 become float32. Complex numbers are counted by their modulus, taken
    in float64. Integers and booleans become float64, where integers beyond 2**53 are rounded.
    """
    if values.dtype in (torch.float32, torch.float64):
        return values
    if values.dtype.is_complex:
        return values.to(torch.complex128).abs()
    if values.dtype.is_floating_point:
        return values.to(torch.float32)
    return values.to(torch.float64)
