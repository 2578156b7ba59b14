"""Ray seen from outside: what it raises of the dead, and a start that fails."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from agents import gorila, ray_cluster
from agents.gorila_processes import Process, Task
from agents.processes import RestoreError


class RayTaskError(Exception):
    """Ray's own carries what the task raised."""

    def __init__(self, cause: Exception) -> None:
        self.cause = cause


EXCEPTIONS = SimpleNamespace(
    RayTaskError=RayTaskError,
    **{
        name: type(name, (Exception,), {})
        for name in (
            "RayActorError", "ActorUnschedulableError", "OutOfMemoryError", "ObjectLostError"
        )
    },
)  # fmt: skip


class Ray:
    """A Ray that raises what is put into it, one error an `init` or `get`."""

    exceptions = EXCEPTIONS

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls: list[str] = []

    def is_initialized(self) -> bool:
        return False

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.errors:
            raise self.errors.pop(0)

    def init(self, **_: Any) -> None:
        self._call("init")

    def get(self, _: Any) -> None:
        self._call("get")

    def shutdown(self) -> None:
        self.calls.append("shutdown")


def use(monkeypatch: pytest.MonkeyPatch, ray: Ray) -> Ray:
    monkeypatch.setattr(ray_cluster, "import_ray", lambda: ray)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return ray


def test_a_start_that_failed_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = use(monkeypatch, Ray(Exception("The current node timed out during startup.")))
    assert ray_cluster.connect(2)
    assert ray.calls == ["init", "shutdown", "init"]


def test_a_ray_that_does_not_start_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """`agents.train` prints an `OSError` in a line."""
    ray = use(monkeypatch, Ray(*[Exception("The current node timed out")] * 9))
    with pytest.raises(OSError, match=r"^Ray did not start, 3 times: The current node timed out"):
        ray_cluster.connect(2)
    assert ray.calls == ["init", "shutdown"] * 3


def test_a_cluster_that_is_not_there_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = use(monkeypatch, Ray(ConnectionError("no cluster at 10.0.0.1")))
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(ConnectionError, match="no cluster at"):
        ray_cluster.connect(2)
    assert ray.calls == ["init"]


def finished(monkeypatch: pytest.MonkeyPatch, kind: str, error: Exception) -> list[tuple]:
    """Return which processes a driver replaces that gets `error` from an actor's task."""
    driver = object.__new__(gorila.Gorila)
    driver._ray = use(monkeypatch, Ray(error))
    replaced: list[tuple] = []
    monkeypatch.setattr(
        driver, "_replace", lambda process, _: replaced.append((process.kind, process.index))
    )
    driver._finish(Task(kind, Process("actor", 1, 1, object(), "node")), object())
    return replaced


@pytest.mark.parametrize("name", ["RayActorError", "ActorUnschedulableError", "OutOfMemoryError"])
@pytest.mark.parametrize("kind", ["death", "play", "prepare"])
def test_a_process_is_replaced_whatever_killed_it(
    monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    """Ray's watch over memory too."""
    error = getattr(EXCEPTIONS, name)()
    assert finished(monkeypatch, kind, error) == [("actor", 1)]


def test_a_state_that_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    error = RayTaskError(ValueError("pong, lane 3: the replayed episode does not show"))
    with pytest.raises(RestoreError, match=r"^Gorila actor 1: pong, lane 3: the replayed episode"):
        finished(monkeypatch, "prepare", error)
    with pytest.raises(RayTaskError):  # what fails in its work is a bug
        finished(monkeypatch, "play", RayTaskError(ValueError("shapes")))
