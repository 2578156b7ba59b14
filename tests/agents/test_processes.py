"""Child processes never outlive the one that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch

from agents import machine, processes

ROOT = Path(__file__).resolve().parents[2]
STARTS_A_CHILD = """
import sys, time
from agents.processes import Child
def work(parent, then):
    parent.send("here")
    parent.receive() if then == "listens" else time.sleep(60)
child = Child("child", work, sys.argv[1])
assert child.receive() == "here"
print(child.process.pid, flush=True)
"""


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # a zombie is dead: whoever adopted it has not looked yet


@pytest.mark.parametrize("child", ["listens", "hears nothing"])
@pytest.mark.parametrize(
    ("end", "code"),
    [("", 0), ("raise SystemExit(5)", 5), ("time.sleep(60)", -signal.SIGKILL)],
    ids=["returns", "raises", "is killed"],
)
def test_a_child_ends_with_its_parent(child: str, end: str, code: int) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", STARTS_A_CHILD + end, child],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        pid = int(parent.stdout.readline())
        if code == -signal.SIGKILL:
            assert is_alive(pid)
            parent.kill()
        assert parent.wait(30) == code
        deadline = time.monotonic() + 10
        while is_alive(pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not is_alive(pid)
    finally:
        parent.kill()
        parent.stdout.close()
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


def test_no_library_has_threads_where_workers_are_forked() -> None:
    """A lock that one of them holds would stay locked in the fork."""
    count = "import os, agents.train, scipy.linalg; print(len(os.listdir('/proc/self/task')))"
    environment = {key: value for key, value in os.environ.items() if "THREADS" not in key}
    shown = subprocess.run(
        [sys.executable, "-c", count], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert shown.stdout == "1\n"


def test_a_message_to_a_dead_child_names_it() -> None:
    child = processes.Child("worker 7", lambda parent: sys.exit(3))
    child.process.join()
    with pytest.raises(RuntimeError, match="worker 7 died with exit code 3"):
        child.send("go")


def test_a_gpu_computes_float32_in_float32() -> None:
    """Not in TF32, cuDNN's default for convolutions. Only the switch can be seen without a GPU."""
    torch.backends.cudnn.allow_tf32 = True
    machine.prepare()
    assert not torch.backends.cudnn.allow_tf32


def test_python_may_warn_of_threads_at_the_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does from 3.12 on; a warning is an error here."""
    fork = os.fork

    def fork_of_312() -> int:
        text = "This process (pid=1) is multi-threaded, use of fork() may lead to deadlocks"
        warnings.warn(text, DeprecationWarning, stacklevel=2)
        return fork()

    monkeypatch.setattr(os, "fork", fork_of_312)
    child = processes.Child("child", lambda parent: parent.send("here"))
    assert child.receive() == "here"
    child.kill()
