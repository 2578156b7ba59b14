"""How a number of things is divided."""

from __future__ import annotations

import pytest

from agents.shares import shares


def test_shares_cover_everything_once() -> None:
    assert shares(7, 3) == [slice(0, 2), slice(2, 4), slice(4, 7)]
    with pytest.raises(ValueError, match="parts: 4; allowed for 3 things: 1 to 3"):
        shares(3, 4)
