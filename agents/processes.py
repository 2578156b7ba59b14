"""Processes that train beside the run's own: forked, ignoring signals, ended with their parent."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import select
import signal
import sys
import time
import warnings
import weakref
from collections.abc import Callable
from multiprocessing import connection
from typing import Any, NamedTuple

from agents import machine

# A child that is alive and says nothing for so long is given up. Counted second by second, so
# that a job which was suspended has not waited.
STALL_SECONDS = 600
# Until one has played its episodes again after a restore: half an hour of play in each lane of
# many processes on few cores.
RESTORE_SECONDS = 3600
# A core that sleeps takes longer to wake up than processes in step wait for each other.
SPIN_SECONDS = 0.001


class RestoreError(ValueError):
    """A process cannot begin where its saved state says: the state does not fit."""


class _Refused(NamedTuple):
    """What a child says of a state that does not fit."""

    reason: str


def _poll_of(pipe: connection.Connection) -> select.poll:
    """Return what waits for `pipe` to have something; `Connection.poll` makes one at each call."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    return poll


def _comes_at_once(poll: select.poll) -> bool:
    """Whether something comes within `SPIN_SECONDS`, asked without pause."""
    until = time.perf_counter() + SPIN_SECONDS
    while not poll.poll(0):
        if time.perf_counter() > until:
            return False
    return True


class Parent:
    """The process that started this one, seen from here."""

    def __init__(self, pipe: connection.Connection) -> None:
        self._pipe = pipe
        self._poll = _poll_of(pipe)
        self._pid = os.getpid()  # made before the fork

    def lives(self) -> bool:
        """Whether the parent is still there; a killed one cannot stop its children."""
        return os.getppid() == self._pid

    def send(self, message: Any) -> None:
        """Send what `Child.receive` returns. No tensors: they would keep this process's memory."""
        self._pipe.send(message)

    def restored(self, restore: Callable[[Any], None], state: Any) -> bool:
        """Call `restore(state)`; if it does not fit, tell the parent instead and return False."""
        try:
            restore(state)
        except ValueError as error:
            self.send(_Refused(str(error)))
            return False
        return True

    def receive(self) -> Any:
        """Return what the parent sends next; end this process if it never will."""
        # Siblings hold copies of the pipe's other end, so that a dead parent does not close it.
        while not (_comes_at_once(self._poll) or self._poll.poll(500)):
            if not self.lives():
                sys.exit()
        return self._pipe.recv()


class Child:
    """A process that runs `work(parent, *arguments)`, seen from its parent.

    Args:
        name: what its error calls it, "A3C process 3".
        work: the function; returning ends the process.
        arguments: of `work`; shared with this process up to now, as after any fork.
    """

    def __init__(self, name: str, work: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("fork")
        self.name = name
        self.pipe, there = context.Pipe()
        self._poll = _poll_of(self.pipe)
        self.process = context.Process(
            target=_run, args=(work, Parent(there), *arguments), daemon=True
        )
        with warnings.catch_warnings():
            # From 3.12 on Python warns of threads at a fork. Those here are emulators', which the
            # child never touches: it makes its own.
            warnings.filterwarnings("ignore", ".* is multi-threaded", DeprecationWarning)
            self.process.start()
        there.close()
        # At exit Python terminates what is left and waits for it, but a child is deaf to that.
        weakref.finalize(self, self.process.kill)

    def send(self, message: Any) -> None:
        """Send what `Parent.receive` returns. `RuntimeError` with its name if it has died."""
        try:
            self.pipe.send(message)
        except (BrokenPipeError, ConnectionResetError):
            raise self._died() from None

    def receive(self, limit_seconds: int | None = None) -> Any:
        """Return what the child sends next.

        `RuntimeError` with its name if it has died, or has been silent for `limit_seconds`, by
        default `STALL_SECONDS`. `RestoreError` if the child could not begin.
        """
        limit_seconds = limit_seconds or STALL_SECONDS
        for _ in range(limit_seconds):
            if _comes_at_once(self._poll) or self._poll.poll(1000):
                break
        else:
            raise self.stalled(limit_seconds)
        try:
            message = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            raise self._died() from None
        if isinstance(message, _Refused):
            raise RestoreError(f"{self.name}: {message.reason}")
        return message

    def _died(self) -> RuntimeError:
        self.process.join()
        return RuntimeError(f"{self.name} died with exit code {self.process.exitcode}")

    def stalled(self, seconds: int) -> RuntimeError:
        """Return the error to raise when the child stands still; it says on stderr where."""
        os.kill(self.process.pid, signal.SIGUSR2)
        time.sleep(1)  # for it to write, before it is killed
        return RuntimeError(
            f"{self.name} has stood still for {seconds} s; where it does is above, if it "
            "could say so. The run goes on from its last checkpoint when started again"
        )

    def kill(self) -> None:
        """End the process at once: what is to be kept of it has been asked for."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _run(work: Callable[..., None], parent: Parent, *arguments: Any) -> None:
    machine.end_with_parent()
    if not parent.lives():  # it ended before the line above
        return
    machine.prepare()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # the parent hears them and stops its children
    faulthandler.register(signal.SIGUSR2, sys.__stderr__)
    work(parent, *arguments)
