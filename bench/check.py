"""Whether the report says what the measurements say. Takes no time and measures nothing."""

import tempfile
import xml.dom.minidom
from pathlib import Path

import formats
import growth
import main
import plot
import report
import store
import table
import targets


def group(engine, weights, samples, kind="speed", **more):
    about = {"model": "smollm2", "title": "SmolLM2-135M", "bytes_per_token": 100, "note": "", "kind": kind}
    return {**about, "engine": engine, "weights": weights, "samples": samples, **more}


def results():
    ours = [{"pp": rate, "tg": {"0": rate / 10}, "peak_bytes": 90} for rate in (300, 100, 200)]
    theirs = [{"pp": 100, "tg": {"0": 20}, "first_s": 0.4, "peak_bytes": 100}]
    curve = {"length": {str(n): n / (0.001 + 1e-4 * n + 1e-8 * n * n) for n in (64, 512, 2048, 8192)}}
    curve["depth"] = {str(n): 1 / (0.01 + 2e-6 * n) for n in (0, 512, 2048)}
    shape = {"cache_bytes": 20000, "attention_operations": 60000}
    limits = {"samples": [{"bandwidth": 4000, "operations": {"f32": 1e9}}]}
    return {
        "identity": {"threads": 2, "machine": {"processor": "a <processor>", "cores": 2, "memory_bytes": 2**30, "system": "Linux"}},
        "parts": {
            "table": {
                "limits": limits,
                "speed": group("kiln", targets.FOUR, ours),
                "first": group("kiln", targets.FOUR, [{"first_s": 0.3}], "first"),
                "llama": group("llama.cpp", "Q4_0", theirs),
                "none": group("transformers", "bf16", [], failed="no such program"),
            },
            "curves": {"kiln, 2 threads": {"name": "kiln, 2 threads", "engine": "kiln", "threads": 2, "shape": shape, "samples": [curve]}},
        },
    }


def verdicts():
    rows = {row.title: row for row in targets.table(results())}
    prefill, first = rows["SmolLM2-135M 4 bit, prefill 512"], rows["SmolLM2-135M 4 bit, load to first token"]
    assert (prefill.shown(), prefill.verdict()) == ("2.00x", "reached"), prefill
    assert (first.shown(), first.verdict()) == ("0.75x", "**missed** by 50%"), first
    assert rows["1.1B 4 bit, prefill 512"].reached is None
    decode = rows["SmolLM2-135M 4 bit, decode 128"]
    assert (decode.shown(), decode.verdict()) == ("1.00x", "**missed** by 33%"), decode
    assert targets.Numbers(results()).share("smollm2", "kiln", targets.FOUR) == 100 * 20 / 4000


def asked():
    """What the command line may name is what the parts measure."""
    assert set(main.MODELS) == {*table.TITLES, *formats.FORMATS}
    names = {row.why[2] for row in targets.table({}) if row.why[0] == "formats"}
    assert names <= set(formats.FORMATS["1.1b"]), names


def slopes():
    base, each, pair = growth.fit([(x, 3 + 2 * x + 0.5 * x * x) for x in (1, 2, 5, 9)], [0, 1, 2])
    assert all(abs(a - b) < 1e-6 for a, b in ((base, 3), (each, 2), (pair, 0.5)))
    said = {name: text for name, _, text, _ in growth.all_of(targets.Numbers(results()))}
    assert "10.00 ms, and 2.00 µs more" in said["depth"] and "at 10.0 GB/s" in said["depth"], said
    assert "100 µs for each token, and 20.0 ns" in said["length"] and "at 3000 Gop/s" in said["length"], said


def written():
    with tempfile.TemporaryDirectory() as folder:
        report.write(results(), Path(folder))
        text = (Path(folder) / "BENCHMARKS.md").read_text()
        for plotted in Path(folder).glob("bench/plots/*.svg"):
            xml.dom.minidom.parse(str(plotted))
            assert f"bench/plots/{plotted.name}" in text
        assert "| kiln 4 bit g64, bf16 | 200.0 | 20.0 | 50% | 0.300 | 0 | 3 |" in text, text
        assert report.failures(results()) == ["none: no such program"]
    xml.dom.minidom.parseString(plot.lines("a & b", "x", "y", [("c < d", [(1, 1)])], logarithmic=True))


def resumed():
    with tempfile.TemporaryDirectory() as folder:
        file, taken = Path(folder) / "results.json", []
        turns = [store.Turn(name, 2, lambda name=name: taken.append(name) or {}) for name in "ab"]
        first = store.Store(file, {"kiln": 1})
        first.take("table", turns[:1])
        again = store.Store(file, {"kiln": 1})
        again.take("table", turns)
        assert taken == ["a", "a", "b", "b"], taken
        assert store.Store(file, {"kiln": 2}).groups("table") == {}


if __name__ == "__main__":
    checks = [verdicts, asked, slopes, written, resumed]
    store.say = lambda text: None
    for check in checks:
        check()
    print(f"{len(checks)} passed, 0 failed")
