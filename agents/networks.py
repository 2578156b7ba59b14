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

# (filters, kernel, stride) per layer, then the units of the fully connected layer.
TRUNKS = {
    # Mnih et al. 2013, used by Mnih et al. 2016 in its Atari-subset experiments (supplement 8).
    "mnih2013": (((16, 8, 4), (32, 4, 2)), 256),
    # Mnih et al. 2015, used by Mnih et al. 2016 in its 57-game runs (section 5.1).
    "nature": (((32, 8, 4), (64, 4, 2), (64, 3, 1)), 512),
}
# Whether weights are drawn anew, and not left as PyTorch has drawn them.
INITIALISATIONS = {"orthogonal": True, "torch": False}
# Whether each action has a bias of its own.
OUTPUT_BIASES = {"per_action": True, "shared": False}
# Of the gradient that two streams send back to the trunk: Wang et al. 2016, section 4.2.
DUELING_GRADIENT_SCALE = 1 / math.sqrt(2)


class ConvolutionalNetwork(nn.Module):
    """The trunk of every network: convolutions and a hidden layer, each with a ReLU.

    Args:
        trunk: a key of `TRUNKS`.
        observation_shape: of a stack of frames, (frames, height, width).
        streams: hidden layers side by side, laid out as one with so many times the units.
    """

    def __init__(
        self, trunk: str, observation_shape: tuple[int, int, int], streams: int = 1
    ) -> None:
        super().__init__()
        convolutions, self.units = choose("network", trunk, TRUNKS)
        channels, height, width = observation_shape
        found = []
        for filters, kernel, stride in convolutions:
            found.append(nn.Conv2d(channels, filters, kernel, stride))
            channels = filters
            height, width = (height - kernel) // stride + 1, (width - kernel) // stride + 1
        self.convolutions = nn.ModuleList(found)
        self.hidden = nn.Linear(channels * height * width, streams * self.units)

    def _orthogonal(self, gains: dict[nn.Module, float]) -> None:
        """Draw orthogonal weights, with gain sqrt 2 but for the heads in `gains`; no biases."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.orthogonal_(module.weight, gains.get(module, math.sqrt(2)))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def trunk(self, observation: Tensor) -> list[Tensor]:
        """Run the trunk: uint8 [N, 4, 84, 84] -> the output of each layer, at last [N, units]."""
        found = []
        x = observation if self.convolutions else observation.to(self.hidden.weight.dtype)
        for index, convolution in enumerate(self.convolutions):
            layer = layers.convolution_relu if index else layers.first_convolution_relu
            x = layer(x, convolution)
            found.append(x)
        found.append(layers.linear_relu(x.flatten(1), self.hidden))
        return found

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters behind the trunk."""
        trunk = {id(p) for part in (self.convolutions, self.hidden) for p in part.parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in trunk]

    def _backward(
        self,
        observation: Tensor,
        outputs: Sequence[Tensor],
        loss_of: Callable[[Tensor], Tensor],
        scale: float = 1.0,
    ) -> Tensor:
        """Write the gradient of loss_of(features) into the `grad` of all parameters.

        `outputs` is what `trunk` returned for the observation, at last the features; the loss is
        returned, 0-d. Autograd has only what is behind the trunk; see `_trunk_backward`.
        """
        features = outputs[-1].detach().requires_grad_()
        loss = loss_of(features)
        parameters = self.head_parameters()
        entering, *gradients = torch.autograd.grad(loss, [features, *parameters])
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad.copy_(gradient)
        self._trunk_backward(observation, outputs, entering, scale)
        return loss.detach()

    @torch.no_grad()
    def _trunk_backward(
        self,
        observation: Tensor,
        outputs: Sequence[Tensor],
        gradient: Tensor,
        scale: float = 1.0,
    ) -> None:
        """Write the gradient of the trunk's parameters into their `grad`, without autograd.

        Args:
            observation: [N, 4, 84, 84], of any dtype; converted by the caller once is faster.
            outputs: what `trunk` returned for it.
            gradient: of the last output, [N, units].
            scale: of the gradient that enters the last convolution.
        """
        inputs = [observation, *outputs[:-1]]
        flat = inputs[-1].flatten(1)
        gradient = layers.linear_relu_gradient(gradient, flat, outputs[-1], self.hidden)
        if scale != 1.0:
            gradient = gradient * scale
        gradient = gradient.view(inputs[-1].shape)
        for index in reversed(range(len(self.convolutions))):
            layer = (
                layers.convolution_relu_gradient
                if index
                else layers.first_convolution_relu_gradient
            )
            gradient = layer(gradient, inputs[index], outputs[index], self.convolutions[index])


class ActorCriticNetwork(ConvolutionalNetwork):
    """Policy and value of a stack of frames, on a shared trunk.

    Args:
        trunk: a key of `TRUNKS`.
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
        """`forward` without values: logits, next LSTM state, all layers' outputs for `backward`.

        The outputs of the LSTM come last: its gates and the next state.
        """
        outputs = self.trunk(observation)
        features = outputs[-1]
        if self.lstm is not None:
            state, gates = layers.lstm_step(features, state, self.lstm)
            outputs += [gates, *state]
            features = state[0]
        return self._policy(features), state, outputs

    def backward(
        self,
        observation: Tensor,
        state: LstmState | None,
        keep: Tensor,
        loss_of: Callable[[Tensor, Tensor], Tensor],
        outputs: Sequence[Sequence[Tensor]] | None = None,
    ) -> Tensor:
        """Write the gradient of a loss of T decisions into the `grad` of all parameters.

        Args:
            observation: uint8 [T, B, 4, 84, 84].
            state: of the LSTM before the first step.
            keep: 0 where an episode starts with that step, else 1, [T, B]: its LSTM state is
                cleared.
            loss_of: the loss (0-d), which is returned, of logits [T*B, A] and values [T*B].
            outputs: of each step's `decide`, if the same weights have decided already.
        """
        steps_and_lanes = observation.shape[:2]
        # As they lie, pixel by pixel: of some lanes of more, flattening would lay them out anew.
        stacks = observation.movedim(-3, -1).flatten(0, 1).movedim(-1, -3)
        stacks = stacks.to(layers.operand_dtype(self.hidden.weight))
        given, of_lstm = [], None
        if outputs is None:
            with torch.no_grad():
                given = self.trunk(stacks)
        else:
            given = [torch.cat(each) for each in zip(*outputs, strict=True)]
            depth = len(self.convolutions) + 1
            of_lstm = [part.unflatten(0, steps_and_lanes) for part in given[depth:]]
            given = given[:depth]

        def loss_of_features(features: Tensor) -> Tensor:
            if self.lstm is not None:
                x = features.unflatten(0, steps_and_lanes)
                features = layers.lstm(x, state, keep, self.lstm, of_lstm).flatten(0, 1)
            return loss_of(*self.heads(features))

        return self._backward(stacks, given, loss_of_features)


class ActionValueNetwork(ConvolutionalNetwork):
    """Action values Q(s, .) of a stack of frames; with `dueling`, from two streams.

    The streams, V and the advantages, are halves of one hidden layer: one matrix product.

    Args:
        trunk: a key of `TRUNKS`.
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
        found = []

        def loss_of_features(features: Tensor) -> Tensor:
            found.append(self.heads(features))
            return loss_of(found[0])

        scale = DUELING_GRADIENT_SCALE if self.dueling else 1.0
        loss = self._backward(observation, outputs, loss_of_features, scale)
        return loss, found[0].detach()

    def forward(self, observation: Tensor, state: None = None) -> tuple[Tensor, Tensor, None]:
        """One decision: uint8 [B, 4, 84, 84] -> Q(s, .) [B, A], max_a Q(s, a) [B], None."""
        q = self.q_values(observation)
        return q, q.amax(dim=1), None


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
