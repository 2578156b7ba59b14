"""Files are whole or absent; seeds and schedules are what they say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from agents import checkpoint, files
from agents.schedules import (
    Diverged,
    corrected_update,
    exploration,
    importance_exponent,
    learning_rate,
    require_finite,
)
from agents.seeding import derive_seed, numpy_generator
from tests.agents.worlds import settings


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "deep" / "run.json"
    files.write_json(path, {"frames": 1})

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        files.write_json(path, {"frames": 2})
    assert path.read_text() == '{\n  "frames": 1\n}\n'
    assert list(path.parent.iterdir()) == [path]


def test_json_without_numbers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "x.json", {"mean": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_comes_back_and_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    content = {"weights": torch.arange(3.0), "actions": [b"", b"\x00\xff"], "log": "1,2\n"}
    checkpoint.save(path, content)
    found = checkpoint.load(path)
    assert torch.equal(found["weights"], content["weights"])
    assert (found["actions"], found["log"]) == (content["actions"], content["log"])
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"x" * 100):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"checkpoint\.pt: not a readable checkpoint"):
            checkpoint.load(path)
    checkpoint.save(path, {**content, "format": 99})
    with pytest.raises(ValueError, match="checkpoint format 99; allowed: 1"):
        checkpoint.load(path)


def test_seeds_depend_on_every_name_and_fit_the_emulator() -> None:
    """Fixed numbers: a trace of last year must name the same episodes next year."""
    assert derive_seed(0, "lane", 1, "episode", 2) == 167_509_309
    names = [(0, "lane", 1), (1, "lane", 0), (0, "lane", 11), (0, "lane1", ""), ("lane", 0, 1)]
    assert len({derive_seed(*name) for name in names}) == len(names)
    assert all(0 <= derive_seed(n) < 2**31 for n in range(1000))
    first, again = (numpy_generator("a", 1).random(4).tolist() for _ in range(2))
    assert first == again


def test_learning_rate_falls_to_zero_over_the_budget() -> None:
    """0.8 at the start, 0.6 after a quarter, 0 at the end and past it."""
    linear = settings("a2c", learning_rate=0.8, learning_rate_schedule="linear_to_zero")
    rates = [learning_rate(linear, frames, 400) for frames in (0, 100, 400, 500)]
    assert rates == pytest.approx([0.8, 0.6, 0.0, 0.0])
    constant = settings("a2c", learning_rate=0.8)
    assert [learning_rate(constant, frames, 400) for frames in (0, 500)] == [0.8, 0.8]


def test_exploration_falls_from_where_learning_starts() -> None:
    """From 1 to 0.1 in 1000 frames after the first 200: 0.55 half-way, at 700."""
    chosen = settings(
        "dqn",
        learning_starts_frames=200,
        epsilon_anneal_frames=1000,
        epsilon_start=1.0,
        epsilon_end=0.1,
    )
    found = [exploration(chosen, frames) for frames in (0, 200, 700, 1200, 9000)]
    assert found == pytest.approx([1.0, 1.0, 0.55, 0.1, 0.1])


def test_importance_weights_grow_to_full_ones() -> None:
    """From 0.4 to 1 in 1000 frames: 0.55 after a quarter."""
    chosen = settings("prioritized", importance_exponent_start=0.4, importance_anneal_frames=1000)
    found = [importance_exponent(chosen, frames) for frames in (0, 250, 1000, 9000)]
    assert found == pytest.approx([0.4, 0.55, 1.0, 1.0])


def test_corrected_updates_count_from_1() -> None:
    for correction, expected in ((True, [1, 2, 8]), (False, [None] * 3)):
        chosen = settings("a2c", rmsprop_bias_correction=correction)
        assert [corrected_update(chosen, updates) for updates in (0, 1, 7)] == expected


def test_what_is_not_finite_is_named() -> None:
    require_finite(loss=torch.tensor(1.0), gradient_norm=torch.tensor(0.0))
    with pytest.raises(Diverged, match="gradient_norm is inf"):
        require_finite(loss=torch.tensor(1.0), gradient_norm=torch.tensor(float("inf")))
    with pytest.raises(Diverged, match="loss is nan"):
        require_finite(loss=torch.tensor(float("nan")), gradient_norm=torch.tensor(1.0))


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    whole = [
        tmp_path / name
        for name in ("resume/0a1b/checkpoint.pt", "progress.json", "policies/2000.pt")
    ]
    left = [path.with_name(f".{path.name}.4711{files.PART}") for path in whole]
    for path in (*whole, *left):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"content")
    with checkpoint.exclusive(tmp_path):
        assert [path for path in left if path.exists()] == []
        assert [path.read_bytes() for path in whole] == [b"content"] * 3


def test_what_the_machine_refuses_is_not_called_a_damaged_checkpoint(tmp_path: Path) -> None:
    """The natural answer to a damaged one is to delete it."""
    with pytest.raises(IsADirectoryError):
        checkpoint.load(tmp_path)
    (tmp_path / "half").write_bytes(b"half")
    with pytest.raises(checkpoint.ResumeError, match="half: not a readable checkpoint"):
        checkpoint.load(tmp_path / "half")
