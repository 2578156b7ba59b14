"""One step of Q-learning from a batch of a replay memory: the gradient of its loss."""

from __future__ import annotations

import torch
from torch import Tensor

from agents import value_targets
from agents.config import GorilaSettings, ReplaySettings
from agents.networks import ActionValueNetwork
from agents.replay import Batch


def backward(
    settings: ReplaySettings | GorilaSettings,
    network: ActionValueNetwork,
    target_network: ActionValueNetwork,
    gradient: Tensor,
    batch: Batch,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Leave the gradient of the batch's loss in `gradient`, [P], where `network` keeps it.

    Returns the loss (0-d) and the errors y - Q(s, a), [N].
    """
    frames = torch.from_numpy(batch.frames).to(device)
    rewards = torch.from_numpy(batch.rewards).to(device, torch.float32)
    if settings.clip_rewards:
        rewards.clamp_(-1, 1)
    discount = settings.gamma * ~torch.from_numpy(batch.terminal).to(device)
    y = _target(settings, network, target_network, rewards, discount, frames[:, 1:])
    weights = torch.from_numpy(batch.weights).to(device, torch.float32)
    gradient.zero_()
    q = value_targets.action_value(
        network.q_values(frames[:, :-1]), torch.from_numpy(batch.actions).to(device)
    )
    loss = value_targets.clipped_error_loss(q, y, weights, settings.error_limit)
    if settings.loss_reduction == "mean":
        loss = loss / len(q)
    loss.backward()
    return loss.detach(), y - q.detach()


@torch.no_grad()  # not inference mode: its tensors may not enter the loss
def _target(
    settings: ReplaySettings | GorilaSettings,
    network: ActionValueNetwork,
    target_network: ActionValueNetwork,
    rewards: Tensor,
    discount: Tensor,
    s_next: Tensor,
) -> Tensor:
    q_next = target_network.q_values(s_next)
    if not settings.double:
        return value_targets.q_target(rewards, discount, q_next)
    q_online = network.q_values(s_next)
    return value_targets.double_q_target(rewards, discount, q_next, q_online)
