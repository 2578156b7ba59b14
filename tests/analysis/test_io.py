"""Atomic writes with fixed bytes."""

import os
from pathlib import Path

import pandas as pd
import pytest

from analysis.io import atomic_path, csv_text, write_csv, write_text


def test_csv_bytes_are_fixed_and_lose_nothing():
    frame = pd.DataFrame(
        {"a": [0.1 + 0.2, 1e-17, float("nan")], "b": [1, 2, 3], "c": ["x", "", "ü"]}
    )
    assert csv_text(frame) == "a,b,c\n0.30000000000000004,1,x\n1e-17,2,\n,3,ü\n"


def test_files_are_utf8_with_line_feeds(tmp_path: Path):
    write_csv(tmp_path / "new" / "a.csv", pd.DataFrame({"a": ["ü"]}))
    assert (tmp_path / "new" / "a.csv").read_bytes() == b"a\n\xc3\xbc\n"
    write_text(tmp_path / "a.txt", "one\ntwo\n")
    assert (tmp_path / "a.txt").read_bytes() == b"one\ntwo\n"


def write_half(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        raise RuntimeError("half way")


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError, match="half way"):
        write_half(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_old_file_stays_until_the_new_one_is_complete(tmp_path: Path):
    write_text(tmp_path / "a.svg", "old")
    with atomic_path(tmp_path / "a.svg") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".svg"
        temporary.write_text("new")
        assert (tmp_path / "a.svg").read_text() == "old"
    assert (tmp_path / "a.svg").read_text() == "new"


def test_permissions_follow_the_umask(tmp_path: Path):
    """Results are shared on a cluster: a file that only its owner can read would break that."""
    mask = os.umask(0o022)
    try:
        write_text(tmp_path / "a.txt", "text")
    finally:
        os.umask(mask)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644
