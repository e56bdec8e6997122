"""Runs a program and tells what it printed, how long it took and how much memory it had."""

import os
import subprocess
import sys
import time


class Failed(Exception):
    pass


class Done:
    def __init__(self, text, seconds, peak):
        self.text, self.seconds, self.peak = text, seconds, peak


def run(command, **environment):
    """Fails with what the program said last if it does not exit with 0. `peak` is in bytes."""
    command = [str(word) for word in command]
    start = time.perf_counter()
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
        text=True,
    )
    text, errors = child.stdout.read(), child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        last = errors.strip().splitlines()[-1:] or ["nothing on standard error"]
        raise Failed(f"{' '.join(command[:6])} …: exit code {child.returncode}: {last[0]}")
    scale = 1 if sys.platform == "darwin" else 1024
    return Done(text, time.perf_counter() - start, usage.ru_maxrss * scale)
