"""What depends on the frames trained so far, and the check that a run is still finite."""

from __future__ import annotations

import torch

from agents.choices import choose
from agents.config import GorilaSettings, MethodSettings, PolicySettings, ReplaySettings

# What is left of the learning rate, by the share of the budget that is used up.
LEARNING_RATE_SCHEDULES = {
    "constant": lambda used: 1.0,
    "linear_to_zero": lambda used: max(0.0, 1.0 - used),
}


class Diverged(Exception):
    """The loss or the weights stopped being finite; the message says which."""


def learning_rate(settings: MethodSettings, frames: int, budget_frames: int) -> float:
    """Return the learning rate after `frames` of `budget_frames`.

    `linear_to_zero` falls over the run's own budget (Mnih et al. 2016, supplement 8).
    """
    name = "learning_rate_schedule"
    left = choose(name, settings.learning_rate_schedule, LEARNING_RATE_SCHEDULES)
    return settings.learning_rate * left(frames / budget_frames)


def warmup(settings: GorilaSettings, updates: int) -> float:
    """Return the share of the learning rate for the update after `updates`: linear up to 1.

    AdaGrad's first steps are of the rate's size in every weight, whatever the gradient.
    """
    return min(1.0, (updates + 1) / max(1, settings.learning_rate_warmup_updates))


def exploration(settings: ReplaySettings, frames: int) -> float:
    """Return epsilon after `frames`: linear from start to end, from where learning starts."""
    past = max(0, frames - settings.learning_starts_frames) / settings.epsilon_anneal_frames
    return _between(settings.epsilon_start, settings.epsilon_end, past)


def exploration_of_server(settings: GorilaSettings, updates: int) -> float:
    """Return Gorila's epsilon after `updates` of its server: linear from start to end."""
    past = updates / settings.epsilon_anneal_updates
    return _between(settings.epsilon_start, settings.epsilon_end, past)


def importance_exponent(settings: ReplaySettings, frames: int) -> float:
    """Return beta after `frames`: linear up to 1 (Schaul et al. 2016, section 3.4)."""
    share = frames / settings.importance_anneal_frames
    return _between(settings.importance_exponent_start, 1.0, share)


def _between(start: float, end: float, share: float) -> float:
    return start + (end - start) * min(1.0, share)


def require_finite(**values: torch.Tensor) -> None:
    """Raise `Diverged` naming the first value (0-d tensor) that is not finite."""
    for name, value in values.items():
        if not torch.isfinite(value):
            raise Diverged(f"{name} is {value.item()}")


def corrected_update(settings: PolicySettings, updates: int) -> int | None:
    """Number of the update after `updates` others, for RMSProp's bias correction; None without."""
    return updates + 1 if settings.rmsprop_bias_correction else None
