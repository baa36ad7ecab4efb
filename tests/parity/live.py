"""The live comparison: Graft beside transformers, PEFT, bitsandbytes and tiktoken on freshly drawn
random cases.

Command:  python3 tests/parity/live.py [--seeds 1 2 3] [--venv DIR] [--record]    (or `just parity`)

Needs Python 3.11 or newer and cargo; the peers are installed into `target/parity/venv`. Their build for
CPUs is enough. Every seed draws the cases of all areas anew, runs the Rust tests of the fixture layer on
them, and then lets the peers read what Graft writes. Ends with one table, and with exit code 1 if a
deviation is beyond its tolerance, a test fails, or a comparison that is due was not made.
`--record` writes RESULTS.md beside this file.
"""

import argparse
import datetime
import json
import math
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WORK = ROOT / "target" / "parity"
RESULTS = HERE / "RESULTS.md"
DISCREPANCIES = "## Discrepancies found"

# Sums of the reference depend on the width of its vectors and on its threads; Graft follows these.
REFERENCE = {"ATEN_CPU_CAPABILITY": "avx2", "TORCHDYNAMO_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
FIXTURES = ROOT / "tests" / "fixtures"
GENERATORS = {
    **{area: FIXTURES / area for area in
       ("model", "generation", "adapters", "algebra", "chat_template", "tokenizer", "optimizer", "starts")},
    "nf4": ROOT / "kernels" / "tests" / "fixtures" / "nf4",
}
# Each test target with its part of the table.
TESTS = {
    "model_parity": "model",
    "nf4_bitsandbytes": "NF4",
    "adapter_files": "adapters",
    "algebra": "algebra",
    "tokenizers": "tokenizer",
    "chat_templates": "chat_template",
    "laws": "laws",
    "generation": "generation",
    "optimizer": "optimizer",
}
PARTS = list(TESTS.values())
# Comparisons that need a file which the peers bring along, and fall away silently where they do not;
# and those that only the live layer makes.
DUE = [
    ("tokenizer", "Llama 3's vocabulary"),
    ("chat_template", "Meta's Jinja"),
    ("adapters", "Graft's adapter in PEFT"),
    ("adapters", "Graft's merge of its adapter"),
    ("NF4", "bytes of `graft quantize`"),
]


def fail(message):
    sys.exit(f"error: {message}")


def run(command, **options):
    """The command with its output, which is shown only if it fails."""
    started = time.monotonic()
    shown = " ".join(str(word).removeprefix(f"{ROOT}/") for word in command)
    done = subprocess.run(list(map(str, command)), cwd=ROOT, text=True, capture_output=True, **options)
    print(f"{time.monotonic() - started:7.1f} s  {'' if done.returncode == 0 else 'FAILED: '}{shown}", flush=True)
    if done.returncode:
        print(done.stdout[-6_000:], done.stderr[-6_000:], sep="\n", flush=True)
    return done


def needed(command):
    if run(command).returncode:
        fail("the comparison cannot begin without this")


def pins(file):
    lines = (line.split("#")[0].strip() for line in (HERE / file).read_text().splitlines())
    return dict(line.split("==") for line in lines if line)


def peers(venv):
    """The Python of the virtual environment, and the versions in it: those of the pins, or nothing is
    compared."""
    python = (venv or WORK / "venv") / "bin" / "python"
    if venv is None:
        if not python.exists():
            needed([sys.executable, "-m", "venv", WORK / "venv"])
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        needed([*install, "-r", HERE / "requirements.txt"])
        needed([*install, "--no-deps", "-r", HERE / "requirements-files.txt"])
    wanted = pins("requirements.txt") | pins("requirements-files.txt")
    ask = (
        "import importlib.metadata as m, json, platform, sys\n"
        "def version(name):\n"
        "    try: return m.version(name)\n"
        "    except m.PackageNotFoundError: return None\n"
        "print(json.dumps({'Python': platform.python_version()} | {name: version(name) for name in sys.argv[1:]}))"
    )
    found = json.loads(subprocess.run([python, "-c", ask, *wanted], check=True, text=True, capture_output=True).stdout)
    # A local part says which build it is, as `+cpu` does.
    other = [f"{name} {found[name]} instead of {pin}" for name, pin in wanted.items() if (found[name] or "").split("+")[0] != pin]
    if other:
        fail(f"{python} has {', '.join(other)}: remove the folder, or give another `--venv`")
    return python, found


def build():
    """The path of the program; the tests are built too, so that no test's time is a build's."""
    needed(["cargo", "build", "--release", "--workspace"])
    needed(["cargo", "test", "--release", "--workspace", "--no-run", *(word for test in TESTS for word in ("--test", test))])
    metadata = subprocess.run(
        ["cargo", "metadata", "--no-deps", "--format-version", "1"], cwd=ROOT, check=True, text=True, capture_output=True
    )
    return Path(json.loads(metadata.stdout)["target_directory"]) / "release" / "graft"


def row(part, comparison, compared, worst, tolerance=0.0):
    return dict(part=part, comparison=comparison, compared=compared, worst=worst, tolerance=tolerance)


def compare(python, graft, seed):
    """All rows of one seed."""
    folder = WORK / "cases" / f"seed-{seed}"
    table = WORK / "cases" / f"seed-{seed}.jsonl"
    subprocess.run(["rm", "-rf", folder, table], check=True)
    rows = []
    for area, fixtures in GENERATORS.items():
        (folder / area).mkdir(parents=True)
        command = [python, fixtures / "generate.py", "--seed", seed, "--out", folder / area]
        if run(command, env=os.environ | REFERENCE).returncode:
            rows.append(row(area, "drawing the cases", 1, math.nan))
    live = {"GRAFT_PARITY_CASES": str(folder), "GRAFT_PARITY_TABLE": str(table), "GRAFT_PARITY_SEED": str(seed)}
    for test, part in TESTS.items():
        done = run(["cargo", "test", "--release", "--workspace", "--test", test], env=os.environ | live)
        results = re.findall(r"^test (\S+) \.\.\. (ok|FAILED)", done.stdout, re.MULTILINE)
        for name, result in results:
            # A law's own count of drawn cases is its proptest's; here each law is one comparison.
            if part == "laws" or result != "ok":
                name = name.split("::")[-1].replace("_", " ")
                rows.append(row(part, name, 1, 0.0 if result == "ok" else 1.0))
        if done.returncode and all(result == "ok" for _, result in results):
            rows.append(row(part, f"running the test {test}", 1, math.nan))
    if table.exists():
        rows += map(json.loads, table.read_text().splitlines())
    return rows + files(python, graft, seed, folder / "written")


def files(python, graft, seed, out):
    """What Graft writes, read by the peers."""
    command = [python, HERE / "adapters_live.py", "--graft", graft, "--seed", seed, "--out", out]
    done = run(command, env=os.environ | REFERENCE)
    try:
        rows = [json.loads(line) for line in done.stdout.splitlines()]
    except ValueError:
        rows = []
    if not rows:
        return [row("adapters", "files that Graft writes", 1, math.nan)]
    for found in rows:
        if "error" in found:
            print(found["error"])
    return rows


class Line:
    """One comparison over the seeds."""

    def __init__(self):
        self.compared, self.tolerance, self.worst, self.none = 0, 0.0, {}, False

    def add(self, seed, found):
        self.compared += found["compared"]
        self.tolerance = found["tolerance"]
        # JSON has no NaN: serde_json writes null.
        worst = math.nan if found["worst"] is None else found["worst"]
        before = self.worst.get(seed, 0.0)
        self.worst[seed] = worst if math.isnan(worst) or worst > before else before
        self.none = self.none or found["compared"] == 0

    def ok(self, seeds):
        return not self.none and all(self.worst.get(seed, math.nan) <= self.tolerance for seed in seeds)


def gather(rows):
    lines = {}
    for seed, found in rows:
        lines.setdefault((found["part"], found["comparison"]), Line()).add(seed, found)
    place = {part: number for number, part in enumerate(PARTS)}
    return dict(sorted(lines.items(), key=lambda line: (place.get(line[0][0], len(place)), line[0])))


def missing(lines):
    """What should have been compared and was not."""
    for part in PARTS:
        if not any(found == part for found, _ in lines):
            yield f"{part}: no comparison at all"
    for part, start in DUE:
        if not any(found == part and start in comparison for found, comparison in lines):
            yield f"{part}: nothing about {start}"


def number(value):
    return "—" if value is None else "NaN" if math.isnan(value) else "0" if value == 0 else f"{value:.1e}"


def markdown(lines, seeds):
    head = ["part", "comparison", "compared", *(f"seed {seed}" for seed in seeds), "worst", "tolerance", ""]
    cells = [head]
    for (part, comparison), line in lines.items():
        worst = list(line.worst.values())
        most = math.nan if any(map(math.isnan, worst)) else max(worst)
        verdict = "ok" if line.ok(seeds) else "FAIL"
        values = [number(line.worst.get(seed)) for seed in seeds]
        cells.append([part, comparison, str(line.compared), *values, number(most), number(line.tolerance), verdict])
    widths = [max(len(found[column]) for found in cells) for column in range(len(head))]
    text = lambda found: "| " + " | ".join(map(str.ljust, found, widths)) + " |"
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([text(cells[0]), rule, *map(text, cells[1:])])


def machine():
    found = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    model = found.get("model name") or platform.processor() or platform.machine()
    features = [flag for flag in found.get("flags", "").split() if re.match(r"avx|fma$|f16c|amx", flag)]
    return f"{model}, {len(os.sched_getaffinity(0))} cores; {' '.join(features)}"


def record(table, seeds, versions):
    """The results; what stands there about discrepancies is kept."""
    rustc = subprocess.run(["rustc", "--version"], cwd=ROOT, check=True, text=True, capture_output=True).stdout.strip()
    graft = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
    before = RESULTS.read_text() if RESULTS.exists() else ""
    kept = before[before.index(DISCREPANCIES):] if DISCREPANCIES in before else ""
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    RESULTS.write_text(
        "# Graft beside the reference implementations\n\n"
        "Written by `just parity --record`. Each row compares whole tensors, texts or files of freshly drawn random\n"
        "cases; a number is the worst deviation, in the unit of its tolerance, which has its reason beside the\n"
        "comparison in `tests/`. A tolerance of 0 is equality, to the bit where it is about numbers. `bf16` rows of the\n"
        "model are distances from an f64 reference as multiples of PyTorch's own. Of the laws, each is one comparison.\n\n"
        f"{table}\n\n## Made with\n\n| | |\n|---|---|\n"
        f"| date | {datetime.date.today()} |\n| seeds | {' '.join(map(str, seeds))} |\n| Graft | {graft} |\n"
        f"| compiler | {rustc} |\n| processor | {machine()} |\n| peers | {packages} |\n\n{kept}"
    )
    print(f"recorded in {RESULTS.relative_to(ROOT)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="N")
    parser.add_argument("--venv", type=Path, metavar="DIR", help="where the peers are, instead of installing them")
    parser.add_argument("--record", action="store_true", help="write the table to RESULTS.md")
    options = parser.parse_args()
    seeds = sorted(set(options.seeds))
    WORK.mkdir(parents=True, exist_ok=True)
    python, versions = peers(options.venv and options.venv.absolute())
    graft = build()
    rows = []
    for seed in seeds:
        print(f"seed {seed}", flush=True)
        rows += ((seed, found) for found in compare(python, graft, seed))
    lines = gather(rows)
    table, due = markdown(lines, seeds), list(missing(lines))
    print(f"\n{table}\n")
    for what in due:
        print(f"not compared: {what}")
    bad = len(due) + sum(not line.ok(seeds) for line in lines.values())
    print(f"{len(lines)} comparisons, {bad} failed" if bad else f"all {len(lines)} comparisons within their tolerances")
    if options.record and bad:
        fail("not recorded: it failed")
    if options.record:
        record(table, seeds, versions)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
