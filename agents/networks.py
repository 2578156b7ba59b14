"""The network slot: a convolutional trunk, an optional LSTM, a policy head and a value head."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

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
        layers = []
        for filters, kernel, stride in convolutions:
            layers.append(nn.Conv2d(channels, filters, kernel, stride))
            channels = filters
            height, width = (height - kernel) // stride + 1, (width - kernel) // stride + 1
        self.convolutions = nn.ModuleList(layers)
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

    def features(self, observation: Tensor) -> Tensor:
        """Run the trunk: uint8 [N, 4, 84, 84] -> [N, units]."""
        x = observation.to(self.hidden.weight.dtype)
        for index, convolution in enumerate(self.convolutions):
            weight = convolution.weight
            if index == 0:  # scaling the weights instead of the pixels saves a pass over them
                weight = weight * (1 / 255)
            x = functional.conv2d(x, weight, convolution.bias, convolution.stride)
            x = functional.relu_(x)
        return functional.relu_(self.hidden(x.flatten(1)))

    def heads(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return float32 logits [N, A] and values [N]."""
        return self.policy(features).float(), self.value(features).squeeze(1).float()

    def forward(
        self, observation: Tensor, state: LstmState | None = None
    ) -> tuple[Tensor, Tensor, LstmState | None]:
        """One decision: uint8 [B, 4, 84, 84] -> logits [B, A], values [B], next LSTM state."""
        features = self.features(observation)
        if self.lstm is not None:
            state = self.lstm(features, state)
            features = state[0]
        return *self.heads(features), state

    def unroll(
        self, observation: Tensor, state: LstmState | None, keep: Tensor
    ) -> tuple[Tensor, Tensor]:
        """T decisions at once, with gradient: uint8 [T, B, 4, 84, 84] -> [T*B, A], [T*B].

        `keep` [T, B] is 0 where an episode starts with that step: its LSTM state is cleared.
        """
        steps, lanes = observation.shape[:2]
        features = self.features(observation.flatten(0, 1))
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
