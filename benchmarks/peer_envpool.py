"""EnvPool's emulation alone, in its own environment: prints one line as `benchmarks.cases` does."""

from __future__ import annotations

import argparse
import json
import os
import resource
import time


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=["emulator"])
    parser.add_argument("--game", default="Pong")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--warmup-seconds", type=float, default=3)
    parser.add_argument("--cores")
    options = parser.parse_args()
    if options.cores:
        os.sched_setaffinity(0, {int(core) for core in options.cores.split(",")})

    import envpool
    import numpy as np

    env = envpool.make(
        f"{options.game}-v5", env_type="gymnasium", num_envs=16, num_threads=options.threads, seed=0
    )
    env.reset()
    rng = np.random.default_rng(0)
    begin = time.perf_counter()
    first = None
    frames = 0
    while first is None or time.perf_counter() - first < options.seconds:
        if first is None and time.perf_counter() - begin > options.warmup_seconds:
            first, frames = time.perf_counter(), 0
        env.step(rng.integers(0, env.action_space.n, 16).astype(np.int32))
        frames += 64
    usage = resource.getrusage(resource.RUSAGE_SELF)
    found = {
        "frames_per_second": frames / (time.perf_counter() - first),
        "frames": frames,
        "peak_memory_bytes": usage.ru_maxrss * 1024,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
