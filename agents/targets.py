"""The formulas of the lecture: tensors in, tensors out, in the lecture's symbols.

Time runs along the first axis, lanes along the second: [T] or [T, B]. R_t is the reward that
follows the action a_t, gamma the discount. Nothing here keeps state or draws random numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agents.shapes import same_shape

__all__ = [
    "action_log_probability",
    "advantage",
    "discounted_reward_to_go",
    "entropy",
    "n_step_return",
    "one_step_target",
    "policy_gradient_loss",
    "reward_to_go",
    "total_return",
    "value_loss",
]


def _powers(gamma: float, like: Tensor) -> Tensor:
    exponents = torch.arange(like.shape[0], dtype=torch.float64)
    powers = torch.pow(torch.tensor(gamma, dtype=torch.float64), exponents)
    return powers.to(like).reshape(-1, *[1] * (like.dim() - 1))


def total_return(r: Tensor, gamma: float) -> Tensor:
    """Return of the whole trajectory, the same for each of its actions.

        G(tau) = sum_{k=0..T} gamma^k R_k

    Args:
        r: rewards of one whole episode, [T] or [T, B].
        gamma: discount in [0, 1].

    Returns:
        G(tau) at every t, shape of `r`.

    Source: lecture, "REINFORCE (1992)"; Williams 1992.
    """
    return (_powers(gamma, r) * r).sum(dim=0, keepdim=True).expand_as(r)


def discounted_reward_to_go(r: Tensor, gamma: float) -> Tensor:
    """Return from t on, discounted from t.

        G_t = sum_{k=t..T} gamma^{k-t} R_k

    Args:
        r: rewards of one whole episode, [T] or [T, B].
        gamma: discount in [0, 1].

    Returns:
        G_t, shape of `r`. The lecture's gradient weighs it by gamma^t; "let's ignore gamma^t"
        uses it as it is.

    Source: lecture, "A Closer Look at PG".
    """
    g, to_go = torch.zeros_like(r), torch.zeros_like(r[0])
    for t in reversed(range(r.shape[0])):
        to_go = r[t] + gamma * to_go
        g[t] = to_go
    return g


def reward_to_go(r: Tensor, gamma: float) -> Tensor:
    """Return from t on, discounted from the start of the episode.

        sum_{k=t..T} gamma^k R_k = gamma^t G_t

    Args:
        r: rewards of one whole episode, [T] or [T, B].
        gamma: discount in [0, 1].

    Returns:
        gamma^t G_t, shape of `r`: the action a_t influences only the rewards from t on.

    Source: lecture, "Variance Reduction".
    """
    return _powers(gamma, r) * discounted_reward_to_go(r, gamma)


def n_step_return(r: Tensor, discount: Tensor, v_end: Tensor) -> Tensor:
    """Return of up to n steps, bootstrapped with the value of the state after the last.

        G_t = R_t + discount_t G_{t+1},   G_T = V(s_T)

    Args:
        r: rewards, [T, B]. Where an episode was cut by the frame cap, gamma V(s') of the state
            before the cut has been added by the caller.
        discount: gamma, or 0 where the episode ended with that step, [T, B].
        v_end: V(s_T) of the state after the last step, [B].

    Returns:
        G_t, [T, B]. No gradient flows through it.

    Source: lecture, "A3C: n-step advantage estimation"; Mnih et al. 2016, algorithm S3.
    """
    same_shape(r=r, discount=discount)
    same_shape(r_last=r[-1], v_end=v_end)
    g, g_next = torch.empty_like(r), v_end.detach()
    for t in reversed(range(r.shape[0])):
        g_next = r[t] + discount[t] * g_next
        g[t] = g_next
    return g.detach()


def one_step_target(r: Tensor, discount: Tensor, v_next: Tensor) -> Tensor:
    """Temporal-difference target of the one-step actor-critic.

        y_t = R_t + discount_t V(s_{t+1})

    Args:
        r: rewards, any shape.
        discount: gamma, or 0 where the episode ended with that step, shape of `r`.
        v_next: V(s_{t+1}) by the network before the update ("not a target network"), same shape.

    Returns:
        y_t, shape of `r`. No gradient flows through it.

    Source: lecture, "Actor-Critic" and "Advantage Actor-Critic".
    """
    same_shape(r=r, discount=discount, v_next=v_next)
    return (r + discount * v_next).detach()


def advantage(g: Tensor, v: Tensor) -> Tensor:
    """Advantage estimate: how much better the return was than the state's value.

        A(s_t, a_t) = G_t - V(s_t)

    Args:
        g: return estimate, any shape.
        v: V(s_t), same shape.

    Returns:
        A, same shape. No gradient flows through it: the baseline is not trained by the policy.

    Source: lecture, "Variance Reduction: Baseline".
    """
    same_shape(g=g, v=v)
    return (g - v).detach()


def action_log_probability(logits: Tensor, a: Tensor) -> Tensor:
    """Log-probability of the actions taken.

        log pi(a_t | s_t) = logits[a_t] - logsumexp(logits)

    Args:
        logits: unnormalised log-probabilities, [..., A].
        a: actions, int64 [...].

    Returns:
        log pi(a_t | s_t), [...].
    """
    return torch.log_softmax(logits, dim=-1).gather(-1, a.unsqueeze(-1)).squeeze(-1)


def policy_gradient_loss(log_pi: Tensor, weight: Tensor) -> Tensor:
    """Loss whose gradient is minus the policy gradient, summed.

        L = - sum_t log pi(a_t | s_t) w_t

    Args:
        log_pi: log pi(a_t | s_t), [N] or [W, N].
        weight: return or advantage, same shape; taken as a constant.

    Returns:
        L, summed over the last axis: a scalar, or [W] of W workers.

    Source: lecture, "REINFORCE (1992)" (w = return) and "Actor-Critic" (w = advantage).
    """
    same_shape(log_pi=log_pi, weight=weight)
    return -(log_pi * weight.detach()).sum(-1)


def value_loss(v: Tensor, target: Tensor) -> Tensor:
    """Squared error of the value estimate, summed.

        L = sum_t (y_t - V(s_t))^2

    Args:
        v: V(s_t), [N] or [W, N].
        target: y_t, same shape; taken as a constant.

    Returns:
        L, summed over the last axis: a scalar, or [W] of W workers.

    Source: lecture, "Advantage Actor-Critic", policy evaluation.
    """
    same_shape(v=v, target=target)
    return (target.detach() - v).square().sum(-1)


def entropy(logits: Tensor) -> Tensor:
    """Entropy of the policy in each state, in nats.

        H(pi(. | s)) = - sum_a pi(a | s) log pi(a | s)

    Args:
        logits: unnormalised log-probabilities, [..., A].

    Returns:
        H, [...].

    Source: lecture, "Entropy Regularisation"; Mnih et al. 2016, section 4.
    """
    log_pi = torch.log_softmax(logits, dim=-1)
    return -(log_pi.exp() * log_pi).sum(dim=-1)
