"""The network slot: a convolutional trunk, an optional LSTM, a policy head and a value head."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from agents import layers

# (filters, kernel, stride) per layer, then the units of the fully connected layer.
TRUNKS = {
    # Mnih et al. 2013, used by Mnih et al. 2016 in its Atari-subset experiments (supplement 8).
    "mnih2013": (((16, 8, 4), (32, 4, 2)), 256),
    # Mnih et al. 2015, used by Mnih et al. 2016 in its 57-game runs (section 5.1).
    "nature": (((32, 8, 4), (64, 4, 2), (64, 3, 1)), 512),
}
INITIALISATIONS = ("orthogonal", "torch")

LstmState = tuple[Tensor, Tensor]  # hidden and cell, [B, cells] each


class ActorCriticNetwork(nn.Module):
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
        super().__init__()
        convolutions, units = TRUNKS[trunk]
        channels, height, width = observation_shape
        found = []
        for filters, kernel, stride in convolutions:
            found.append(nn.Conv2d(channels, filters, kernel, stride))
            channels = filters
            height, width = (height - kernel) // stride + 1, (width - kernel) // stride + 1
        self.convolutions = nn.ModuleList(found)
        self.hidden = nn.Linear(channels * height * width, units)
        self.lstm = nn.LSTMCell(units, lstm_cells) if lstm_cells else None
        self.lstm_cells = lstm_cells
        self.policy = nn.Linear(lstm_cells or units, actions)
        self.value = nn.Linear(lstm_cells or units, 1)
        if initialisation == "orthogonal":
            self._orthogonal()

    def _orthogonal(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                gain = {self.policy: 0.01, self.value: 1.0}.get(module, math.sqrt(2))
                nn.init.orthogonal_(module.weight, gain)
                nn.init.zeros_(module.bias)
        if self.lstm is not None:
            nn.init.orthogonal_(self.lstm.weight_ih)
            nn.init.orthogonal_(self.lstm.weight_hh)
            nn.init.zeros_(self.lstm.bias_ih)
            nn.init.zeros_(self.lstm.bias_hh)

    @property
    def recurrent(self) -> bool:
        """Whether the network carries an LSTM state from step to step."""
        return self.lstm is not None

    def initial_state(self, batch: int) -> LstmState | None:
        """Return the LSTM state of an episode's start, zeros [B, cells], or None."""
        if self.lstm is None:
            return None
        like = self.policy.weight
        return like.new_zeros(batch, self.lstm_cells), like.new_zeros(batch, self.lstm_cells)

    def trunk(self, observation: Tensor, outputs: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Run the trunk: uint8 [N, 4, 84, 84] -> the output of each layer, at last [N, units].

        `outputs`: what this method returned for the same observations and weights. Nothing is
        computed then; the gradient flows through them.
        """
        given = outputs or [None] * (len(self.convolutions) + 1)
        found = []
        x = observation if self.convolutions else observation.to(self.hidden.weight.dtype)
        for index, convolution in enumerate(self.convolutions):
            layer = layers.convolution_relu if index else layers.first_convolution_relu
            x = layer(x, convolution, given[index])
            found.append(x)
        found.append(layers.linear_relu(x.flatten(1), self.hidden, given[-1]))
        return found

    def heads(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return float32 logits [N, A] and values [N]."""
        return self.policy(features).float(), self.value(features).squeeze(1).float()

    def forward(
        self, observation: Tensor, state: LstmState | None = None
    ) -> tuple[Tensor, Tensor, LstmState | None]:
        """One decision: uint8 [B, 4, 84, 84] -> logits [B, A], values [B], next LSTM state."""
        logits, values, state, _ = self.decide(observation, state)
        return logits, values, state

    def decide(
        self, observation: Tensor, state: LstmState | None = None
    ) -> tuple[Tensor, Tensor, LstmState | None, list[Tensor]]:
        """`forward`, and the outputs of the trunk's layers for `unroll`."""
        outputs = self.trunk(observation)
        features = outputs[-1]
        if self.lstm is not None:
            state = self.lstm(features, state)
            features = state[0]
        return *self.heads(features), state, outputs

    def unroll(
        self,
        observation: Tensor,
        state: LstmState | None,
        keep: Tensor,
        outputs: Sequence[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """T decisions at once, with gradient: uint8 [T, B, 4, 84, 84] -> [T*B, A], [T*B].

        `keep` [T, B] is 0 where an episode starts with that step: its LSTM state is cleared.
        `outputs` of the trunk's layers, [T*B, ...], if `decide` has computed them already.
        """
        steps, lanes = observation.shape[:2]
        features = self.trunk(observation.flatten(0, 1), outputs)[-1]
        if self.lstm is not None:
            hidden, cell = state
            outputs = []
            for t, x in enumerate(features.unflatten(0, (steps, lanes))):
                mask = keep[t].unsqueeze(1).to(x.dtype)
                hidden, cell = self.lstm(x, (hidden * mask, cell * mask))
                outputs.append(hidden)
            features = torch.cat(outputs)
        return self.heads(features)


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
