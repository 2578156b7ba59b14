"""What the value of a setting stands for: an error says what there is where nothing answers to it.

agents/config.py checks what a method file says. A value that was added there alone must not train
as another, so no branch has a last `else` that takes whatever is left.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def require_known(name: str, value: Any, known: Collection[Any]) -> None:
    """Raise `ValueError` naming the setting, its `value` and the `known` ones it is not among."""
    if value not in known:
        raise ValueError(f"{name}: unknown value {value!r}; allowed: {', '.join(map(str, known))}")


def choose(name: str, value: Any, known: Mapping[Any, T]) -> T:
    """Return what `known` has for the `value` of the setting `name`."""
    require_known(name, value, known)
    return known[value]


def loss_divisor(loss_reduction: str, examples: int) -> int:
    """Return by what a loss that is summed over so many examples is divided."""
    return choose("loss_reduction", loss_reduction, {"mean": examples, "sum": 1})
