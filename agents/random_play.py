"""Random play as a method: nothing is trained, every action is as likely as any other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from agents.config import RandomSettings
from agents.lanes import FinishedEpisode
from agents.training import Training


class ConstantPolicy(torch.nn.Module):
    """The same logits [A] whatever is observed; zeros are uniformly random play."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(logits, requires_grad=False)

    def initial_state(self, lanes: int) -> None:
        """Return no memory."""

    def forward(self, observation: Tensor, state: None) -> tuple[Tensor, None, None]:
        """Return logits [B, A] for observations [B, ...], no value and no memory."""
        return self.logits.expand(len(observation), -1), None, None


class RandomPlay(Training):
    """A training of zero frames: it only knows how many actions there are."""

    frames = 0

    def __init__(
        self,
        settings: RandomSettings,
        make_lanes: Callable[[int], Any],
        run_seed: int,
        budget_frames: int,
        device: str = "cpu",
    ) -> None:
        self._actions = make_lanes(1).actions

    def advance(self, until_frames: int) -> list[FinishedEpisode]:
        """Play nothing."""
        return []

    def policy(self) -> dict[str, Tensor]:
        """Return logits of zero: the softmax of equal numbers is uniform."""
        return {"policy.bias": torch.zeros(self._actions)}

    def state(self) -> dict[str, Any]:
        """Return nothing: there is nothing to go on with."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore nothing."""
