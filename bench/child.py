"""Runs a program and tells what it printed, how long it took and how much memory it had."""

import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

# Seconds after which a program is ended: none that is measured takes so long.
PATIENCE = 900


class Failed(Exception):
    pass


class Done:
    def __init__(self, text, seconds, peak):
        self.text, self.seconds, self.peak = text, seconds, peak


def run(command, **environment):
    """Fails with what the program said last if it does not exit with 0. `peak` is in bytes."""
    command = [str(word) for word in command]
    with tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **environment},
            text=True,
        )
        timer = threading.Timer(PATIENCE, child.kill)
        timer.start()
        text = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        timer.cancel()
        child.stdout.close()
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            errors.seek(0)
            last = errors.read().strip().splitlines()[-1:] or ["nothing on standard error"]
            raise Failed(f"{' '.join(command[:6])} …: exit code {child.returncode}: {last[0]}")
    scale = 1 if sys.platform == "darwin" else 1024
    return Done(text, seconds, usage.ru_maxrss * scale)


class Others:
    """What other programs, and a hypervisor's other guests, have of the processor from now on."""

    def __init__(self):
        self.start, self.busy, self.own = time.perf_counter(), busy(), own()

    def share(self):
        """Of all cores; None where the system does not tell."""
        if self.busy is None:
            return None
        seconds = (time.perf_counter() - self.start) * (os.cpu_count() or 1)
        used = busy() - self.busy - (own() - self.own)
        return round(max(0.0, used / max(seconds, 1e-9)), 3)


def busy():
    """Seconds that all cores together have worked, or were wanted and not given."""
    try:
        line = Path("/proc/stat").read_text().split("\n", 1)[0]
    except OSError:
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, line.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def own():
    """Seconds of this program, and of those that it has run."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
