"""Stable-Baselines3 in its own environment: prints one line of JSON as `benchmarks.cases` does.

Run by `benchmarks.speed` with the Python of that environment; imports nothing of this project.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=["a2c", "dqn"])
    parser.add_argument("--game", default="Pong")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--warmup-seconds", type=float, default=3)
    parser.add_argument("--cores")
    options = parser.parse_args()
    if options.cores:
        os.sched_setaffinity(0, {int(core) for core in options.cores.split(",")})

    import ale_py
    import gymnasium
    import torch
    from stable_baselines3 import A2C, DQN
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_atari_env
    from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
    from stable_baselines3.common.vec_env import VecFrameStack

    torch.set_num_threads(options.threads)
    gymnasium.register_envs(ale_py)
    lanes = {"a2c": 16, "dqn": 1}[options.name]
    env = make_atari_env(f"{options.game}NoFrameskip-v4", n_envs=lanes, seed=0)
    env = VecFrameStack(env, n_stack=4)
    if options.name == "a2c":
        model = A2C(
            "CnnPolicy",
            env,
            n_steps=5,
            ent_coef=0.01,
            vf_coef=0.25,
            policy_kwargs={"optimizer_class": RMSpropTFLike, "optimizer_kwargs": {"eps": 1e-5}},
            device="cpu",
        )
        learning_starts = 0
    else:
        learning_starts = 1_000
        model = DQN(
            "CnnPolicy",
            env,
            buffer_size=100_000,
            batch_size=32,
            learning_starts=learning_starts,
            train_freq=4,
            gradient_steps=1,
            target_update_interval=1_000,
            device="cpu",
        )

    class Window(BaseCallback):
        first: tuple[float, int] | None = None
        begin: float | None = None
        last = (0.0, 0)

        def _on_step(self) -> bool:
            now = time.perf_counter()
            if self.num_timesteps > learning_starts and self.begin is None:
                self.begin = now
            if self.begin is None:
                return True
            if self.first is None and now - self.begin > options.warmup_seconds:
                self.first = now, self.num_timesteps
            self.last = now, self.num_timesteps
            return self.first is None or now - self.first[0] < options.seconds

    window = Window()
    model.learn(10**9, callback=window)
    (then, before), (now, after) = window.first, window.last
    frames = (after - before) * 4
    usage = resource.getrusage(resource.RUSAGE_SELF)
    found = {
        "frames_per_second": frames / (now - then),
        "frames": frames,
        "peak_memory_bytes": usage.ru_maxrss * 1024,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
