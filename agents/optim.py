"""Parameters as one flat vector, and the two forms of RMSProp of the papers on it.

Copying, clipping and updating are then a handful of vector operations, whatever the number of
tensors; an A3C worker shares one vector of weights and one of statistics.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from agents.choices import choose

# Of the network's arithmetic, by the name of a method's `precision`.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Whether RMSProp's epsilon is inside, by the name of a method's `rmsprop_epsilon_place`.
INSIDE = {"inside_sqrt": True, "outside_sqrt": False}


class FlatParameters:
    """Lays the parameters of `module` and their gradients out in one vector each.

    `module` computes in `dtype` on `device`; `master` holds the weights in float32 (the same
    memory when `dtype` is float32).

    Attributes:
        master: float32 weights, [P].
        gradient: gradients in `dtype`, [P]; a network writes them.
    """

    def __init__(
        self, module: nn.Module, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> None:
        module.to(device)
        parameters = list(module.parameters())
        self.size = sum(parameter.numel() for parameter in parameters)
        self.master = torch.empty(self.size, device=device)
        self.compute = (
            self.master
            if dtype == torch.float32
            else torch.empty(self.size, dtype=dtype, device=device)
        )
        self._parameters = parameters
        self._shapes = {name: p.shape for name, p in module.named_parameters()}
        offset = 0
        for parameter in parameters:
            self._view(self.master, offset, parameter.shape).copy_(parameter.detach())
            parameter.data = self._view(self.compute, offset, parameter.shape)
            offset += parameter.numel()
        self.keep_gradient_in(torch.zeros(self.size, dtype=dtype, device=device))
        self.publish()

    def keep_gradient_in(self, gradient: Tensor) -> None:
        """Make `gradient` [P], of the network's dtype, the memory of the gradients."""
        self.gradient, offset = gradient, 0
        for parameter in self._parameters:
            parameter.grad = self._view(gradient, offset, parameter.shape)
            offset += parameter.numel()

    @staticmethod
    def _view(flat: Tensor, offset: int, shape: torch.Size) -> Tensor:
        return flat[offset : offset + shape.numel()].view(shape)

    def publish(self, weights: Tensor | None = None) -> None:
        """Give the network the float32 weights of `master`, or `weights` [P] of another's."""
        if weights is not None:
            self.compute.copy_(weights)
        elif self.compute is not self.master:
            self.compute.copy_(self.master)

    def state_dict(self, flat: Tensor | None = None) -> dict[str, Tensor]:
        """Return float32 copies by parameter name, of `flat` [P] or of `master`."""
        flat = self.master if flat is None else flat
        state, offset = {}, 0
        for name, shape in self._shapes.items():
            view = self._view(flat, offset, shape)
            state[name] = view.detach().cpu().contiguous().clone()
            offset += shape.numel()
        return state


def rmsprop_step(
    weights: Tensor,
    gradient: Tensor,
    square_average: Tensor,
    learning_rate: float,
    decay: float,
    epsilon: float,
    epsilon_place: str,
    corrected_update: int | None = None,
    divisor: Tensor | None = None,
) -> None:
    """RMSProp, not centred; in place, all tensors [P].

        g <- alpha g + (1 - alpha) dtheta^2
        theta <- theta - eta dtheta / sqrt(g + epsilon)      `inside_sqrt`
        theta <- theta - eta dtheta / (sqrt(g) + epsilon)    `outside_sqrt`

    The place matters: an epsilon of 1e-5 inside is one of 3e-3 outside where g is small.

    dtheta is `gradient` over `divisor` (0-d, see `clipping_divisor`), and is left in `gradient`.

    g starts at 0, so the first step is 1 / sqrt(1 - alpha) times eta, 10 for 0.99. With the
    number k of this update, from 1, as `corrected_update` it is eta: g / (1 - alpha^k) takes the
    place of g below the fraction line.

    Source: Mnih et al. 2016, equations (8) and (9), inside; PyTorch's RMSprop, outside; the
    correction is that of Adam, Kingma and Ba 2015, section 3.
    """
    inside = choose("rmsprop_epsilon_place", epsilon_place, INSIDE)

    def step(theta: Tensor, d: Tensor, g: Tensor) -> None:
        # Adam without a first moment (beta 0) is this RMSProp, past all bias correction the one
        # without, and PyTorch has Adam in one pass over the memory. `d` stands in for the first
        # moment: with beta 0 it is written over with itself.
        torch._fused_adam_(
            [theta],
            [d],
            [d],
            [g],
            [],
            [torch.tensor(float(corrected_update or 1e9), device=theta.device)],
            lr=learning_rate,
            beta1=0.0,
            beta2=decay,
            weight_decay=0.0,
            eps=0.0 if inside else epsilon,
            amsgrad=False,
            maximize=False,
            grad_scale=divisor,
        )

    if not inside:
        return step(weights, gradient, square_average)
    # Adam's epsilon is outside: one inside is a part of the average that it is given. Not of the
    # average itself, which other processes may be reading.
    part = epsilon * (1.0 if corrected_update is None else 1 - decay**corrected_update)
    for with_epsilon, theta, d, g in _chunks(weights, gradient, square_average):
        torch.add(g, part / decay, out=with_epsilon)
        step(theta, d, with_epsilon)
        torch.sub(with_epsilon, part, out=g)


CHUNK = 1 << 18  # parameters; smaller ones stay in a core's cache, but each call costs 4 us


def _chunks(*vectors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield an empty chunk, the same each time, and a chunk of each vector, one after the other.

    On a CPU memory would be read again for each of several operations on whole vectors.
    """
    size = vectors[0].numel() if vectors[0].is_cuda else CHUNK
    empty = torch.empty_like(vectors[0][:size])
    for parts in zip(*(vector.split(size) for vector in vectors), strict=True):
        yield empty[: len(parts[0])], *parts


def centred_rmsprop_step(
    weights: Tensor,
    gradient: Tensor,
    average: Tensor,
    square_average: Tensor,
    learning_rate: float,
    decay: float,
    epsilon: float,
    epsilon_place: str,
) -> None:
    """RMSProp divided by the gradient's deviation, not its size; in place, all tensors [P].

        m <- alpha m + (1 - alpha) dtheta
        g <- alpha g + (1 - alpha) dtheta^2
        theta <- theta - eta dtheta / sqrt(g - m^2 + epsilon)      `inside_sqrt`
        theta <- theta - eta dtheta / (sqrt(g - m^2) + epsilon)    `outside_sqrt`

    `gradient` may be of a lower precision: it is taken as float32.

    Source: Mnih et al. 2015, whose "gradient momentum" is alpha of m (the step is along dtheta,
    not m), "squared gradient momentum" alpha of g, "min squared gradient" epsilon, inside.
    """
    inside = choose("rmsprop_epsilon_place", epsilon_place, INSIDE)
    for scale, theta, part, m, g in _chunks(weights, gradient, average, square_average):
        d = part.float()
        m.lerp_(d, 1 - decay)
        g.mul_(decay).addcmul_(d, d, value=1 - decay)
        # Rounding may leave less than nothing where the gradient has hardly changed.
        torch.addcmul(g, m, m, value=-1, out=scale).clamp_(min=0)
        if inside:
            scale.add_(epsilon).rsqrt_()
        else:
            scale.sqrt_().add_(epsilon).reciprocal_()
        theta.addcmul_(d, scale, value=-learning_rate)


def clipping_divisor(norm: Tensor, norm_limit: float) -> Tensor:
    """Return what a gradient of the L2 norm `norm` is divided by to have at most `norm_limit`.

    Both are 0-d tensors; at least 1, and 1 with a limit of 0, which stands for none.
    """
    if not norm_limit:
        return torch.ones_like(norm)
    return ((norm + 1e-6) / norm_limit).clamp(min=1.0)


def clip_gradient(gradient: Tensor, norm_limit: float) -> Tensor:
    """Clip `gradient` [P] in place to the L2 norm `norm_limit`, 0 for none; return its norm before.

    The norm is a 0-d tensor and is not finite if any element is not: check it before the gradient
    is used.
    """
    norm = torch.linalg.vector_norm(gradient)
    divisor = clipping_divisor(norm, norm_limit)
    if gradient.is_cuda or divisor != 1:  # a GPU would be waited for
        gradient.div_(divisor)
    return norm
