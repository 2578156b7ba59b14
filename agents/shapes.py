"""The check that every formula makes on its arguments."""

from __future__ import annotations

from torch import Tensor


def same_shape(**tensors: Tensor) -> None:
    """Raise `ValueError` naming all shapes unless they are equal."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1:  # [B] beside [B, 1] would broadcast to [B, B] in silence
        raise ValueError(f"shapes must be equal, got {shapes}")
