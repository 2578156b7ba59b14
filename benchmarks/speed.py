"""Measure training speed side by side: `python -m benchmarks.speed --help`, or `make bench`.

Every case is a process of its own; the rounds go through all cases in turn, so that a machine
whose speed drifts slows all of them; the figure is the median of the rounds. Two layouts:

- `per_core`: one job pinned to each core, all at once, one thread each; frames/s of one job.
- `all_cores`: one job with as many threads (or worker processes) as there are cores.

The limit of a core is 1 / (1/emulator + 1/inference + 1/learning), each measured alone; DQN's has
`q_inference` and `q_learning` in it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from agents import files, provenance

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "results" / "benchmarks"
ENVIRONMENTS = ROOT / ".benchmarks"
LAYOUTS = ("per_core", "all_cores")
SMALL = {"network": "mnih2013"}
BFLOAT16 = {"precision": "bfloat16"}
LSTM = {"lstm_cells": 256}
ROLLOUT_PARTS = ("inference", "learning")
REPLAY_PARTS = ("q_inference", "q_learning")
NETWORK_KEYS = ("network", "precision")
# Larger processes than the paper's 16 of one emulator: as many, and as few as the study pong has.
LANES_8 = {"workers": 16, "lanes_per_worker": 8}
LARGE_WORKERS = {"workers": 4, "lanes_per_worker": 8}
# As peer_sb3.py has them; both learn from the first measured decision on.
SB3_DQN = {"replay_capacity_steps": 100_000, "learning_starts_frames": 4_000}
# Whom a method of ours is compared with, where both have the same network.
RIVALS = {
    "a2c": "sb3 a2c",
    "actor_critic": "sb3 a2c",
    "reinforce": "sb3 a2c",
    "dqn": "sb3 dqn",
    "a3c_ff": "pfrl a3c_ff",
}
# A3C counts rollouts when they are done; those of 16 workers of 8 lanes take a core 2 to 7 s.
ASYNC_SECONDS = 15.0
LABELS = {"sb3": "Stable-Baselines3", "envpool": "EnvPool", "pfrl": "PFRL"}


@dataclass(frozen=True)
class Case:
    """One line of the table: what is measured, with which settings, by whose code."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    peer: str = ""  # "" is ours
    limited: bool = False  # whether the machine's limit says something about it
    layouts: tuple[str, ...] = LAYOUTS

    @property
    def key(self) -> str:
        return " ".join([self.peer or "retable", self.name, self.variant]).strip()

    @property
    def variant(self) -> str:
        """Network and precision as the table prints them."""
        if self.name == "emulator":
            return ""
        if self.peer:
            return "nature float32"
        network = self.settings.get("network", "nature")
        cells = ", LSTM" if self.settings.get("lstm_cells") else ""
        workers = self.settings.get("workers")
        layout = f", {workers} workers of {self.settings['lanes_per_worker']}" if workers else ""
        return f"{network}{cells} {self.settings.get('precision', 'float32')}{layout}"

    def parts(self) -> list[Case]:
        """The parts of a core's work whose speeds make the limit of this case."""
        network = {key: self.settings[key] for key in NETWORK_KEYS if key in self.settings}
        cells = LSTM if self.name == "a3c_lstm" else {}
        if self.name == "dqn":
            return [Case("emulator"), *(Case(p, SB3_DQN | network) for p in REPLAY_PARTS)]
        return [Case("emulator"), *(Case(p, network | cells) for p in ROLLOUT_PARTS)]

    def command(self, game: str, threads: int, cores: str, seconds: float) -> list[str]:
        """The measurement of `seconds`, or of `ASYNC_SECONDS` where that is too short."""
        if self.name.startswith("a3c"):
            seconds = max(seconds, ASYNC_SECONDS)
        window = ["--threads", str(threads), "--cores", cores, "--seconds", str(seconds)]
        window += ["--warmup-seconds", str(seconds / 2)]
        if self.peer:
            script = ROOT / "benchmarks" / f"peer_{self.peer}.py"
            rom = "".join(part.capitalize() for part in game.split("_"))
            return [str(python_of(self.peer)), str(script), self.name, "--game", rom, *window]
        sets = ["--set", json.dumps(self.settings), "--game", game]
        return [sys.executable, "-m", "benchmarks.cases", self.name, *sets, *window]


def _ours() -> list[Case]:
    one = ("per_core",)
    cases = [Case("emulator")]
    for settings in ({}, BFLOAT16, SMALL, SMALL | BFLOAT16):
        cases += [Case(part, settings, layouts=one) for part in (*ROLLOUT_PARTS, "arithmetic")]
        layouts = one if settings == SMALL else LAYOUTS
        cases.append(Case("a2c", settings, limited=True, layouts=layouts))
    cases.append(Case("plain_learning", layouts=one))
    cases.append(Case("a3c_ff", limited=True))
    cases.append(Case("a3c_ff", SMALL | BFLOAT16, limited=True))
    cases.append(Case("a3c_ff", LANES_8, limited=True))
    cases.append(Case("a3c_ff", BFLOAT16 | LANES_8, limited=True))
    cases.append(Case("a3c_ff", SMALL | BFLOAT16 | LARGE_WORKERS, limited=True))
    for settings in (LSTM, LSTM | SMALL | BFLOAT16):
        cases += [Case(part, settings, layouts=one) for part in ROLLOUT_PARTS]
    cases.append(Case("a3c_lstm", limited=True, layouts=one))
    cases.append(Case("a3c_lstm", SMALL | BFLOAT16 | LARGE_WORKERS, limited=True, layouts=one))
    for method in ("actor_critic", "reinforce"):
        cases.append(Case(method, limited=True, layouts=one))
    for settings in ({}, BFLOAT16, SMALL | BFLOAT16):
        settings = SB3_DQN | settings
        cases += [Case(part, settings, layouts=one) for part in (*REPLAY_PARTS, "q_arithmetic")]
        layouts = one if SMALL.items() <= settings.items() else LAYOUTS
        cases.append(Case("dqn", settings, limited=True, layouts=layouts))
    return cases


PEERS = [
    Case("emulator", peer="envpool", layouts=("per_core",)),
    Case("a2c", peer="sb3"),
    Case("dqn", peer="sb3"),
    Case("a3c_ff", peer="pfrl"),
]


def python_of(peer: str) -> Path:
    """The Python of the peer's own environment."""
    return ENVIRONMENTS / peer / "bin" / "python"


def install(peer: str) -> None:
    """Make the peer's environment, if it is not there yet."""
    done = ENVIRONMENTS / peer / "installed"
    if done.exists():
        return
    requirements = ROOT / "benchmarks" / f"requirements-{peer}.txt"
    subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENTS / peer)], check=True)
    pip = [str(python_of(peer)), "-m", "pip", "install", "--quiet", "-r", str(requirements)]
    subprocess.run(pip, check=True)
    done.touch()


def measure(case: Case, layout: str, game: str, seconds: float) -> dict[str, float]:
    """Run one case once; `RuntimeError` with its last words if it fails."""
    cores = sorted(os.sched_getaffinity(0))
    every = ",".join(map(str, cores))
    if layout == "per_core":
        commands = [case.command(game, 1, str(core), seconds) for core in cores]
    else:
        commands = [case.command(game, len(cores), every, seconds)]
    single = {"OMP_NUM_THREADS": "1"} if layout == "per_core" else {}
    running = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **single},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command in commands
    ]
    found = []
    try:
        for process in running:
            out, error = process.communicate()
            if process.returncode:
                raise RuntimeError(f"{case.key} ({layout}) failed:\n{error[-2000:]}")
            found.append(json.loads(out.splitlines()[-1]))
    finally:
        for process in running:  # of a failed one's neighbours nobody would hear again
            with process:
                process.kill()
    return {
        "frames_per_second": sum(one["frames_per_second"] for one in found) / len(found),
        "peak_memory_bytes": max(one["peak_memory_bytes"] for one in found),
    }


def summarise(
    cases: list[Case], samples: dict[tuple[str, str], list[dict[str, float]]], cores: int
) -> list[dict[str, Any]]:
    """Medians, spread, and ratios to the machine's limit and to the peer of RIVALS."""
    rates = {
        key: [sample["frames_per_second"] for sample in found] for key, found in samples.items()
    }
    rows = []
    for case in cases:
        for layout in case.layouts:
            found = rates.get((case.key, layout))
            if not found:
                continue
            own = median(found)
            row = {
                "case": case.key,
                "name": case.name,
                "by": case.peer or "retable",
                "variant": case.variant,
                "layout": layout,
                "frames_per_second": own,
                "lowest": min(found),
                "highest": max(found),
                "rounds": len(found),
                "peak_memory_bytes": max(
                    sample["peak_memory_bytes"] for sample in samples[case.key, layout]
                ),
                "limit": None,
                "ratio_to_limit": None,
                "peer": None,
                "ratio_to_peer": None,
            }
            if case.limited:
                parts = [(part.key, "per_core") for part in case.parts()]
                if all(part in rates for part in parts):
                    limit = 1 / sum(1 / median(rates[part]) for part in parts)
                    row["limit"] = limit * (cores if layout == "all_cores" else 1)
                    row["ratio_to_limit"] = own / row["limit"]
            peer = RIVALS.get(case.name, "")
            rival = rates.get((f"{peer} nature float32", layout))
            if rival and not case.peer and "nature" in case.variant:
                row["peer"] = peer.split()[0]
                # Pair by pair: both of one round, minutes apart at most.
                row["ratio_to_peer"] = median(a / b for a, b in zip(found, rival, strict=False))
            rows.append(row)
    return rows


def markdown(report: dict[str, Any]) -> str:
    """The table that the README carries."""

    def ratio(value: float | None) -> str:
        return "" if value is None else f"{value:.2f}"

    lines = [
        "| what | network, precision | layout | frames/s, median (lowest to highest) | of limit "
        "| times its peer | peak memory, MB |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for row in report["rows"]:
        by = f"{LABELS[row['by']]}: " if row["by"] in LABELS else ""
        peer = ""
        if row["peer"]:
            method = RIVALS[row["name"]].split()[1]
            peer = f"{ratio(row['ratio_to_peer'])} {LABELS[row['peer']]}: {method}"
        spread = f"{row['frames_per_second']:,.0f} ({row['lowest']:,.0f} to {row['highest']:,.0f})"
        cells = [
            by + row["name"],
            row["variant"],
            {"per_core": "one job a core", "all_cores": "one job, all cores"}[row["layout"]],
            spread,
            ratio(row["ratio_to_limit"]),
            peer,
            f"{row['peak_memory_bytes'] / 1e6:,.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    lines += [
        "",
        f"{report['game']}, skip 4; {report['cpu']}; {report['date']}; commit "
        f"{report['commit'][:7]}; {versions}. {report['rounds']} interleaved rounds of "
        f"{report['seconds']:g} s, for A3C of {max(report['seconds'], ASYNC_SECONDS):g} s. Frames "
        "are emulator frames. The limit is 1 / (1/emulator + 1/inference + 1/learning) of a core, "
        "each part alone and as measured in this run, with the row's network, A3C-LSTM's with its "
        "LSTM, and A2C's batch; DQN's has `q_inference` and `q_learning`; with all cores it is as "
        "many times that. `arithmetic` and `q_arithmetic` are what A2C and DQN multiply and add to "
        "act and learn, in products of 1024x1024 matrices of the row's precision: about what "
        "kernels can reach. `plain_learning` is PyTorch's own layers, autograd and RMSprop. "
        "Times its peer: the median over the rounds of the ratio within a round. DQN has a memory "
        "of 100,000 decisions, and four lanes where Stable-Baselines3 has one environment. Peers "
        "compute in float32 whatever the row's precision, and PFRL has 16 workers of one emulator "
        "whatever the row's, and updates as often. A3C has a process a core; its memory counts "
        "the pages that they share once for each of them.",
        "",
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measure and write speed.json and speed.md."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--game", default="pong", help="(%(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="measurements of each case, interleaved (%(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=3, help="window of each measurement (%(default)s)"
    )
    parser.add_argument("--cases", nargs="+", default=[""], help="only cases with such a name")
    parser.add_argument(
        "--layouts", nargs="+", default=list(LAYOUTS), choices=LAYOUTS, help="(both)"
    )
    parser.add_argument("--no-peers", action="store_true", help="install and measure no peers")
    parser.add_argument(
        "--out", type=Path, help=f"folder ({RECORD}; a part of the cases needs another)"
    )
    options = parser.parse_args(arguments)
    part = options.no_peers or options.cases != [""] or set(options.layouts) != set(LAYOUTS)
    out = (options.out or RECORD).resolve()
    if part and out == RECORD:
        parser.error(
            f"out: only some cases are asked for, and {RECORD} has all; name another folder"
        )
    cases = [
        case
        for case in _ours() + ([] if options.no_peers else PEERS)
        if any(wanted in case.key for wanted in options.cases)
    ]
    if not cases:
        known = ", ".join(case.key for case in _ours() + PEERS)
        print(
            f"error: cases: {options.cases}: none has such a name; known: {known}", file=sys.stderr
        )
        return 1
    for peer in sorted({case.peer for case in cases if case.peer}):
        install(peer)
    samples: dict[tuple[str, str], list[dict[str, float]]] = {}
    for number in range(options.rounds):
        for case in cases:
            for layout in case.layouts:
                if layout not in options.layouts:
                    continue
                sample = measure(case, layout, options.game, options.seconds)
                samples.setdefault((case.key, layout), []).append(sample)
                rate = sample["frames_per_second"]
                print(f"round {number + 1} {case.key} {layout}: {rate:,.0f}", flush=True)
    cores = len(os.sched_getaffinity(0))
    report = {
        "game": options.game,
        "cpu": f"{cores} cores of {provenance.cpu_name()}",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": provenance.commit()[0],
        "versions": provenance.versions(),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "rows": summarise(cases, samples, cores),
        "samples": {" | ".join(key): found for key, found in samples.items()},
    }
    files.write_json(out / "speed.json", report)
    files.write_text(out / "speed.md", markdown(report))
    print(markdown(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
