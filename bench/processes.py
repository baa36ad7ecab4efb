"""Running the two sides as processes of their own, and what the kernel says of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def fail(text: str) -> None:
    say(f"error: {text}")
    sys.exit(1)


class Ended(Exception):
    """A process that the bench started did not do what it should."""


class Watch(threading.Thread):
    """Asks the kernel, ten times a second, what a process holds and has read, and when `first` got its first line."""

    def __init__(self, pid: int, first: Path | None):
        super().__init__(daemon=True)
        self.pid, self.anonymous, self.read, self.ended = pid, 0, 0, threading.Event()
        self.first, self.first_at = first, None

    def run(self) -> None:
        while not self.ended.wait(0.1):
            if self.first and not self.first_at and self.first.exists() and self.first.stat().st_size:
                self.first_at = time.perf_counter()
            try:
                status = Path(f"/proc/{self.pid}/status").read_text()
                reads = Path(f"/proc/{self.pid}/io").read_text()
            except OSError:
                return
            for line in status.splitlines():
                if line.startswith("RssAnon:"):
                    self.anonymous = max(self.anonymous, int(line.split()[1]) * 1024)
            for line in reads.splitlines():
                if line.startswith("read_bytes:"):
                    self.read = max(self.read, int(line.split()[1]))


def process(
    command: list,
    log: Path,
    cores: int,
    *,
    cwd: Path = ROOT,
    variables: dict | None = None,
    first: Path | None = None,
    until: float | None = None,
) -> dict:
    """Runs a command to its end; its output goes to `log`. Peak memory is the kernel's (VmHWM).

    `first` is a file that the command writes, to learn when its first line is there. At `until`, by
    `time.monotonic`, the command is killed.
    """
    environment = dict(os.environ, BENCH_THREADS=str(cores), TOKENIZERS_PARALLELISM="true")
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
        environment[name] = str(cores)
    environment.update(variables or {})
    started, started_at = time.perf_counter(), time.time()
    with open(log, "wb") as out, open(log.with_suffix(".err"), "wb") as err:
        child = subprocess.Popen([str(word) for word in command], stdout=out, stderr=err, cwd=cwd, env=environment)
        watch = Watch(child.pid, first)
        watch.start()
        killer = threading.Timer(max(until - time.monotonic(), 0), child.kill) if until else None
        if killer:
            killer.start()
        _, status, usage = os.wait4(child.pid, 0)
        if killer:
            killer.cancel()
        watch.ended.set()
    child.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - started
    if child.returncode != 0 and until and time.monotonic() >= until:
        raise Ended("the time was up")
    if child.returncode != 0:
        tail = log.with_suffix(".err").read_text(errors="replace")[-3000:]
        raise Ended(f"`{' '.join(str(word) for word in command)}` ended with {child.returncode}:\n{tail}")
    return {
        "wall": wall,
        "started_at": started_at,
        "first_line": watch.first_at and watch.first_at - started,
        "peak_bytes": usage.ru_maxrss * 1024,
        "anonymous_bytes": watch.anonymous,
        "read_bytes": watch.read,
        "output": log.read_text(errors="replace"),
    }


def last_json(output: str) -> dict:
    return json.loads(output.strip().splitlines()[-1])
