"""One measurement of ours in a process of its own: `python -m benchmarks.cases NAME --help`.

Prints one line of JSON: frames per second, frames of the window, peak memory in bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from agents import atari, layers, machine, methods
from agents.actor_critic import RolloutWorker
from agents.config import FRAMES_PER_STEP, MethodSettings, load_method
from agents.experience_replay import ExperienceReplay
from agents.lanes import TrainingLanes
from agents.optim import rmsprop_step
from agents.usage import usage

METHODS = Path(__file__).resolve().parents[1] / "config" / "methods"
PARTS = ("emulator", "inference", "learning", "plain_learning", "arithmetic")
REPLAY_PARTS = ("q_inference", "q_learning", "q_arithmetic")


def rate(step: Callable[[], float], seconds: float, warmup_seconds: float) -> dict[str, float]:
    """Call `step`, which returns the frames it was worth, for `seconds` after a warm-up."""
    begin = time.perf_counter()
    while time.perf_counter() - begin < warmup_seconds:
        step()
    frames, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        frames += step()
    elapsed = time.perf_counter() - begin
    return {"frames_per_second": frames / elapsed, "frames": frames}


def emulator(lanes: atari.AtariLanes) -> Callable[[], int]:
    """Random play: emulation, greying, scaling, stacking and new episodes, nothing else."""
    rng = np.random.default_rng(0)
    training = TrainingLanes(lanes, 0)
    training.start()

    def step() -> int:
        training.step(rng.integers(0, lanes.actions, lanes.lanes))
        return lanes.lanes * FRAMES_PER_STEP

    return step


def inference(worker: RolloutWorker) -> Callable[[], int]:
    """Logits and values of one decision in every lane."""
    worker.collect()
    observation = worker._observations[-1]

    @torch.inference_mode()
    def step() -> int:
        worker.network(observation)
        return len(observation) * FRAMES_PER_STEP

    return step


def learning(worker: RolloutWorker) -> Callable[[], int]:
    """Gradient of a rollout that has been played, the value after it, and the update."""
    worker.collect()
    square_average = torch.zeros_like(worker.flat.master)

    def step() -> int:
        worker._v_end = worker._value_of_next()
        worker.backward()
        gradient = worker.flat.gradient.float()
        rmsprop_step(worker.flat.master, gradient, square_average, 1e-9, 0.99, 1e-5, "outside_sqrt")
        worker.flat.publish()
        return worker.frames_per_rollout

    return step


def plain_learning(worker: RolloutWorker) -> Callable[[], int]:
    """The same by PyTorch's own layers, autograd and optimizer: forward and backward."""
    worker.collect()
    network, dtype = worker.network, next(worker.network.parameters()).dtype
    convolutions = [
        nn.Conv2d(c.in_channels, c.out_channels, c.kernel_size, c.stride)
        for c in network.convolutions
    ]
    hidden = nn.Linear(network.hidden.in_features, network.hidden.out_features)
    heads = nn.Linear(network.hidden.out_features, network.policy.out_features + 1)
    model = nn.ModuleList([*convolutions, hidden, heads]).to(dtype)
    optimizer = torch.optim.RMSprop(model.parameters(), 1e-9, 0.99, 1e-5)
    pixels = worker._observations.flatten(0, 1)

    def step() -> int:
        x = pixels.to(dtype) / 255
        for convolution in convolutions:
            x = functional.relu(convolution(x))
        out = heads(functional.relu(hidden(x.flatten(1)))).float()
        loss = out[:, -1].square().mean() - torch.log_softmax(out[:, :-1], 1)[:, 0].mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        return worker.frames_per_rollout

    return step


def q_inference(training: ExperienceReplay) -> Callable[[], int]:
    """Action values of one decision in every lane."""
    training.advance(10**12)

    def step() -> int:
        training._q(training._observation)
        return training.lanes.lanes * FRAMES_PER_STEP

    return step


def q_learning(training: ExperienceReplay) -> Callable[[], int]:
    """Gradient of a batch that has been drawn, and the update."""
    settings = training.settings
    while training.frames <= settings.learning_starts_frames:
        training.advance(10**12)
    batch = training._draw()

    def step() -> int:
        training.learn(batch)
        return settings.decisions_per_update * FRAMES_PER_STEP

    return step


def arithmetic(worker: RolloutWorker) -> Callable[[], float]:
    """The operations of `inference` and `learning`, all in products of large matrices."""
    return _products([inference(worker), learning(worker)], worker.network)


def q_arithmetic(training: ExperienceReplay) -> Callable[[], float]:
    """The operations of `q_inference` and `q_learning`, all in products of large matrices."""
    return _products([q_inference(training), q_learning(training)], training.network)


def _products(steps: list[Callable[[], int]], network: nn.Module) -> Callable[[], float]:
    """One product of two 1024x1024 matrices, worth the frames that the steps make of as much."""
    operations_per_frame = 0.0
    for step in steps:
        with FlopCounterMode(display=False) as counter:
            frames = step()
        operations_per_frame += counter.get_total_flops() / frames
    generator = torch.Generator().manual_seed(0)
    dtype = layers.operand_dtype(next(p for p in network.parameters() if p.dim() == 2))
    left, right = (torch.randn(1024, 1024, generator=generator).to(dtype) for _ in range(2))
    product = torch.empty_like(left)

    def step() -> float:
        torch.mm(left, right, out=product)
        return 2 * 1024**3 / operations_per_frame

    return step


def alone(
    name: str,
    settings: MethodSettings,
    game: str,
    threads: int,
    seconds: float,
    warmup_seconds: float,
) -> dict[str, float]:
    """Measure one of PARTS or of REPLAY_PARTS."""
    machine.prepare(threads)
    part = globals()[name]

    def make_lanes(lanes: int) -> atari.AtariLanes:
        return atari.AtariLanes(game, lanes, atari.protocol("noop"), threads)

    if name in REPLAY_PARTS:
        with tempfile.TemporaryDirectory() as folder:
            training = ExperienceReplay(settings, make_lanes, 0, 10**12, folder=Path(folder))
            return rate(part(training), seconds, warmup_seconds)
    lanes = make_lanes(settings.lanes)
    subject = lanes if part is emulator else RolloutWorker(settings, lanes, 0)
    return rate(part(subject), seconds, warmup_seconds)


def train(
    settings: MethodSettings, game: str, threads: int, seconds: float, warmup_seconds: float
) -> dict[str, float]:
    """Train as `agents.train` does, without its files."""
    processes, threads = methods.divide(settings, "cpu", threads)
    machine.prepare(threads)

    def make_lanes(lanes: int) -> atari.AtariLanes:
        return atari.AtariLanes(game, lanes, atari.protocol("noop"), threads)

    with tempfile.TemporaryDirectory() as folder:  # of a replay memory's frames
        training = methods.build(
            settings, make_lanes, 0, 10**12, folder=Path(folder), processes=processes
        )
        try:
            return _advance(training, settings, seconds, warmup_seconds)
        finally:
            training.close()


def _advance(
    training: methods.Training, settings: MethodSettings, seconds: float, warmup_seconds: float
) -> dict[str, float]:
    while training.frames <= getattr(settings, "learning_starts_frames", 0):
        training.advance(10**12)
    begin = time.perf_counter()
    while time.perf_counter() - begin < warmup_seconds:
        training.advance(10**12)
    # To the next whole update, which for REINFORCE is many episodes. A3C's processes act for a
    # while and then update many times: theirs is from standstill to standstill.
    stands_still = training.state if settings.topology == "async" else lambda: None
    stands_still()
    first, begin = training.frames, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        training.advance(10**12)
    stands_still()
    frames, elapsed = training.frames - first, time.perf_counter() - begin
    training.state()  # where processes say what they have cost
    memory = training.peak_memory_of_workers()
    return {"frames_per_second": frames / elapsed, "frames": frames, "workers_memory_bytes": memory}


def main() -> None:
    """Measure one case and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cases", description=__doc__)
    known = ", ".join(PARTS + REPLAY_PARTS)
    parser.add_argument("name", help=f"{known}, or a method of config/methods")
    parser.add_argument("--game", default="pong", help="(%(default)s)")
    parser.add_argument("--set", default="{}", dest="sets", help="settings to override, as JSON")
    parser.add_argument("--threads", type=int, default=1, help="cores of it (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10, help="measured (%(default)s)")
    parser.add_argument(
        "--warmup-seconds", type=float, default=3, help="before, not measured (%(default)s)"
    )
    parser.add_argument("--cores", help="pin to these, 0,1")
    options = parser.parse_args()
    if options.cores:
        os.sched_setaffinity(0, {int(core) for core in options.cores.split(",")})
    method = {**dict.fromkeys(PARTS, "a2c"), **dict.fromkeys(REPLAY_PARTS, "dqn")}
    settings = load_method(
        METHODS / f"{method.get(options.name, options.name)}.yaml", json.loads(options.sets)
    )
    window = options.seconds, options.warmup_seconds
    if options.name in method:
        found = alone(options.name, settings, options.game, options.threads, *window)
    else:
        found = train(settings, options.game, options.threads, *window)
    memory = usage()[1] + found.pop("workers_memory_bytes", 0)
    print(json.dumps({**found, "peak_memory_bytes": memory}))


if __name__ == "__main__":
    main()
