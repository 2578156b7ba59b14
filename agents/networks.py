"""The network slot: a convolutional trunk, and on it the heads of a policy or action values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from agents import layers, value_targets
from agents.choices import choose
from agents.config import GorilaSettings, ReplaySettings
from agents.layers import LstmState
from agents.shapes import regroup
from agents.trunk import ConvolutionalNetwork

# Whether weights are drawn anew, and not left as PyTorch has drawn them.
INITIALISATIONS = {"orthogonal": True, "torch": False}
# Whether each action has a bias of its own.
OUTPUT_BIASES = {"per_action": True, "shared": False}
# Of the gradient that two streams send back to the trunk: Wang et al. 2016, section 4.2.
DUELING_GRADIENT_SCALE = 1 / math.sqrt(2)


class ActorCriticNetwork(ConvolutionalNetwork):
    """Policy and value of a stack of frames, on a shared trunk.

    Args:
        trunk: a key of `trunk.TRUNKS`.
        actions: A, the number of actions.
        lstm_cells: LSTM cells between the trunk and the heads; 0 for a feed-forward network.
        initialisation: "orthogonal" (gain sqrt 2, policy head 0.01, value head 1) or "torch"
            (PyTorch's default). Random numbers come from torch's global generator.
    """

    def __init__(
        self,
        trunk: str,
        actions: int,
        lstm_cells: int = 0,
        initialisation: str = "orthogonal",
        observation_shape: tuple[int, int, int] = (4, 84, 84),
    ) -> None:
        super().__init__(trunk, observation_shape)
        units = self.units
        self.lstm = nn.LSTMCell(units, lstm_cells) if lstm_cells else None
        self.lstm_cells = lstm_cells
        self.policy = nn.Linear(lstm_cells or units, actions)
        self.value = nn.Linear(lstm_cells or units, 1)
        if choose("initialisation", initialisation, INITIALISATIONS):
            self._orthogonal({self.policy: 0.01, self.value: 1.0})
            if self.lstm is not None:
                nn.init.orthogonal_(self.lstm.weight_ih)
                nn.init.orthogonal_(self.lstm.weight_hh)
                nn.init.zeros_(self.lstm.bias_ih)
                nn.init.zeros_(self.lstm.bias_hh)

    def initial_state(self, batch: int) -> LstmState | None:
        """Return the LSTM state of an episode's start, zeros [B, cells], or None."""
        if self.lstm is None:
            return None
        like = self.policy.weight
        return like.new_zeros(batch, self.lstm_cells), like.new_zeros(batch, self.lstm_cells)

    def _policy(self, features: Tensor) -> Tensor:
        return layers.linear(features, self.policy).float()

    def heads(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return float32 logits [N, A] and values [N]."""
        return self._policy(features), layers.linear(features, self.value).squeeze(1).float()

    def forward(
        self, observation: Tensor, state: LstmState | None = None
    ) -> tuple[Tensor, Tensor, LstmState | None]:
        """One decision: uint8 [B, 4, 84, 84] -> logits [B, A], values [B], next LSTM state."""
        features = self.trunk(observation)[-1]
        if self.lstm is not None:
            state, _ = layers.lstm_step(features, state, self.lstm)
            features = state[0]
        return *self.heads(features), state

    def decide(
        self, observation: Tensor, state: LstmState | None = None
    ) -> tuple[Tensor, LstmState | None, list[Tensor]]:
        """`forward` without values: logits, next LSTM state, all layers' outputs for `gradients`.

        The outputs of the LSTM come last: its gates and the next state.
        """
        outputs = self.trunk(observation)
        features = outputs[-1]
        if self.lstm is not None:
            state, gates = layers.lstm_step(features, state, self.lstm)
            outputs += [gates, *state]
            features = state[0]
        return self._policy(features), state, outputs

    def gradients(
        self,
        observation: Tensor,
        state: LstmState | None,
        keep: Tensor,
        losses_of: Callable[[Tensor, Tensor], Tensor],
        workers: int = 1,
        outputs: Sequence[Sequence[Tensor]] | None = None,
    ) -> Callable[[int], Tensor]:
        """Return what writes the gradient of a worker's loss into the `grad` of all parameters.

        The B lanes are those of W workers, neighbours, each with as many; N is T * B / W. That
        function is of the worker's number, 0 to W - 1, and returns the loss, 0-d. Of one worker
        alone the trunk's gradient is written already here: call it at once. What is between the
        layers has its gradient computed here, for all workers in one batch, and without autograd,
        which has only the losses.

        Args:
            observation: uint8 [T, B, 4, 84, 84].
            state: of the LSTM before the first step.
            keep: 0 where an episode starts with that step, else 1, [T, B]: its LSTM state is
                cleared.
            losses_of: the losses [W] of logits [W, N, A] and values [W, N], each step by step.
            workers: W.
            outputs: of each step's `decide`, if the same weights have decided already.
        """
        # As they lie, pixel by pixel: of some lanes of more, flattening would lay them out anew.
        stacks = regroup(observation.movedim(-3, -1), workers).flatten(0, 1).movedim(-1, -3)
        stacks = stacks.to(layers.operand_dtype(self.hidden.weight))
        with torch.no_grad():
            given, recurrent = self._given(stacks, state, keep, workers, outputs)
            features = given[-1]
            if recurrent is not None:
                features = regroup(recurrent.hidden, workers).flatten(0, 1)
            heads = [part.unflatten(0, (workers, -1)) for part in self.heads(features)]
        logits, values = (part.detach().requires_grad_() for part in heads)
        losses = losses_of(logits, values)
        of_logits, of_values = (
            part.flatten(0, 1).to(features.dtype)
            for part in torch.autograd.grad(losses.sum(), [logits, values])
        )
        of_values = of_values.unsqueeze(1)
        with torch.no_grad():
            entering = layers.linear_input_gradient(of_logits, self.policy)
            entering += layers.linear_input_gradient(of_values, self.value)
            of_lstm: list[Tensor] = []
            if recurrent is not None:
                by_step = regroup(entering.unflatten(0, (workers, -1)), len(observation))
                sums = layers.lstm_sums_gradient(by_step, recurrent, self.lstm)
                parts = (sums, recurrent.hidden_before)
                of_lstm = [given[-1], *(regroup(part, workers).flatten(0, 1) for part in parts)]
                entering = layers.lstm_input_gradient(of_lstm[1], self.lstm)
            write_trunk = self.trunk_gradients(stacks, given, entering, workers)

        @torch.no_grad()
        def write(worker: int) -> Tensor:
            def own(x: Tensor) -> Tensor:
                return x.unflatten(0, (workers, -1))[worker]

            layers.linear_gradient(own(of_logits), own(features), self.policy)
            layers.linear_gradient(own(of_values), own(features), self.value)
            if recurrent is not None:
                layers.lstm_gradient(*(own(part) for part in of_lstm), self.lstm)
            write_trunk(worker)
            return losses[worker].detach()

        return write

    def _given(
        self,
        stacks: Tensor,
        state: LstmState | None,
        keep: Tensor,
        workers: int,
        outputs: Sequence[Sequence[Tensor]] | None,
    ) -> tuple[list[Tensor], layers.LstmSteps | None]:
        """Return the trunk's outputs, worker by worker, and what the LSTM was and is, step by step.

        Computed from `stacks` [W * N, 4, 84, 84], unless `outputs` has them.
        """
        depth = len(self.convolutions) + 1
        if outputs is None:
            given = self.trunk(stacks)
            found = None
        else:
            of_layers = list(zip(*outputs, strict=True))
            given = [_join_steps(layer, workers) for layer in of_layers[:depth]]
            found = [torch.stack(part) for part in of_layers[depth:]]
        if self.lstm is None:
            return given, None
        if found is None:
            x = regroup(given[-1].unflatten(0, (workers, -1)), len(keep))
            found = layers.lstm(x, state, keep, self.lstm)
        return given, layers.LstmSteps.of(*found, state, keep)

    def backward(
        self,
        observation: Tensor,
        state: LstmState | None,
        keep: Tensor,
        loss_of: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """Write the gradient of a loss of T * B steps, which is returned; see `gradients`.

        `loss_of`: the loss (0-d) of logits [T * B, A] and values [T * B].
        """

        def losses_of(logits: Tensor, values: Tensor) -> Tensor:
            return loss_of(logits[0], values[0]).unsqueeze(0)

        return self.gradients(observation, state, keep, losses_of)(0)


class ActionValueNetwork(ConvolutionalNetwork):
    """Action values Q(s, .) of a stack of frames; with `dueling`, from two streams.

    The streams, V and the advantages, are halves of one hidden layer: one matrix product.

    Args:
        trunk: a key of `trunk.TRUNKS`.
        actions: A, the number of actions.
        dueling: whether Q is V plus advantages (Wang et al. 2016), on two hidden layers.
        output_bias: "per_action", or "shared": one number for all (van Hasselt et al. 2016). An
            advantage has none then: their mean, which is subtracted, would take it away.
        initialisation: "orthogonal" (gain sqrt 2, heads 1) or "torch" (PyTorch's default).
    """

    def __init__(
        self,
        trunk: str,
        actions: int,
        dueling: bool = False,
        output_bias: str = "per_action",
        initialisation: str = "torch",
        observation_shape: tuple[int, int, int] = (4, 84, 84),
    ) -> None:
        super().__init__(trunk, observation_shape, streams=2 if dueling else 1)
        self.dueling = dueling
        per_action = choose("output_bias", output_bias, OUTPUT_BIASES)
        self.q = nn.Linear(self.units, actions, bias=per_action)
        self.shared_bias = None
        if dueling:
            self.value = nn.Linear(self.units, 1)
        elif not per_action:
            bound = 1 / math.sqrt(self.units)
            self.shared_bias = nn.Parameter(torch.empty(1).uniform_(-bound, bound))
        if choose("initialisation", initialisation, INITIALISATIONS):
            self._orthogonal({self.q: 1.0} | ({self.value: 1.0} if dueling else {}))
            if self.shared_bias is not None:
                nn.init.zeros_(self.shared_bias)

    def initial_state(self, batch: int) -> None:
        """Nothing is carried from step to step."""
        return None

    def q_values(self, observation: Tensor) -> Tensor:
        """Return Q(s, .): uint8 [N, 4, 84, 84] -> float32 [N, A]."""
        return self.heads(self.trunk(observation)[-1])

    def heads(self, features: Tensor) -> Tensor:
        """Return Q(s, .), float32 [N, A], of the trunk's last output, [N, streams * units]."""
        if self.dueling:
            for_value, for_advantage = features.split(self.units, dim=1)
            v = layers.linear(for_value, self.value).float()
            advantage = layers.linear(for_advantage, self.q).float()
            return value_targets.dueling_q(v.squeeze(1), advantage)
        q = layers.linear(features, self.q).float()
        return q if self.shared_bias is None else q + self.shared_bias.float()

    def backward(
        self, observation: Tensor, loss_of: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Write the gradient of loss_of(Q(s, .)) into the `grad` of all parameters.

        Into the convolutions it is scaled where two streams enter. Returns the loss (0-d) and
        Q(s, .), [N, A].
        """
        observation = observation.to(layers.operand_dtype(self.hidden.weight))
        with torch.no_grad():
            outputs = self.trunk(observation)
        features = outputs[-1].detach().requires_grad_()
        q = self.heads(features)
        loss = loss_of(q)
        parameters = self.head_parameters()
        entering, *gradients = torch.autograd.grad(loss, [features, *parameters])
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad.copy_(gradient)
        scale = DUELING_GRADIENT_SCALE if self.dueling else 1.0
        self.trunk_gradients(observation, outputs, entering, scale=scale)(0)
        return loss.detach(), q.detach()

    def forward(self, observation: Tensor, state: None = None) -> tuple[Tensor, Tensor, None]:
        """One decision: uint8 [B, 4, 84, 84] -> Q(s, .) [B, A], max_a Q(s, a) [B], None."""
        q = self.q_values(observation)
        return q, q.amax(dim=1), None


def _join_steps(steps: Sequence[Tensor], workers: int) -> Tensor:
    """Return T outputs [B, ...] of a layer, of the lanes of W workers, as [W * T * B / W, ...].

    Those of a convolution lie pixel by pixel, as its kernels have left them.
    """
    images = steps[0].dim() == 4
    parts = [(x.movedim(1, -1) if images else x).unflatten(0, (workers, -1)) for x in steps]
    joined = torch.cat(parts, dim=1).flatten(0, 1)
    return joined.movedim(-1, 1) if images else joined


def build_network(
    trunk: str,
    actions: int,
    lstm_cells: int,
    initialisation: str,
    seed: int,
    observation_shape: tuple[int, int, int] = (4, 84, 84),
) -> ActorCriticNetwork:
    """Build the network with weights drawn from `seed`; torch's global generator is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ActorCriticNetwork(trunk, actions, lstm_cells, initialisation, observation_shape)


def build_action_values(
    settings: ReplaySettings | GorilaSettings,
    actions: int,
    seed: int,
    observation_shape: tuple[int, int, int] = (4, 84, 84),
) -> ActionValueNetwork:
    """Build the network of a value-based method, as `build_network`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ActionValueNetwork(
            settings.network,
            actions,
            settings.dueling,
            settings.output_bias,
            settings.initialisation,
            observation_shape,
        )


def network_of_weights(
    settings: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> ActorCriticNetwork | ActionValueNetwork:
    """Return the network that a policy's `settings` describe, in float32, with its `weights`."""
    if "q.weight" in weights:
        network = ActionValueNetwork(
            settings["network"],
            weights["q.weight"].shape[0],
            settings["dueling"],
            settings["output_bias"],
        )
    else:
        actions = weights["policy.bias"].numel()
        network = ActorCriticNetwork(settings["network"], actions, settings["lstm_cells"], "torch")
    network.load_state_dict({name: value.float() for name, value in weights.items()})
    return network
