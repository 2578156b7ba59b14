"""Ray: the only module that imports it, and only when a training of Gorila begins. No torch."""

from __future__ import annotations

import logging
import os
import signal
import threading
from types import ModuleType
from typing import Any

logger = logging.getLogger(__name__)

# Of a Ray that is started here; what the user has set stays.
ENVIRONMENT = {
    # A loaded machine needs longer than Ray's 30 s to start processes. For the first of its own Ray
    # waits 15 s, and that is not to be changed (ray-project/ray#65983): so `_start` tries again.
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_worker_register_timeout_seconds": "300",
    # With Ray's 15 a process has 3 % of a core that another run computes on.
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


STARTS = 3


class Awaited:
    """What runs in an actor of Ray and is replaced when it dies."""

    def until_death(self) -> None:
        """Never return: who waits for it learns of this process's death."""
        threading.Event().wait()


def import_ray() -> ModuleType:
    """Return the module `ray`; `ModuleNotFoundError` says how to install it."""
    try:
        import ray
    except ModuleNotFoundError:
        raise ModuleNotFoundError("gorila needs Ray: pip install ray==2.60.0") from None
    return ray


def deaths() -> tuple[type[Exception], ...]:
    """Return what Ray raises of a process that has died, whatever it was told or asked last."""
    errors = import_ray().exceptions
    # One that Ray's watch over memory has killed is no `RayActorError` to Ray.
    return errors.RayActorError, errors.ActorUnschedulableError, errors.OutOfMemoryError


def connect(workers: int) -> bool:
    """Connect to Ray, unless this process is; return whether it was done here.

    To the cluster that `RAY_ADDRESS` names, else to a Ray started here, whose memory for what
    processes send each other is that of `workers` actors and learners. `OSError` if it does not
    start, or is not there.
    """
    ray = import_ray()
    if ray.is_initialized():
        return False
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if os.environ.get("RAY_ADDRESS"):
        options: dict[str, Any] = {"address": "auto"}
    else:
        memory = (128 + 32 * workers) * 2**20
        options = {"address": "local", "include_dashboard": False, "object_store_memory": memory}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    _start(ray, options)
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():  # Ray puts its own in their place
            signal.signal(number, handler)
    return True


def _start(ray: ModuleType, options: dict[str, Any]) -> None:
    for start in range(1, STARTS + 1):
        try:
            ray.init(**options)
            return
        except OSError:  # no cluster at the address
            raise
        except Exception as error:  # Ray's own is of no other class
            ray.shutdown()
            if start == STARTS:
                raise OSError(f"Ray did not start, {STARTS} times: {error}") from error
            logger.warning("gorila: Ray did not start (%s); once more", error)
