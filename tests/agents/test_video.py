"""Published episodes as animations: what is shown, for how long, and what is refused."""

from __future__ import annotations

import io
import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agents import audit, video
from tests.agents.test_audit import edit_rows, edit_traces, other_action


@pytest.fixture(scope="module")
def evaluation(evaluated: Path) -> audit.Evaluation:
    return audit.load(evaluated / "traces.npz")


def test_a_picture_of_the_start_and_of_every_decision(evaluation: audit.Evaluation) -> None:
    replayed, pictures = video.film(evaluation, 1, 0, 108_000)
    assert replayed.episode_return == int(evaluation.rows[1]["return"])
    assert len(pictures) == replayed.steps + 1 == len(evaluation.traces[1].actions) + 1
    assert {(picture.shape, str(picture.dtype)) for picture in pictures} == {
        ((210, 160, 3), "uint8")
    }
    changes = [not np.array_equal(*pair) for pair in itertools.pairwise(pictures)]
    assert np.mean(changes) > 0.5


@pytest.mark.parametrize(("first_frame", "first"), [(40, 10), (37, 10), (41, 11)])
def test_a_part_is_those_pictures_of_the_whole(
    evaluation: audit.Evaluation, first_frame: int, first: int
) -> None:
    _, whole = video.film(evaluation, 1, 0, 108_000)
    replayed, part = video.film(evaluation, 1, first_frame, 80)
    last = (first_frame + 80) // 4
    assert replayed.steps == len(whole) - 1
    assert np.array_equal(part, whole[first : last + 1])


def test_the_end_can_be_shown(evaluation: audit.Evaluation) -> None:
    _, whole = video.film(evaluation, 2, 0, 108_000)
    _, part = video.film(evaluation, 2, 4 * (len(whole) - 1), 4)
    assert np.array_equal(part, whole[-1:])


@pytest.mark.parametrize("suffix", video.FORMATS)
def test_every_picture_has_its_time_and_its_colours(
    evaluation: audit.Evaluation, suffix: str
) -> None:
    _, pictures = video.film(evaluation, 0, 0, 600)
    image = Image.open(io.BytesIO(video.animation(pictures, suffix, scale=2)))
    assert (image.format, image.size) == (suffix[1:].upper(), (320, 420))
    tick = video.FORMATS[suffix][0]
    shown, at = 0, 0
    for frame in range(image.n_frames):  # equal ones in a row may have become one
        image.seek(frame)
        image.load()
        screen = np.asarray(image.convert("RGB"))[::2, ::2]
        end = at + image.info["duration"]
        while shown < len(pictures) and 1000 * shown * 4 / 60 < end - tick / 2:
            assert np.array_equal(screen, pictures[shown]), shown
            shown += 1
        at = end
    assert shown == len(pictures)
    assert abs(at - 1000 * len(pictures) * 4 / 60) <= tick / 2


def test_the_command(evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "new" / "episode.gif"
    assert video.main([str(evaluated), "--episode", "2", "--out", str(out), "--scale", "1"]) == 0
    rows = audit.load(evaluated / "traces.npz").rows
    assert (
        f"a2c, breakout, seed 0 at 1000 frames, episode 2 of 3: return {rows[2]['return']} after "
        f"{rows[2]['length_frames']} frames, as published"
    ) in capsys.readouterr().out
    with Image.open(out) as image:
        assert image.size == (160, 210)


@pytest.mark.parametrize("edit", ["return", "action"])
def test_an_episode_that_was_not_played_so_is_refused(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture, edit: str
) -> None:
    folder, out = tmp_path / "evaluation", tmp_path / "episode.gif"
    shutil.copytree(evaluated, folder)
    if edit == "action":
        edit_traces(folder, other_action)
    else:
        edit_rows(folder, lambda rows: rows[2].update({"return": "99"}))
    assert video.main([str(folder), "--episode", "2", "--out", str(out)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "episode 2" in error
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--episode", "3"], "episode: 3 is not there; allowed: 0 to 2"),
        (["--episode", "-1"], "episode: -1 is not there; allowed: 0 to 2"),
        (["--first-frame", "999999"], "first_frame: 999999 is not in episode 0; allowed: 0 to "),
        (["--first-frame", "-4"], "first_frame: -4 is not in episode 0; allowed: 0 to "),
        (["--frames", "3"], "frames: 3 must be at least 4"),
        (["--scale", "0"], "scale: 0 must be at least 1"),
        (["--out", "episode.mp4"], "out: episode.mp4 must end in one of .gif, .webp, .png"),
    ],
)
def test_bad_arguments(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture, arguments: list, words: str
) -> None:
    out = tmp_path / "episode.gif"
    assert video.main([str(evaluated), "--out", str(out), *arguments]) == 1
    assert f"error: {words}" in capsys.readouterr().err
    assert not out.exists()


def test_a_folder_without_traces(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert video.main([str(tmp_path), "--out", str(tmp_path / "episode.gif")]) == 1
    assert f"error: EVALUATION: {tmp_path / 'traces.npz'} does not exist" in capsys.readouterr().err
