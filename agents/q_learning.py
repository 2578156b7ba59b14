"""One step of Q-learning from a batch of a replay memory: the gradient of its loss."""

from __future__ import annotations

import torch
from torch import Tensor

from agents import stacks, value_targets
from agents.choices import loss_divisor
from agents.config import GorilaSettings, ReplaySettings
from agents.networks import ActionValueNetwork
from agents.replay import Batch


def backward(
    settings: ReplaySettings | GorilaSettings,
    network: ActionValueNetwork,
    target_network: ActionValueNetwork,
    batch: Batch,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Leave the gradient of the batch's loss in the `grad` of `network`'s parameters.

    Returns the loss (0-d) and the errors y - Q(s, a), [N].
    """
    s, s_next = stacks.neighbours(batch.frames, device)
    rewards = torch.from_numpy(batch.rewards).to(device, torch.float32)
    if settings.clip_rewards:
        rewards.clamp_(-1, 1)
    discount = settings.gamma * ~torch.from_numpy(batch.terminal).to(device)
    y = _target(settings, network, target_network, rewards, discount, s_next)
    weights = torch.from_numpy(batch.weights).to(device, torch.float32)
    actions = torch.from_numpy(batch.actions).to(device)

    def loss_of(q: Tensor) -> Tensor:
        q_taken = value_targets.action_value(q, actions)
        loss = value_targets.clipped_error_loss(q_taken, y, weights, settings.error_limit)
        return loss / loss_divisor(settings.loss_reduction, len(q))

    loss, q = network.backward(s, loss_of)
    return loss, y - value_targets.action_value(q, actions)


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
