"""instructions.py KILN FILE [--record]: counts instructions of a token; scripts/instructions says why."""

import json
import re
import sys
from pathlib import Path

import child

FORMATS = ["q4", "q8", "bf16"]
TOLERANCE = 0.02


def counted(kiln, name, tokens):
    """Instructions of a whole process that generates so many tokens, and those that warm it up."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--log-fd=1", kiln]
    command += ["bench", "--synthetic", "135m", "--format", name, "--threads", 1, "-r", 1, "-p", 0, "-n", tokens]
    text = child.run(command, KILN_ISA="avx2").text
    return int(re.search(r"Collected : (\d+)", text)[1])


def token(kiln, name):
    return (counted(kiln, name, 3) - counted(kiln, name, 1)) // 2


def main(kiln, file, record=None):
    path = Path(file)
    if record not in (None, "--record"):
        sys.exit(f"error: {record}: expected --record, or nothing")
    known = json.loads(path.read_text()) if path.exists() else {}
    found, wrong = {}, []
    for name in FORMATS:
        found[name] = token(kiln, name)
        change = found[name] / known[name] - 1 if name in known else None
        said = "not recorded" if change is None else f"{change:+.2%} from the recorded {known[name]}"
        print(f"{name}: {found[name]} instructions per token, {said}", flush=True)
        if change is None or abs(change) > TOLERANCE:
            wrong.append(name)
    if record:
        path.write_text(json.dumps(found, indent=1) + "\n")
    elif wrong:
        sys.exit(
            f"error: {', '.join(wrong)}: more than {TOLERANCE:.0%} from what {path.name} records; if that is meant, "
            "run scripts/instructions --record"
        )


try:
    main(*sys.argv[1:])
except child.Failed as failed:
    sys.exit(f"error: {failed}")
