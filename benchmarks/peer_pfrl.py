"""PFRL's A3C in its own environment: prints one line of JSON as `benchmarks.cases` does.

Run by `benchmarks.speed` with the Python of that environment; imports nothing of this project. Its
agent, optimizer and processes as in its published A3C, with the Nature network. The games
come from gymnasium: PFRL's own wrappers need a gym that stopped before Python 3.11.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import threading
import time

WORKERS = 16


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=["a3c_ff"])
    parser.add_argument("--game", default="Pong")
    parser.add_argument("--threads", type=int, default=1, help="taken for the peers' sake: unused")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--warmup-seconds", type=float, default=3)
    parser.add_argument("--cores")
    options = parser.parse_args()
    if options.cores:
        os.sched_setaffinity(0, {int(core) for core in options.cores.split(",")})
    os.environ["OMP_NUM_THREADS"] = "1"

    import ale_py
    import gymnasium
    import numpy as np
    import pfrl
    import torch
    from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation
    from pfrl import experiments
    from pfrl.agents import a3c
    from pfrl.optimizers import SharedRMSpropEpsInsideSqrt
    from pfrl.policies import SoftmaxCategoricalHead
    from torch import multiprocessing, nn

    torch.set_num_threads(1)
    gymnasium.register_envs(ale_py)

    class Env:
        """One game, with the four results of a step that PFRL expects."""

        def __init__(self, seed: int) -> None:
            env = gymnasium.make(f"{options.game}NoFrameskip-v4")
            self.env = FrameStackObservation(AtariPreprocessing(env, noop_max=30), 4)
            self.seed: int | None = seed
            self.action_space = env.action_space

        def reset(self):
            observation = self.env.reset(seed=self.seed)[0]
            self.seed = None
            return observation

        def step(self, action):
            observation, reward, terminated, truncated, _ = self.env.step(action)
            return observation, np.sign(reward), terminated, {"needs_reset": truncated}

        def close(self) -> None:
            self.env.close()

    actions = Env(0).action_space.n
    model = nn.Sequential(
        nn.Conv2d(4, 32, 8, stride=4), nn.ReLU(),
        nn.Conv2d(32, 64, 4, stride=2), nn.ReLU(),
        nn.Conv2d(64, 64, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(),
        pfrl.nn.Branched(
            nn.Sequential(nn.Linear(512, actions), SoftmaxCategoricalHead()), nn.Linear(512, 1)
        ),
    )  # fmt: skip
    optimizer = SharedRMSpropEpsInsideSqrt(model.parameters(), lr=7e-4, eps=1e-1, alpha=0.99)
    agent = a3c.A3C(
        model,
        optimizer,
        t_max=20,  # as config/methods/a3c_ff.yaml has it
        gamma=0.99,
        beta=1e-2,
        phi=lambda frames: np.asarray(frames, np.float32) / 255,
        max_grad_norm=40.0,
    )
    decisions, stop = multiprocessing.Value("l", 0, lock=False), multiprocessing.Event()

    def count(env: Env, agent: a3c.A3C, total: int) -> None:
        # Without a lock a late process may set it back, by no more steps than there are processes.
        decisions.value = total

    found: dict[str, float] = {}

    def watch() -> None:
        while not decisions.value:
            time.sleep(0.01)
        time.sleep(options.warmup_seconds)
        begin, before = time.perf_counter(), decisions.value
        time.sleep(options.seconds)
        frames = (decisions.value - before) * 4
        found.update(frames_per_second=frames / (time.perf_counter() - begin), frames=frames)
        stop.set()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    with tempfile.TemporaryDirectory() as folder:
        experiments.train_agent_async(
            folder,
            WORKERS,
            lambda number, test: Env(number),
            steps=10**12,
            eval_interval=None,
            agent=agent,
            global_step_hooks=[count],
            random_seeds=list(range(WORKERS)),  # Python's own: `random` refuses NumPy's integers
            stop_event=stop,
        )
    watcher.join()
    # Of every process alone, with the pages that they share: as if none were shared.
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    found["peak_memory_bytes"] = largest * WORKERS
    print(json.dumps(found))


if __name__ == "__main__":
    main()
