"""Method files: YAML -> checked, frozen settings. Every number of a run is in its method file.

There are no defaults here: a method file is complete, and `diff` of two of them is the
difference between two methods.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from agents.files import read_yaml

FRAMES_PER_STEP = 4
CPU_ONLY = ("async", "gorila")  # topologies


def _choice(*allowed: str | bool) -> Any:
    return field(metadata={"allowed": allowed})


def _number(minimum: float, maximum: float = float("inf")) -> Any:
    return field(metadata={"minimum": minimum, "maximum": maximum})


def _above_zero() -> Any:
    return field(metadata={"above": 0.0})


def _between(low: float, high: float) -> Any:
    """A number between the two, neither of them allowed."""
    return field(metadata={"above": low, "below": high})


def _since(earlier: Any, **bounds: float) -> Any:
    """A setting that came later; with the value `earlier` all is as it was before."""
    return field(metadata={"earlier": earlier, **bounds})


@dataclass(frozen=True, kw_only=True)
class MethodSettings:
    """What every method needs. Units are in the names; gamma and decay per step.

    A `gradient_norm_limit` of 0 is none.
    """

    method: str
    label: str
    version: int = _number(1)
    topology: str  # a key of TOPOLOGIES
    network: str = _choice("mnih2013", "nature")
    initialisation: str = _choice("orthogonal", "torch")
    precision: str = _choice("float32", "bfloat16")
    gamma: float = _number(0, 1)
    learning_rate: float = _number(0)
    learning_rate_schedule: str = _choice("constant", "linear_to_zero")
    gradient_norm_limit: float = _number(0)
    clip_rewards: bool
    life_loss_is_terminal: bool


@dataclass(frozen=True, kw_only=True)
class RmspropSettings(MethodSettings):
    """What every method with RMSProp needs besides: all but Gorila, whose server has AdaGrad."""

    rmsprop_decay: float = _between(0, 1)  # 0 would divide by 0, 1 would never learn g
    rmsprop_epsilon: float = _above_zero()  # else 0 / 0 where a gradient is 0
    rmsprop_epsilon_place: str = _choice("inside_sqrt", "outside_sqrt")


@dataclass(frozen=True, kw_only=True)
class PolicySettings(RmspropSettings):
    """What every policy-based method needs besides."""

    lstm_cells: int = _number(0)
    rmsprop_bias_correction: bool = _since(False)
    entropy_weight: float = _number(0)
    value_loss_weight: float = _number(0)


@dataclass(frozen=True, kw_only=True)
class LockstepSettings(PolicySettings):
    """`lanes` emulators step together; an update after every `rollout_steps` decisions of each."""

    return_estimate: str = _choice("n_step", "one_step")
    loss_reduction: str = _choice("mean", "sum")
    lanes: int = _number(1)
    rollout_steps: int = _number(1)


@dataclass(frozen=True, kw_only=True)
class AsyncSettings(PolicySettings):
    """`workers` update shared weights without locks, in processes, or in turn (`round_robin`)."""

    return_estimate: str = _choice("n_step", "one_step")
    loss_reduction: str = _choice("mean", "sum")
    workers: int = _number(1)
    lanes_per_worker: int = _number(1)
    rollout_steps: int = _number(1)
    schedule: str = _choice("async", "round_robin")


@dataclass(frozen=True, kw_only=True)
class EpisodeSettings(PolicySettings):
    """Monte-Carlo over whole episodes: an update after every `episodes_per_update` of them."""

    lstm_cells: int = _number(0, 0)  # whole episodes are unrolled in chunks, without a state
    life_loss_is_terminal: bool = _choice(False)  # an episode is whole
    return_estimate: str = _choice("total", "reward_to_go", "discounted_reward_to_go")
    gamma_t_factor: str = _choice("kept", "ignored")
    baseline: str = _choice("none", "value")
    lanes: int = _number(1)
    episodes_per_update: int = _number(1)
    chunk_steps: int = _number(1)

    def __post_init__(self) -> None:
        if (self.return_estimate, self.gamma_t_factor) == ("reward_to_go", "ignored"):
            raise ValueError(
                "gamma_t_factor: 'ignored' does not go with return_estimate 'reward_to_go', which "
                "is gamma^t G_t; allowed: kept, or return_estimate discounted_reward_to_go"
            )


@dataclass(frozen=True, kw_only=True)
class RandomSettings:
    """Uniformly random actions: nothing is trained, so no number is needed."""

    network: ClassVar[str] = "none"
    precision: ClassVar[str] = "none"
    learning_rate_schedule: ClassVar[str] = "constant"

    method: str
    label: str
    version: int = _number(1)
    topology: str


@dataclass(frozen=True, kw_only=True)
class ReplaySettings(RmspropSettings):
    """Q-learning from a replay memory: a batch of it for every `decisions_per_update` decisions.

    A `gradient_norm_limit` of 0 is none. `importance_*` and `priority_*` are for `prioritisation`.
    """

    double: bool
    dueling: bool
    prioritisation: str = _choice("none", "proportional", "rank")
    output_bias: str = _choice("per_action", "shared")
    lanes: int = _number(1)
    replay_capacity_steps: int = _number(1)
    learning_starts_frames: int = _number(0)
    decisions_per_update: int = _number(1)
    batch_size: int = _number(1)
    loss_reduction: str = _choice("mean", "sum")
    error_limit: float = _above_zero()
    target_period_frames: int = _number(1)
    epsilon_start: float = _number(0, 1)
    epsilon_end: float = _number(0, 1)
    epsilon_anneal_frames: int = _number(1)
    evaluation_epsilon: float = _number(0, 1)
    priority_exponent: float = _number(0)
    priority_epsilon: float = _above_zero()  # else an error of 0 is never drawn again
    importance_exponent_start: float = _number(0, 1)
    importance_anneal_frames: int = _number(1)


@dataclass(frozen=True, kw_only=True)
class GorilaSettings(MethodSettings):
    """Q-learning by processes of Ray: `actors` play, `learners` push gradients to `shards`.

    An actor reports, and pulls the weights again, after every `rollout_steps` decisions of each of
    its lanes. Over all learners, one batch is learnt from for every `decisions_per_update`
    decisions of all actors. Updates are those of the server. The warm-up counts the gradients sent,
    those that are discarded among them; 0 is none.
    """

    double: bool
    dueling: bool
    prioritisation: str = _choice("none")
    output_bias: str = _choice("per_action", "shared")
    actors: int = _number(1)
    learners: int = _number(1)
    shards: int = _number(1)
    lanes_per_actor: int = _number(1)
    rollout_steps: int = _number(1)
    replay_capacity_steps: int = _number(1)
    learning_starts_frames: int = _number(0)
    decisions_per_update: int = _number(1)
    batch_size: int = _number(1)
    loss_reduction: str = _choice("mean", "sum")
    error_limit: float = _above_zero()
    target_period_updates: int = _number(1)
    epsilon_start: float = _number(0, 1)
    epsilon_end: float = _number(0, 1)
    epsilon_anneal_updates: int = _number(1)
    evaluation_epsilon: float = _number(0, 1)
    learning_rate_warmup_updates: int = _since(0, minimum=0, maximum=float("inf"))
    adagrad_epsilon: float = _above_zero()  # else 0 / 0 where a gradient is 0
    max_staleness_updates: int = _number(0)
    outlier_deviations: float = _number(0)
    outlier_window_updates: int = _number(2)


TOPOLOGIES = {
    "lockstep": LockstepSettings,
    "async": AsyncSettings,
    "episodes": EpisodeSettings,
    "random": RandomSettings,
    "replay": ReplaySettings,
    "gorila": GorilaSettings,
}


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, str) and "e" in value.lower() and float(value) == float(value)
    except ValueError:
        return False


def _check(where: str, spec: dataclasses.Field, kind: type, value: Any) -> Any:
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        # YAML reads 7e-4 as text: its numbers with an exponent have a point.
        point = ", with a point before the exponent: 7.0e-4" if _is_number(value) else ""
        raise ValueError(f"{where}: {spec.name} must be {kind.__name__}, got {value!r}{point}")
    allowed = spec.metadata.get("allowed")
    if allowed and value not in allowed:
        known = ", ".join(map(str, allowed))
        raise ValueError(f"{where}: {spec.name}: unknown value {value!r}; allowed: {known}")
    if "above" in spec.metadata and value <= spec.metadata["above"]:
        raise ValueError(f"{where}: {spec.name}: {value!r} is not above {spec.metadata['above']}")
    if "below" in spec.metadata and value >= spec.metadata["below"]:
        raise ValueError(f"{where}: {spec.name}: {value!r} is not below {spec.metadata['below']}")
    if "minimum" in spec.metadata:
        low, high = spec.metadata["minimum"], spec.metadata["maximum"]
        if not low <= value <= high:
            raise ValueError(f"{where}: {spec.name}: {value!r} is not in [{low}, {high}]")
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{where}: {spec.name}: {value!r} is not a finite number")
    return value


def build_settings(values: dict[str, Any], where: str) -> MethodSettings | RandomSettings:
    """Check `values` and freeze them; `ValueError` names key, value and what is allowed."""
    if not isinstance(values, dict):
        raise ValueError(f"{where}: expected a mapping of settings, got {values!r}")
    topology = values.get("topology")
    if not isinstance(topology, str) or topology not in TOPOLOGIES:
        raise ValueError(
            f"{where}: topology: unknown value {topology!r}; allowed: {', '.join(TOPOLOGIES)}"
        )
    cls = TOPOLOGIES[topology]
    fields = {spec.name: spec for spec in dataclasses.fields(cls)}
    for key in values:
        if key not in fields:
            raise ValueError(f"{where}: unknown key {key!r}; allowed: {', '.join(sorted(fields))}")
    missing = [key for key in fields if key not in values]
    if missing:
        raise ValueError(f"{where}: missing key {missing[0]!r}")
    kinds = typing.get_type_hints(cls)
    checked = {key: _check(where, fields[key], kinds[key], values[key]) for key in fields}
    try:
        return cls(**checked)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def load_method(
    path: Path, overrides: dict[str, Any] | None = None
) -> MethodSettings | RandomSettings:
    """Read a method file and apply `overrides` (a study's deviations from it)."""
    try:
        values = read_yaml(path)
    except FileNotFoundError:
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml")))
        known = known or "none; a path is needed, such as config/methods/a2c.yaml"
        raise ValueError(f"method: no file {path}; methods there: {known}") from None
    except OSError as error:
        raise ValueError(f"method: {path} cannot be read: {error.strerror}") from None
    settings = build_settings(values, str(path))
    if settings.method != path.stem:
        raise ValueError(f"{path}: method: {settings.method!r} must be the file's name")
    for key in overrides or {}:
        if key in ("method", "label", "version", "topology") or key not in values:
            allowed = sorted(set(values) - {"method", "label", "version", "topology"})
            raise ValueError(
                f"overrides: {path.stem}: unknown key {key!r}; allowed: {', '.join(allowed)}"
            )
    return build_settings({**values, **(overrides or {})}, f"{path} with overrides")


def check_budget(settings: MethodSettings | RandomSettings, budget_frames: int) -> None:
    """Refuse a training that would end before it learns; `ValueError` names what is allowed."""
    starts = getattr(settings, "learning_starts_frames", 0)
    if budget_frames <= starts:
        raise ValueError(
            f"milestones_frames: {budget_frames}: {settings.method} would learn nothing, since its "
            f"learning_starts_frames is {starts}; allowed: a budget above it, or an override of "
            "learning_starts_frames below the budget"
        )


def hashed_settings(settings: MethodSettings) -> dict[str, Any]:
    """Return what a run's hash is made of: all but the label, and what changes nothing.

    A setting that came later counts only where it changes something, so that runs of before keep
    their hashes.
    """
    return {
        spec.name: getattr(settings, spec.name)
        for spec in dataclasses.fields(settings)
        if spec.name != "label"
        and not (
            "earlier" in spec.metadata and getattr(settings, spec.name) == spec.metadata["earlier"]
        )
    }


def short_hash(value: Any) -> str:
    """Return 16 hex digits that depend on every key and value of a JSON-like object."""
    text = json.dumps(value, sort_keys=True, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
