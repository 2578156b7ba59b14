"""Processes that train beside the run's own: forked, deaf to signals, gone when their parent is."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import weakref
from collections.abc import Callable
from multiprocessing import connection
from typing import Any

from agents import machine

POLL_SECONDS = 0.5  # between two looks whether the parent still lives


class Parent:
    """The process that started this one, seen from here."""

    def __init__(self, pipe: connection.Connection) -> None:
        self._pipe = pipe
        self._pid = os.getpid()  # made before the fork

    def lives(self) -> bool:
        """Whether the parent is still there; a killed one cannot stop its children."""
        return os.getppid() == self._pid

    def send(self, message: Any) -> None:
        """Send what `Child.receive` returns. No tensors: they would keep this process's memory."""
        self._pipe.send(message)

    def receive(self) -> Any:
        """Return what the parent sends next; end this process if it never will."""
        # Siblings hold copies of the pipe's other end, so that a dead parent does not close it.
        while not self._pipe.poll(POLL_SECONDS):
            if not self.lives():
                sys.exit()
        return self._pipe.recv()


class Child:
    """A process that runs `work(parent, *arguments)`, seen from its parent.

    Args:
        name: what its error calls it, "A3C worker 3".
        work: the function; returning ends the process.
        arguments: of `work`; shared with this process up to now, as after any fork.
    """

    def __init__(self, name: str, work: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("fork")
        self.name = name
        self.pipe, there = context.Pipe()
        self.process = context.Process(
            target=_run, args=(work, Parent(there), *arguments), daemon=True
        )
        self.process.start()
        there.close()
        # At exit Python terminates what is left and waits for it, but a child is deaf to that.
        weakref.finalize(self, self.process.kill)

    def send(self, message: Any) -> None:
        """Send what `Parent.receive` returns."""
        self.pipe.send(message)

    def receive(self) -> Any:
        """Return what the child sends next; `RuntimeError` with its name if it has died."""
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            code = self.process.exitcode
            raise RuntimeError(f"{self.name} died with exit code {code}") from None

    def kill(self) -> None:
        """End the process at once: what is to be kept of it has been asked for."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _run(work: Callable[..., None], parent: Parent, *arguments: Any) -> None:
    machine.prepare()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # the parent hears them and stops its children
    work(parent, *arguments)
