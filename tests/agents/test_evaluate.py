"""Evaluation plays a fixed set of episodes, whatever plays them."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from agents import audit, checkpoint, config, evaluate, networks, trace, train
from tests.agents.conftest import evaluation, save_run
from tests.agents.worlds import METHODS, Doors, Recall, World, use_tiny_trunk


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "episodes.csv").open(newline="") as file:
        return list(csv.DictReader(file))


class Lengths(World):
    """Episodes of 1 to 12 steps, as their seed says; the reward of a step is 1."""

    actions = 2
    width = 2

    def begin(self, rng: np.random.Generator) -> int:
        return int(rng.integers(1, 13))

    def observe(self, state: int) -> list[int]:
        return [1, state % 2]

    def play(self, state: int, action: int) -> tuple[int, int, bool]:
        return state - 1, 1, state == 1


def play(monkeypatch: pytest.MonkeyPatch, world, lanes: int, episodes: int, **options):
    use_tiny_trunk(monkeypatch)
    env = world(lanes)
    cells = options.pop("lstm_cells", 0)
    network = networks.build_network(
        "mnih2013", env.actions, cells, "torch", 0, env.observation_shape
    )
    sample = options.pop("sample", True)
    return evaluate.play(network, env, episodes, 1000, ("a2c", "pong", 0, 1), sample)


@pytest.mark.parametrize(("world", "lstm_cells"), [(Lengths, 0), (Doors, 0), (Recall, 8)])
@pytest.mark.parametrize("sample", [True, False])
def test_the_set_of_episodes_does_not_depend_on_the_lanes(
    monkeypatch: pytest.MonkeyPatch, world, lstm_cells: int, sample: bool
) -> None:
    """Same seeds, actions, returns, in the same order."""
    found = []
    for lanes in (1, 3, 8):
        played = play(monkeypatch, world, lanes, 20, lstm_cells=lstm_cells, sample=sample)
        found.append(
            [
                (e.trace.episode_seed, e.trace.actions.tolist(), e.episode_return, e.ended)
                for e in played
            ]
        )
    assert found[0] == found[1] == found[2]
    assert len({seed for seed, *_ in found[0]}) == 20


@pytest.mark.parametrize("lanes", [3, 8, 30])
def test_long_episodes_are_not_left_out(monkeypatch: pytest.MonkeyPatch, lanes: int) -> None:
    """The lengths are those that the seeds give, not the first that end."""
    played = play(monkeypatch, Lengths, lanes, 30)
    expected = [
        int(np.random.default_rng(episode.trace.episode_seed).integers(1, 13)) for episode in played
    ]
    assert [episode.episode_return for episode in played] == expected
    assert [episode.length_frames for episode in played] == [4 * length for length in expected]
    assert max(expected) == 12


def test_actions_are_sampled_from_the_policy_or_its_best() -> None:
    logits = np.log(np.array([[0.1, 0.6, 0.3]], np.float32)).repeat(1000, 0)
    uniform = (np.arange(1000) + 0.5) / 1000
    assert np.bincount(evaluate.choose_actions(logits, uniform)).tolist() == [100, 600, 300]
    assert set(evaluate.choose_actions(logits, None)) == {1}
    edge = evaluate.choose_actions(np.zeros((2, 7), np.float32), np.array([0.0, 1 - 2**-53]))
    assert edge.tolist() == [0, 6]


def test_rows_of_a_real_game(evaluated: Path) -> None:
    """Each column against the traces beside it."""
    found, (header, traces) = rows(evaluated), trace.load(evaluated / "traces.npz")
    assert tuple(found[0]) == evaluate.COLUMNS
    assert [row["episode"] for row in found] == ["0", "1", "2"]
    assert [int(row["episode_seed"]) for row in found] == [t.episode_seed for t in traces]
    assert [int(row["length_frames"]) for row in found] == [4 * len(t.actions) for t in traces]
    fixed = {"method": "a2c", "game": "breakout", "seed": "0", "milestone": "1000"}
    for row in found:
        assert fixed.items() <= row.items()
        assert (row["frames"], row["protocol"]) == ("1000", "noop")
    assert (header["action_selection"], header["evaluation_seed"]) == ("sample", 1000)


def test_rows_of_a_real_game_do_not_depend_on_the_lanes(
    run: Path, evaluated: Path, tmp_path: Path
) -> None:
    one = evaluation(run, tmp_path / "one", lanes=1)
    for name in ("episodes.csv", "traces.npz"):
        assert (one / name).read_bytes() == (evaluated / name).read_bytes()


def test_another_seed_plays_other_episodes(run: Path, evaluated: Path, tmp_path: Path) -> None:
    other = evaluation(run, tmp_path / "other", seed=1001, episodes=2)
    seeds = {row["episode_seed"] for row in rows(evaluated)}
    assert seeds.isdisjoint(row["episode_seed"] for row in rows(other))


def test_runs_of_two_seeds_play_other_episodes(evaluated: Path, tmp_path: Path) -> None:
    """Else the seeds of a method would have their luck in common."""
    other = evaluation(save_run(tmp_path / "run", "breakout", seed=1), tmp_path / "other")
    seeds = {row["episode_seed"] for row in rows(evaluated)}
    assert seeds.isdisjoint(row["episode_seed"] for row in rows(other))


def test_a_greedy_evaluation_is_audited_too(tmp_path: Path) -> None:
    """Assault is lost soon whatever is done; Breakout would wait for FIRE up to the cap."""
    run = save_run(tmp_path / "run", "assault")
    greedy = evaluation(run, tmp_path / "greedy", action_selection="greedy", episodes=1)
    (row,) = rows(greedy)
    assert row["ended"] == "terminated"
    assert trace.load(greedy / "traces.npz")[0]["action_selection"] == "greedy"
    assert audit.main([str(greedy)]) == 0


def test_a_diverged_run_has_a_header_only(run: Path, tmp_path: Path) -> None:
    diverged = Path(shutil.copytree(run, tmp_path / "run"))
    record = json.loads((diverged / "run.json").read_text())
    record |= {"status": "diverged", "milestones": []}
    (diverged / "run.json").write_text(json.dumps(record))
    out = evaluation(diverged, tmp_path / "out")
    assert (out / "episodes.csv").read_text() == ",".join(evaluate.COLUMNS) + "\n"
    assert trace.load(out / "traces.npz")[1] == []
    assert audit.main([str(out)]) == 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"milestone-frames": 5}, ["milestone_frames: 5", "allowed: 1000"]),
        ({"episodes": 0}, ["episodes: 0"]),
        ({"lanes": 0}, ["lanes: 0 must be at least 1"]),
        ({"threads": 0}, ["threads: 0 must be at least 1"]),
        ({"run": "nowhere"}, ["run", "nowhere/run.json"]),
    ],
)
def test_bad_input_is_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, options: dict, named: list[str]
) -> None:
    values = {"run": run, "milestone-frames": 1000, "out": tmp_path / "out", **options}
    arguments = [word for key, value in values.items() for word in (f"--{key}", str(value))]
    assert evaluate.main(arguments) == 1
    error = capsys.readouterr().err
    assert [part for part in named if part not in error] == []
    assert not (tmp_path / "out").exists()


def test_a_policy_or_record_that_is_gone_is_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    arguments = ["--run", str(copied), "--milestone-frames", "1000", "--out", str(tmp_path / "out")]
    (copied / "policies/1000.pt").unlink()
    assert evaluate.main(arguments) == 1
    assert "policies/1000.pt is not there; allowed: none" in capsys.readouterr().err
    whole = json.loads((copied / "run.json").read_text())
    less = json.dumps({key: value for key, value in whole.items() if key != "protocol"})
    unnamed = json.dumps(whole | {"milestones": [{"frames": 1000}]})
    for text in ("{}", "[]", '{"status": ', less, unnamed):
        (copied / "run.json").write_text(text)
        assert evaluate.main(arguments) == 1
        assert "run.json is not a record of a run" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["game", "seed", "protocol", "settings_hash", "milestone_frames"])
def test_a_policy_of_another_training_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, key: str
) -> None:
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    policy = checkpoint.load(copied / "policies/1000.pt")
    others = {"game": "pong", "protocol": "sticky", "settings_hash": "0123"}
    other = others.get(key, 7)
    checkpoint.save(copied / "policies/1000.pt", {**policy, key: other})
    own = {"settings_hash": policy.get("settings_hash", "4567")}
    record = json.loads((copied / "run.json").read_text()) | own
    (copied / "run.json").write_text(json.dumps(record))
    arguments = ["--run", str(copied), "--milestone-frames", "1000", "--out", str(tmp_path / "out")]
    assert evaluate.main(arguments) == 1
    error = capsys.readouterr().err
    assert f"policies/1000.pt: is of another training: {key} {other!r}" in error


def test_an_evaluation_is_not_written_over(
    run: Path, evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = Path(shutil.copytree(evaluated, tmp_path / "out"))
    arguments = ["--run", str(run), "--milestone-frames", "1000", "--out", str(out)]
    assert evaluate.main([*arguments, "--episodes", "1", "--seed", "7"]) == 1
    assert f"error: out: {out} has an evaluation already" in capsys.readouterr().err
    for name in ("episodes.csv", "traces.npz"):
        assert (out / name).read_bytes() == (evaluated / name).read_bytes()


def test_a_file_is_no_folder_for_an_evaluation(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out.csv"
    out.write_text("kept")
    arguments = ["--run", str(run), "--milestone-frames", "1000", "--out", str(out)]
    assert evaluate.main(arguments) == 1
    assert f"error: out: {out} is a file; give a folder" in capsys.readouterr().err
    assert out.read_text() == "kept"


def test_every_episode_has_a_random_stream_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """No uniform number is drawn twice, over 20 episodes in 3 lanes."""
    drawn, choose = [], evaluate.choose_actions

    def record(logits, uniform):
        drawn.extend(uniform[uniform > 0])  # a lane without an episode has 0
        return choose(logits, uniform)

    monkeypatch.setattr(evaluate, "choose_actions", record)
    played = play(monkeypatch, Lengths, 3, 20)
    assert len(drawn) == len(set(drawn)) == sum(episode.episode_return for episode in played)


# --- policies of action values

REPLAY = {
    "network": "mnih2013",
    "lanes": 4,
    "replay_capacity_steps": 400,
    "learning_starts_frames": 800,
    "evaluation_epsilon": 0.2,
}


@pytest.fixture(scope="module", params=["dqn", "dueling"])
def value_based(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on Breakout; only read."""
    run = tmp_path_factory.mktemp(request.param)
    arguments = ["--method", str(METHODS / f"{request.param}.yaml"), "--game", "breakout"]
    arguments += ["--seed", "0", "--milestones-frames", "1000", "--device", "cpu"]
    assert train.main([*arguments, "--set", json.dumps(REPLAY), "--out", str(run)]) == 0
    return run


def test_action_values_are_evaluated_and_audited(value_based: Path, tmp_path: Path) -> None:
    """The contract of every method, with the epsilon that the settings name."""
    out = evaluation(value_based, tmp_path / "out")
    found = rows(out)
    assert tuple(found[0]) == evaluate.COLUMNS
    assert {row["method"] for row in found} == {value_based.name[:-1]}
    assert trace.load(out / "traces.npz")[0]["evaluation_epsilon"] == 0.2
    assert audit.main([str(out)]) == 0
    again = evaluation(value_based, tmp_path / "again", lanes=1)
    assert (again / "traces.npz").read_bytes() == (out / "traces.npz").read_bytes()


def test_a_loaded_policy_has_the_values_it_was_saved_with(value_based: Path) -> None:
    policy, network = evaluate.load_policy(value_based / "policies" / "1000.pt", "cpu")
    settings = config.build_settings(policy["settings"], "policy")
    other = networks.build_action_values(settings, 4, seed=7)
    seen = torch.randint(0, 256, (3, 4, 84, 84), dtype=torch.uint8)
    assert not torch.allclose(other(seen)[0], network(seen)[0])
    other.load_state_dict(policy["weights"])
    assert torch.equal(other(seen)[0], network(seen)[0])


@pytest.mark.parametrize(("epsilon", "sample", "share"), [(0.4, True, 0.2), (0.4, False, 0.0)])
def test_epsilon_greedy_leaves_the_best_action_as_often_as_it_should(
    monkeypatch: pytest.MonkeyPatch, epsilon: float, sample: bool, share: float
) -> None:
    """Of two actions half of epsilon; never where the selection is greedy."""
    use_tiny_trunk(monkeypatch)
    network = networks.ActionValueNetwork("mnih2013", 2, observation_shape=(1, 1, 2))
    torch.nn.init.zeros_(network.q.weight)
    network.q.bias.data[:] = torch.tensor([0.0, 1.0])
    name = ("dqn", "pong", 0, 1)
    played = evaluate.play(network, Lengths(5), 400, 1000, name, sample, epsilon)
    actions = np.concatenate([episode.trace.actions for episode in played])
    assert abs((actions == 0).mean() - share) < 0.03
