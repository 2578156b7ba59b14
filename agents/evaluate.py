"""Evaluate one milestone of a run: `python -m agents.evaluate --help`.

Plays a fixed set of episodes, each with a seed and a random stream of its own, and writes
`episodes.csv` (one row per episode) and `traces.npz` (what `agents.audit` replays).
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from agents import atari, checkpoint, files, machine, trace
from agents.networks import ActionValueNetwork, ActorCriticNetwork, network_of_weights
from agents.random_play import ConstantPolicy
from agents.seeding import derive_seed, numpy_generator
from agents.value_targets import epsilon_greedy

COLUMNS = (
    "method",
    "game",
    "seed",
    "milestone",
    "frames",
    "protocol",
    "episode",
    "episode_seed",
    "return",
    "length_frames",
    "ended",
)
ACTION_SELECTIONS = ("sample", "greedy")
Policy = ActorCriticNetwork | ActionValueNetwork | ConstantPolicy


@dataclass
class Evaluated:
    """One whole evaluation episode."""

    trace: trace.Trace
    episode_return: int
    ended: str

    @property
    def length_frames(self) -> int:
        return len(self.trace.actions) * atari.FRAMES_PER_STEP


class _Episode:
    """An episode in play: its number, its seed, its random stream, what it did so far."""

    def __init__(self, number: int, seed: int, name: tuple[int | str, ...]) -> None:
        self.number = number
        self.seed = derive_seed(*name, seed, "episode", number)
        self.uniform = numpy_generator(*name, seed, "actions", number)
        self.actions = bytearray()
        self.episode_return = 0


def choose_actions(
    logits: NDArray[np.float32], uniform: NDArray[np.float64] | None
) -> NDArray[np.int64]:
    """Actions [B] from logits [B, A]: sampled with one uniform number a lane, or greedy if None."""
    if uniform is None:
        return logits.argmax(axis=1)
    probability = np.exp(logits - logits.max(axis=1, keepdims=True))
    cumulative = np.cumsum(probability / probability.sum(axis=1, keepdims=True), axis=1)
    return (uniform[:, None] >= cumulative[:, :-1]).sum(axis=1)


@torch.inference_mode()
def play(
    network: Policy,
    env: atari.AtariLanes,
    episodes: int,
    seed: int,
    name: tuple[int | str, ...],
    sample: bool,
    epsilon: float | None = None,
) -> list[Evaluated]:
    """Play episodes 0..N-1, each to its end; return them in their order.

    Which lane plays an episode depends on how long the others last, but no episode is left out
    for being long: the set is fixed before the first begins. `name` names the random streams.
    `epsilon`: of a network of action values, whose random policy is epsilon-greedy.
    """
    device = next(network.parameters()).device
    waiting = [_Episode(number, seed, name) for number in reversed(range(episodes))]
    playing: list[_Episode | None] = [None] * env.lanes
    done: dict[int, Evaluated] = {}
    state = network.initial_state(env.lanes)
    restart = np.ones(env.lanes, bool)
    observation = None
    while len(done) < episodes:
        if restart.any():
            for lane in np.flatnonzero(restart).tolist():
                playing[lane] = waiting.pop() if waiting else None
                if state is not None:
                    state[0][lane] = state[1][lane] = 0
            seeds = [
                0 if playing[lane] is None else playing[lane].seed
                for lane in np.flatnonzero(restart)
            ]
            observation = env.reset(restart, seeds)
        logits, _, state = network(torch.from_numpy(observation).to(device), state)
        uniform = None
        if sample:
            uniform = np.array([0.0 if e is None else e.uniform.random() for e in playing])
        if epsilon is None or uniform is None:
            actions = choose_actions(logits.cpu().numpy(), uniform)
        else:
            actions = epsilon_greedy(logits.cpu().numpy(), epsilon, uniform)
        step = env.step(actions)
        observation = step.observation
        restart = step.terminated | step.truncated
        for lane, episode in enumerate(playing):
            if episode is None:
                continue
            episode.actions.append(int(actions[lane]))
            episode.episode_return += int(step.reward[lane])
            if restart[lane]:
                done[episode.number] = Evaluated(
                    trace.Trace(episode.seed, np.frombuffer(bytes(episode.actions), np.uint8)),
                    episode.episode_return,
                    "terminated" if step.terminated[lane] else "truncated",
                )
    return [done[number] for number in range(episodes)]


def load_policy(path: Path, device: str) -> tuple[dict, Policy]:
    """Read a milestone's policy; return what it says of itself and the network in float32.

    Weights may be in half precision, as `agents.export` writes them.
    """
    policy = checkpoint.load(path)
    if policy["settings"]["topology"] == "random":
        return policy, ConstantPolicy(policy["weights"]["policy.bias"].float()).to(device)
    network = network_of_weights(policy["settings"], policy["weights"])
    return policy, network.to(device).eval()


def write(
    out: Path, policy: dict, protocol: atari.Protocol, evaluated: list[Evaluated], options: dict
) -> None:
    """Write `traces.npz`, then `episodes.csv`."""
    header = {
        "game": policy["game"],
        "protocol": protocol.name,
        "method": policy["method"],
        "seed": policy["seed"],
        "milestone_frames": policy["milestone_frames"],
        "rom_md5": atari.rom_md5(policy["game"]),
        "ale_py": atari.version(),
        **options,
    }
    trace.save(out / "traces.npz", header, [episode.trace for episode in evaluated])
    buffer = io.StringIO()
    rows = csv.writer(buffer, lineterminator="\n")
    rows.writerow(COLUMNS)
    for number, episode in enumerate(evaluated):
        rows.writerow(
            [
                policy["method"],
                policy["game"],
                policy["seed"],
                policy["milestone_frames"],
                policy["frames"],
                protocol.name,
                number,
                episode.trace.episode_seed,
                episode.episode_return,
                episode.length_frames,
                episode.ended,
            ]
        )
    files.write_text(out / "episodes.csv", buffer.getvalue())


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m agents.evaluate", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished run")
    parser.add_argument(
        "--milestone-frames", type=int, required=True, help="a milestone of the run's record"
    )
    parser.add_argument("--episodes", type=int, default=30, help="how many (%(default)s)")
    parser.add_argument(
        "--action-selection",
        choices=ACTION_SELECTIONS,
        default="sample",
        help="draw actions from the policy, of action values with their evaluation_epsilon, or "
        "take the best (%(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=1000, help="of episodes and actions (%(default)s)"
    )
    parser.add_argument(
        "--lanes", type=int, default=8, help="episodes played at once (%(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, help="of the emulator (%(default)s)")
    parser.add_argument(
        "--device",
        default="auto",
        choices=("auto", "cpu", "cuda"),
        help="auto: the GPU where there is one (%(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for episodes.csv and traces.npz"
    )
    return parser.parse_args(arguments)


def evaluate(options: argparse.Namespace) -> list[Evaluated]:
    """Evaluate and write; a milestone that a diverged run never reached has no episodes."""
    for key in ("episodes", "lanes", "threads"):
        if getattr(options, key) < 1:
            raise ValueError(f"{key}: {getattr(options, key)} must be at least 1")
    if options.out.is_file():
        raise ValueError(f"out: {options.out} is a file; give a folder")
    if (options.out / "episodes.csv").exists():
        raise ValueError(
            f"out: {options.out} has an evaluation already; give another folder, or delete it first"
        )
    record_path = options.run / "run.json"
    record = checkpoint.read_record(record_path)
    kept = {m["milestone_frames"]: m for m in record["milestones"]}
    protocol = atari.protocol(record["protocol"])
    selection = {"action_selection": options.action_selection, "evaluation_seed": options.seed}
    if options.milestone_frames not in kept:
        if record["status"] == "diverged":
            policy = {key: record[key] for key in ("method", "game", "seed")}
            policy["milestone_frames"] = options.milestone_frames
            write(options.out, policy, protocol, [], selection)
            return []
        raise ValueError(
            f"milestone_frames: {options.milestone_frames} is not in {record_path}; "
            f"allowed: {', '.join(map(str, kept))}"
        )
    device = machine.choose_device(options.device)
    policy_path = options.run / kept[options.milestone_frames]["policy"]
    if not policy_path.exists():
        there = sorted(path.stem for path in policy_path.parent.glob("*.pt"))
        raise ValueError(
            f"milestone_frames: {options.milestone_frames}: {policy_path} is not there; "
            f"allowed: {', '.join(there) or 'none, this run has no policy'}"
        )
    policy, network = load_policy(policy_path, device)
    checkpoint.check_policy(policy, policy_path, record, options.milestone_frames)
    policy["method"] = policy["settings"]["method"]
    milestone = options.milestone_frames
    if policy["settings"]["topology"] == "random":
        selection["action_selection"] = "sample"  # the likeliest of equal logits is no random play
        milestone = 0  # the same policy at every milestone plays the same episodes
    epsilon = policy["settings"].get("evaluation_epsilon")  # of value-based methods
    if epsilon is not None and selection["action_selection"] == "sample":
        selection["evaluation_epsilon"] = epsilon
    env = atari.AtariLanes(
        policy["game"], min(options.lanes, options.episodes), protocol, options.threads
    )
    evaluated = play(
        network,
        env,
        options.episodes,
        options.seed,
        (policy["method"], policy["game"], policy["seed"], milestone),
        selection["action_selection"] == "sample",
        epsilon,
    )
    write(options.out, policy, protocol, evaluated, selection)
    return evaluated


def main(arguments: list[str] | None = None) -> int:
    """Evaluate; return 0, or 1 on bad input."""
    options = parse_arguments(arguments)
    torch.set_num_threads(1)
    machine.exact_float32()
    try:
        evaluated = evaluate(options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    returns = [episode.episode_return for episode in evaluated]
    mean = f"mean return {np.mean(returns):.2f}" if returns else "no policy: the run diverged"
    print(f"{options.run} at {options.milestone_frames} frames: {len(returns)} episodes, {mean}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
