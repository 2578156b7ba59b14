"""Shapes of arguments: the check that every formula makes, and lanes set apart by worker."""

from __future__ import annotations

from torch import Tensor


def same_shape(**tensors: Tensor) -> None:
    """Raise `ValueError` naming all shapes unless they are equal."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1:  # [B] beside [B, 1] would broadcast to [B, B] in silence
        raise ValueError(f"shapes must be equal, got {shapes}")


def regroup(x: Tensor, parts: int) -> Tensor:
    """Return [S, P * L, ...] as [P, S * L, ...]: by lane first what was by step first, or back."""
    return x.unflatten(1, (parts, -1)).transpose(0, 1).flatten(1, 2)
