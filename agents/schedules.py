"""What depends on the frames trained so far, and the check that a run is still finite."""

from __future__ import annotations

import torch

from agents.config import MethodSettings


class Diverged(Exception):
    """The loss or the weights stopped being finite; the message says which."""


def learning_rate(settings: MethodSettings, frames: int, budget_frames: int) -> float:
    """Return the learning rate after `frames` of `budget_frames`.

    `linear_to_zero` falls over the run's own budget (Mnih et al. 2016, supplement 8).
    """
    if settings.learning_rate_schedule == "constant":
        return settings.learning_rate
    return settings.learning_rate * max(0.0, 1.0 - frames / budget_frames)


def require_finite(**values: torch.Tensor) -> None:
    """Raise `Diverged` naming the first value (0-d tensor) that is not finite."""
    for name, value in values.items():
        if not torch.isfinite(value):
            raise Diverged(f"{name} is {value.item()}")
