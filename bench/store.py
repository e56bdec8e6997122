"""What was measured. It is in a file that is written after every measurement, so that a run that was cut
can be gone on with."""

import json
import time
from dataclasses import dataclass, field
from typing import Callable

import child
from models import say


class Late(Exception):
    """The time that was given is over."""


@dataclass
class Turn:
    """Something to be measured several times, in turn with others."""

    key: str
    wanted: int
    measure: Callable  # gives a sample: an object of JSON
    about: dict = field(default_factory=dict)


class Store:
    """`identity` is what all measurements of a file are of: a file of another one is put aside. What took
    place while others had more than `most` of the processor is measured again, but not more than twice."""

    def __init__(self, file, identity, seconds=None, most=None):
        self.file, self.end, self.most = file, seconds and time.monotonic() + seconds, most
        self.results = json.loads(file.read_text()) if file.exists() else {}
        if self.results and self.results.get("identity") != identity:
            aside = file.with_suffix(".old.json")
            file.rename(aside)
            say(f"{file.name} is of another build, machine or number of threads: put aside as {aside.name}")
            self.results = {}
        self.results["identity"] = identity

    def groups(self, part):
        return self.results.setdefault("parts", {}).setdefault(part, {})

    def note(self, name, value):
        self.results[name] = value
        self.save()

    def save(self):
        temporary = self.file.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.results, indent=1))
        temporary.rename(self.file)

    def resume(self, part):
        """Keeps what was measured of a part; what failed is tried again."""
        for group in self.groups(part).values():
            group.pop("failed", None)
        count = sum(len(group["samples"]) for group in self.groups(part).values())
        say(f"{part}: {count} measurements of this build kept")

    def forget(self, part):
        self.results.setdefault("parts", {}).pop(part, None)

    def take(self, part, turns):
        """Measures in rounds, each turn once in a round, as often as is wanted and not there yet."""
        for turn in turns:
            group = self.groups(part).setdefault(turn.key, {"samples": []})
            group.update(turn.about)
        for number in range(max((turn.wanted for turn in turns), default=0)):
            for turn in turns:
                group = self.groups(part)[turn.key]
                if len(group["samples"]) <= number < turn.wanted and "failed" not in group:
                    self.measure(group, turn, number)

    def measure(self, group, turn, number):
        if self.end and time.monotonic() > self.end:
            raise Late
        try:
            sample = self.undisturbed(turn)
        except child.Failed as failed:
            group["failed"] = str(failed)
            say(f"error: {turn.key}: {failed}")
        else:
            group["samples"].append(sample)
            say(f"{turn.key}: {number + 1} of {turn.wanted}, {sample['seconds']:.1f} s")
        self.save()

    def undisturbed(self, turn):
        sample = None
        for again in range(3):
            others, start = child.Others(), time.monotonic()
            found = turn.measure()
            seconds, share = round(time.monotonic() - start, 2), others.share()
            found = {**found, "others": share, "seconds": seconds, "again": again}
            if sample is None or share < sample["others"]:
                sample = found
            if self.most is None or share is None or share <= self.most:
                break
            say(f"{turn.key}: other programs had {share:.0%} of the processor")
        return sample


def samples(results, part):
    return [sample for group in results.get("parts", {}).get(part, {}).values() for sample in group["samples"]]
