"""One run of (method, game, seed): what is trained, and the files that it writes.

A run has log, milestones, checkpoints, progress and, last of all, its record: one that has a
record is whole.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from agents import atari, checkpoint, files, machine, methods, provenance
from agents.config import MethodSettings, hashed_settings, short_hash
from agents.lanes import FinishedEpisode
from agents.schedules import Diverged
from agents.usage import usage

LOG_HEADER = "frames,seconds,lane,episode_seed,return,length_frames\n"
PROGRESS_SECONDS = 5.0
RECENT_EPISODES = 100


@dataclass(frozen=True)
class RunSpec:
    """What is trained. Two specs with equal hashes train the same numbers."""

    settings: MethodSettings
    game: str
    seed: int
    milestones_frames: tuple[int, ...]
    protocol: atari.Protocol

    @property
    def budget_frames(self) -> int:
        return self.milestones_frames[-1]

    def settings_hash(self) -> str:
        """Equal for runs that may stand in one row of a table: all but game and seed.

        The budget counts only where the learning rate depends on it: a constant rate lets a
        finished run go on to a later milestone.
        """
        settings = hashed_settings(self.settings)
        if self.settings.learning_rate_schedule != "constant":
            settings["budget_frames"] = self.budget_frames
        return short_hash({"settings": settings, "protocol": dataclasses.asdict(self.protocol)})

    def spec_hash(self) -> str:
        """Names the checkpoint of this run."""
        return short_hash([self.settings_hash(), self.game, self.seed])


class Run:
    """One training with its log, milestones, checkpoints, progress and record."""

    def __init__(
        self, spec: RunSpec, out: Path, device: str, threads: int, checkpoint_seconds: float
    ) -> None:
        self.spec, self.out, self.device, self.threads = spec, out, device, threads
        self.checkpoint_seconds = checkpoint_seconds
        self.resume_folder = out / "resume" / spec.spec_hash()
        self.log_path = self.resume_folder / "training_episodes.csv"
        self.checkpoint_path = self.resume_folder / "checkpoint.pt"
        self.training: methods.Training | None = None
        self.log: list[str] = []
        self.recent: deque[int] = deque(maxlen=RECENT_EPISODES)
        self.episodes = 0
        self.milestones: list[dict[str, Any]] = []
        self.frames_before = 0  # the last advance: a milestone up to here has been passed
        self.earlier = {"seconds": 0.0, "core_seconds": 0.0, "peak_memory_bytes": 0, "attempts": 0}
        self.started_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.stopping = False
        self.reason = ""  # of a run that diverged
        # Of the code that ran, attempt by attempt: a checkout may move on.
        self.commit, self.dirty = provenance.commit(spec.settings.method)
        self.commits = [self.commit]
        self._begin = time.monotonic()
        self._core_begin = usage()[0]
        self._last_progress = 0.0
        self._rate = (self._begin, 0)

    def seconds(self) -> float:
        """Wall seconds of training, resumed attempts included."""
        return self.earlier["seconds"] + time.monotonic() - self._begin

    def costs(self) -> dict[str, Any]:
        """Seconds, core-seconds and peak memory of this attempt and those that its state is from.

        What an attempt did after its last checkpoint is in neither, as its frames are not.
        """
        core, memory = usage()
        core += self.training.core_seconds_of_workers() - self._core_begin
        memory += self.training.peak_memory_of_workers()
        return {
            "seconds": self.seconds(),
            "core_seconds": self.earlier["core_seconds"] + core,
            "peak_memory_bytes": max(self.earlier["peak_memory_bytes"], memory),
            "attempts": self.earlier["attempts"] + 1,
        }

    def build(self) -> None:
        """Build the training and, where there is a checkpoint, continue it."""
        spec = self.spec  # not `self`: Gorila sends the function away
        processes, threads = methods.divide(spec.settings, self.device, self.threads)
        machine.prepare(threads)

        def make_lanes(lanes: int) -> atari.AtariLanes:
            return atari.AtariLanes(spec.game, lanes, spec.protocol, threads)

        self.training = methods.build(
            spec.settings,
            make_lanes,
            spec.seed,
            spec.budget_frames,
            self.device,
            self.resume_folder,
            processes,
            lambda: self.stopping,
        )
        if self.checkpoint_path.exists():
            self._resume(checkpoint.load(self.checkpoint_path))
        self._begin, self._core_begin = time.monotonic(), usage()[0]
        self._rate = (self._begin, self.training.frames)

    def _resume(self, saved: dict[str, Any]) -> None:
        self.training.restore(saved["training"])
        self.log = saved["log"].splitlines(keepends=True)
        returns = [int(line.split(",")[4]) for line in self.log[-RECENT_EPISODES:]]
        self.recent.extend(returns)
        self.episodes = len(self.log)
        self.milestones = saved["milestones"]
        self._put_back_policies()
        self.frames_before = saved.get("frames_before", 0)
        self.earlier = saved["costs"]
        self.started_at = saved["started_at"]
        # A checkpoint from before these were kept has neither.
        self.commits = list(dict.fromkeys([*saved.get("commits", []), self.commit]))
        self.dirty = saved.get("dirty") or self.dirty

    def _put_back_policies(self) -> None:
        """Undo what a training with other settings or budget has written in this folder since.

        Raises:
            ResumeError: for a policy that it wrote over, and that has no copy.
        """
        for milestone in self.milestones:
            path = self.out / milestone["policy"]
            copy = self.resume_folder / milestone["policy"]
            if path.exists():
                found = checkpoint.load(path).get("settings_hash")
                if found == self.spec.settings_hash():
                    continue
                if not copy.exists():
                    raise checkpoint.ResumeError(
                        f"{path}: is of another training: settings_hash {found!r}, this run's is "
                        f"{self.spec.settings_hash()!r}, and it has passed that milestone. To "
                        f"train it from the start, delete {self.resume_folder}"
                    )
            if copy.exists():
                checkpoint.save(path, checkpoint.load(copy))

    def attempt_text(self) -> str:
        """Return one line on this attempt, for the log that has all of them."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        spec = self.spec
        return (
            f"{now} {spec.settings.method} {spec.game} seed {spec.seed}: attempt "
            f"{self.earlier['attempts'] + 1} at {self.training.frames} of {spec.budget_frames} "
            f"frames, {self.device}, threads {self.threads}, host {socket.gethostname()}, pid "
            f"{os.getpid()}, commit {self.commit[:7]}"
        )

    def train(self) -> str:
        """Train to the budget; return the run's status: finished, diverged or stopped.

        Raises:
            ResumeError: for a milestone that the run has passed without keeping its policy.
        """
        reached = {milestone["milestone_frames"] for milestone in self.milestones}
        remaining = [m for m in self.spec.milestones_frames if m not in reached]
        passed = [m for m in remaining if m <= self.frames_before]
        if passed:
            raise checkpoint.ResumeError(
                f"milestones_frames: {passed[0]}: the run in {self.out} is at "
                f"{self.training.frames} frames and has kept no policy there; allowed: "
                f"{', '.join(map(str, sorted(reached))) or 'none'} and more than "
                f"{self.frames_before}. To train it from the start, delete {self.resume_folder}"
            )
        last_checkpoint = time.monotonic()
        try:
            for milestone in remaining:
                while self._trains() and self.training.frames < milestone:
                    before = self.training.frames
                    finished = self.training.advance(milestone)
                    if self.training.frames > before:
                        self.frames_before = before
                    self._record(finished)
                    if self.stopping:
                        self.save_checkpoint()
                        return "stopped"
                    seconds = time.monotonic() - last_checkpoint
                    if seconds > self.checkpoint_seconds or self.training.state_is_due():
                        self.save_checkpoint()
                        last_checkpoint = time.monotonic()
                self._keep_policy(milestone)
        except Diverged as error:
            self.reason = str(error)
            return "diverged"
        self.save_checkpoint()
        return "finished"

    def _trains(self) -> bool:
        return self.spec.settings.topology != "random"

    def _record(self, finished: list[FinishedEpisode]) -> None:
        frames, seconds = self.training.frames, self.seconds()
        for episode in finished:
            self.log.append(
                f"{frames},{seconds:.3f},{episode.lane},{episode.episode_seed},"
                f"{episode.episode_return},{episode.length_frames}\n"
            )
            self.recent.append(episode.episode_return)
        self.episodes += len(finished)
        if time.monotonic() - self._last_progress > PROGRESS_SECONDS:
            self.write_progress("running")

    def _keep_policy(self, milestone_frames: int) -> None:
        name = f"policies/{milestone_frames}.pt"
        policy = self.training.policy()
        for layer, weights in policy.items():
            if not torch.isfinite(weights).all():
                raise Diverged(f"weights {layer} are not finite")
        kept = {
            "settings": dataclasses.asdict(self.spec.settings),
            "settings_hash": self.spec.settings_hash(),
            "game": self.spec.game,
            "seed": self.spec.seed,
            "protocol": self.spec.protocol.name,
            "milestone_frames": milestone_frames,
            "frames": self.training.frames,
            "weights": policy,
        }
        # The copy is for when other settings or another budget are trained here, then these again.
        for folder in (self.resume_folder, self.out):
            checkpoint.save(folder / name, kept)
        self.milestones.append(
            {
                "milestone_frames": milestone_frames,
                "frames": self.training.frames,
                "seconds": self.seconds(),
                "policy": name,
            }
        )
        self.milestones.sort(key=lambda milestone: milestone["milestone_frames"])

    def save_checkpoint(self) -> None:
        """Save all that the rest of the run depends on, log included."""
        state = self.training.state()
        self._record(self.training.take_finished())
        checkpoint.save(
            self.checkpoint_path,
            {
                "training": state,
                "log": "".join(self.log),
                "milestones": self.milestones,
                "frames_before": self.frames_before,
                "costs": self.costs(),
                "started_at": self.started_at,
                "commits": self.commits,
                "dirty": self.dirty,
            },
        )

    def write_progress(self, status: str) -> None:
        """Rewrite `progress.json`, for people and for `python -m analysis.status`."""
        now, frames = time.monotonic(), self.training.frames
        then, frames_then = self._rate
        rate = (frames - frames_then) / max(now - then, 1e-9)
        if now - then > 30:  # a rate of the last half minute, not of the whole run
            self._rate = (now, frames)
        self._last_progress = now
        left = max(0, self.spec.budget_frames - frames)
        files.write_json(
            self.out / "progress.json",
            {
                "method": self.spec.settings.method,
                "game": self.spec.game,
                "seed": self.spec.seed,
                "frames": frames,
                "budget_frames": self.spec.budget_frames,
                "frames_per_second": rate,
                "seconds_left": left / rate if rate > 0 else None,
                "recent_return": sum(self.recent) / len(self.recent) if self.recent else None,
                "episodes": self.episodes,
                "status": status,
                "updated_at": time.time(),
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "device": self.device,
                "attempt": self.earlier["attempts"] + 1,
            },
        )

    def write_record(self, status: str) -> None:
        """Write the log and, last of all, `run.json`."""
        spec, costs = self.spec, self.costs()
        files.write_text(self.out / "training_episodes.csv", LOG_HEADER + "".join(self.log))
        files.write_json(
            self.out / "run.json",
            {
                "method": spec.settings.method,
                "label": spec.settings.label,
                "game": spec.game,
                "seed": spec.seed,
                "frames": self.training.frames,
                "budget_frames": spec.budget_frames,
                **costs,
                "frames_per_second": self.training.frames / costs["seconds"],
                **provenance.hardware(self.device),
                "threads": self.threads,
                "commit": self.commit,
                "commits": self.commits,  # of all attempts, the first first
                "dirty": self.dirty,  # in any of them
                "versions": provenance.versions(),
                "status": status,
                "reason": self.reason,
                "version": spec.settings.version,
                "settings_hash": spec.settings_hash(),
                "spec_hash": spec.spec_hash(),
                "network": spec.settings.network,
                "precision": spec.settings.precision,
                "protocol": spec.protocol.name,
                "milestones": self.milestones,
                "settings": dataclasses.asdict(spec.settings),
                "started_at": self.started_at,
                "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            },
        )


def check_folder(spec: RunSpec, out: Path) -> None:
    """Refuse a folder with the record of another run, whose policies would be overwritten.

    `ResumeError` says what differs.
    """
    path = out / "run.json"
    if not path.exists():
        return
    record = checkpoint.read_record(path)
    for key, value in (
        ("method", spec.settings.method), ("game", spec.game), ("seed", spec.seed)
    ):  # fmt: skip
        if record.get(key) != value:
            raise checkpoint.ResumeError(
                f"out: {path} is of another run: {key} {record.get(key)!r}, not {value!r}"
            )
    if record.get("spec_hash", spec.spec_hash()) != spec.spec_hash():
        now = {
            "protocol": spec.protocol.name,
            "budget_frames": spec.budget_frames,
            **dataclasses.asdict(spec.settings),
        }
        then = {**record, **record.get("settings", {})}
        others = [
            f"{key} {then[key]!r}, not {value!r}"
            for key, value in now.items()
            if key in then and key != "label" and then[key] != value
        ]
        raise checkpoint.ResumeError(
            f"out: {path} is of a run with other settings, protocol or budget "
            f"({'; '.join(others) or 'its record does not say which'}); "
            "give another folder, or delete that record first"
        )
