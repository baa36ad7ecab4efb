"""Graft and its peers on an NVIDIA GPU: `run.py --device cuda`. Nothing is built or fetched; what cannot be
measured is said in the table, and ends nothing else.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path

from processes import Ended, last_json, process, say
from works import Work, gemm_flops, gib, median, model_flops, steady, weights_bytes

HEADING = "## CUDA"
CARD = 48 * 2**30  # what the 70B shape has to fit
HEAD = ["work", "Graft tokens/s", "PEFT tokens/s", "ratio", "Graft memory", "PEFT memory", "ratio"]
HEAD += ["Graft on the card", "PEFT on the card", "ratio", "Graft MFU", "PEFT MFU", "GEMM share", "first step"]
NONE = "–"


# ---------------------------------------------------------------- the card


def smi(device: str, *query: str) -> list:
    """`nvidia-smi` for this device. It counts all devices of the machine, whatever a process is allowed to see."""
    index = device.partition(":")[2] or "0"
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    if int(index) < len(visible):
        index = visible[int(index)]
    return ["nvidia-smi", "-i", index, "--format=csv,noheader,nounits", *query]


def ask(device: str, fields: str) -> list:
    try:
        done = subprocess.run(smi(device, f"--query-gpu={fields}"), capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [field.strip() for field in done.stdout.strip().split(",")] if done.returncode == 0 else []


class Card(threading.Thread):
    """What the driver says is taken of the card, ten times a second, above what was taken before."""

    def __init__(self, device: str):
        super().__init__(daemon=True)
        self.before, self.most = self.mib(ask(device, "memory.used")), None
        self.child = None
        if self.before is not None:
            command = smi(device, "--query-gpu=memory.used", "-lms", "100")
            self.child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    @staticmethod
    def mib(fields: list) -> int | None:
        return int(fields[0]) if fields and fields[0].isdigit() else None

    def run(self) -> None:
        for line in self.child.stdout:
            now = self.mib([line.strip()])
            if now is not None:
                self.most = max(self.most or 0, now)

    def __enter__(self) -> Card:
        if self.child:
            self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.child:
            self.child.terminate()
            self.child.wait()
            self.join()

    def taken(self) -> int | None:
        return None if self.most is None else max(self.most - self.before, 0) * 2**20


# ---------------------------------------------------------------- measuring


def caches(folder: Path, work: Work) -> dict:
    """A place without compiled kernels and tuning results, for the first run of a work; later ones find its own there."""
    place = folder / "caches" / work.name
    if place.exists():
        shutil.rmtree(place)
    place.mkdir(parents=True)
    # Kernel caches lie beside the nearest Cargo.toml above, or in the user's cache folder.
    (place / "Cargo.toml").write_text("")
    variables = {"HOME": place, "XDG_CACHE_HOME": place / "cache", "XDG_CONFIG_HOME": place / "config", "CUDA_CACHE_PATH": place / "nv"}
    return {"cwd": place, "variables": {name: str(path) for name, path in variables.items()}}


class Row:
    """One work: its runs, and the reasons for those that there are not."""

    def __init__(self, work: Work, layers: int):
        self.work, self.layers = work, layers
        self.graft, self.peer = [], []
        self.why = {}
        self.prepared = None

    def raw(self) -> dict:
        return {"work": self.work.name, "sparse": self.work.sparse, "graft": self.graft, "peer": self.peer, "not_measured": self.why}

    def sides(self) -> list:
        """Those that run, in their order."""
        return [side for side in ("graft", *(["peer"] if self.work.peer else [])) if side not in self.why]

    @property
    def tokens(self) -> int:
        return self.work.seq * self.work.rows


def without_peer(work: Work, probed: dict) -> str | None:
    needed = ["torch", "transformers", "peft", "accelerate", *(["bitsandbytes"] if work.mode == "qlora" else [])]
    return next((f"{name} {probed['missing'][name]}" for name in needed if probed["missing"][name]), None)


def prepare(bench, row: Row) -> None:
    steps = bench.options.steps + 1
    need = weights_bytes(row.work, row.layers)
    there = bench.folder / f"{row.work.preset}-{row.work.format}-{row.layers}"
    if not there.exists() and shutil.disk_usage(bench.folder).free < 1.05 * need:
        say(f"{row.work.name}: the disk has no room for {gib(need)}: the weights are holes in the file, all zeros")
        row.work = dataclasses.replace(row.work, sparse=True)
    out = bench.folder / "runs" / row.work.name
    recipe = bench.recipe(row.work, steps, out)
    rows = bench.ids(row.work, recipe, steps) if "peer" in row.sides() else None
    row.prepared = recipe, out, rows, caches(bench.folder, row.work)


def one_round(bench, row: Row) -> None:
    """Graft, then the peer. A side that failed is not tried again; the other goes on."""
    device, steps = bench.options.device, bench.options.steps + 1
    if not row.sides():
        return
    if row.prepared is None:
        prepare(bench, row)
    recipe, out, rows, place = row.prepared

    def taking(side: str, runs: list, run) -> None:
        try:
            with Card(device) as card:
                found = run()
            runs.append({**found, "card_bytes": card.taken()})
        except Ended as ended:
            say(f"{row.work.name}, {side}: {ended}")
            row.why[side] = str(ended)

    if "graft" in row.sides():
        taking("graft", row.graft, lambda: bench.run_graft(row.work, recipe, out, **place))
    if "peer" in row.sides():
        taking("peer", row.peer, lambda: bench.run_peer(row.work, rows, steps))
    if row.graft and row.peer:
        try:
            bench.same_first_loss(row.work, row.graft[-1], row.peer[-1])
        except Ended as ended:
            say(str(ended))
            row.why["comparison"] = str(ended)


def peers(bench) -> dict:
    """What the peers' Python can do; a Python that cannot even be asked is no peer."""
    try:
        ran = process([bench.python, bench.peer_script, "probe", bench.options.device], bench.folder / "probe.log", bench.cores, until=bench.until)
        return last_json(ran["output"])
    except Ended as ended:
        say(str(ended))
        return {"versions": {}, "python": NONE, "device": None, "missing": dict.fromkeys(("torch", "transformers", "peft", "accelerate", "bitsandbytes"), "could not be asked for")}


def limit(bench, probed: dict) -> dict:
    if probed["missing"]["torch"]:
        return {}
    try:
        ran = process([bench.python, bench.peer_script, "gemm", bench.options.device], bench.folder / "gemm.log", bench.cores, until=bench.until)
        return last_json(ran["output"])["flops_per_second"]
    except Ended as ended:
        say(str(ended))
        return {}


def measure(bench, works: list, machine: list) -> str:
    """The section of the report. Rounds go through all works in turn; after each, what there is gets written."""
    options = bench.options
    if options.time_limit:
        bench.until = time.monotonic() + options.time_limit
    probed = peers(bench)
    rates = limit(bench, probed)
    rows = [Row(work, bench.layers(work.preset)) for work in works]
    for row in rows:
        reason = without_peer(row.work, probed)
        if row.work.peer and reason:
            row.why["peer"] = reason
    head = conditions(bench, probed, rates, machine)
    text = ""
    for number in range(options.rounds):
        for row in rows:
            say(f"{row.work.name}: round {number + 1} of {options.rounds}")
            try:
                if bench.until and time.monotonic() >= bench.until:
                    raise Ended("the time was up")
                one_round(bench, row)
            except Ended as ended:
                say(f"{row.work.name}: {ended}")
                row.why.update({side: str(ended) for side in row.sides()})
            text = section(rows, head, rates)
            raw = {"device": probed["device"], "versions": probed["versions"], "flops_per_second": rates, "training": [row.raw() for row in rows]}
            (options.out / "results.json").write_text(json.dumps(raw, indent=1))
            (options.out / "RESULTS-cuda.md").write_text(text)
    return text


# ---------------------------------------------------------------- the report


def conditions(bench, probed: dict, rates: dict, machine: list) -> list:
    options, device = bench.options, probed["device"]
    driver = ask(options.device, "name,driver_version,memory.total")
    words = [driver[0] if driver else device["name"] if device else options.device]
    if device:
        words += [gib(device["bytes"]), f"compute capability {device['capability']}", f"PyTorch for CUDA {device['cuda']}"]
    if len(driver) > 1:
        words.append(f"driver {driver[1]}")
    versions = ", ".join(f"{name} {version}" for name, version in probed["versions"].items() if version)
    lines = [f"- device: {', '.join(words)}", *machine, f"- peers: {versions or 'none'}; Python {probed['python']}", *bench.differing]
    lines.append(f"- {options.rounds} rounds, {options.steps} steps a round after one that is not counted; medians")
    if rates:
        shown = ", ".join(f"{shape} {rate / 1e12:.0f}" for shape, rate in rates.items())
        lines.append(f"- PyTorch's bf16 matrix product in TFLOP/s: {shown}; the highest is the limit of `MFU` and `GEMM share`")
    else:
        lines.append("- PyTorch's bf16 matrix product was not measured, so there is no `MFU` and no `GEMM share`")
    if options.quick:
        lines.append("- QUICK: models of two blocks, to see that the bench works. These are no results.")
    return lines


def of(runs: list, key: str) -> float:
    """The median over the runs that have it; no number where none has."""
    return median([run[key] for run in runs if run.get(key) is not None])


def shown(value: float, form: str) -> str:
    return NONE if math.isnan(value) else f"{value:{form}}"


def memory(value: float) -> str:
    return NONE if math.isnan(value) else gib(value)


def cells(row: Row, limit: float) -> list:
    graft, peer = row.graft, row.peer
    own, other = (row.tokens / median(steady(runs)) for runs in (graft, peer))
    comparable = math.nan if "comparison" in row.why else 1.0
    targets = graft[0]["targets"] if graft else row.work.rows * (row.work.seq - 1)
    needed = model_flops(row.work, row.layers, targets)
    executed = sum(gemm_flops(row.work, row.layers, targets).values())
    unmeasured = lambda side, otherwise: "not measured" if side in row.why and otherwise == NONE else otherwise
    line = [row.work.name, unmeasured("graft", shown(own, ",.0f")), unmeasured("peer", shown(other, ",.0f")), ratio(own / other * comparable)]
    for mine, its in (("device_bytes", "device_reserved_bytes"), ("card_bytes", "card_bytes")):
        one, two = of(graft, mine), of(peer, its)
        line += [memory(one), memory(two), ratio(one / two * comparable)]
    for rate, flops in ((own, needed), (other, needed), (own, executed)):
        line.append(shown(flops * rate / row.tokens / limit, ".0%"))
    firsts = [of(graft[:1], "first_step"), of(graft[1:], "first_step"), of(peer, "first_step")]
    return [*line, " / ".join("–" if math.isnan(seconds) else f"{seconds:.1f} s" for seconds in firsts)]


def ratio(value: float) -> str:
    return NONE if math.isnan(value) else f"{value:.2f}×"


def told(why: str) -> str:
    """The line that says it best; `results.json` has them all."""
    lines = [line.strip() for line in why.splitlines() if line.strip()]
    for number, line in reversed(list(enumerate(lines))):
        if "panicked at" in line:
            return " ".join(lines[number : number + 2])
        if re.match(r"[\w.]*error\b", line, re.IGNORECASE):
            return line
    return lines[-1]


def notes(rows: list) -> list:
    lines = []
    for row in rows:
        name = row.work.name
        for side, called in (("graft", "Graft"), ("peer", "PEFT")):
            if side in row.why:
                runs = row.graft if side == "graft" else row.peer
                what = f"measured {len(runs)} times only" if runs else "not measured"
                lines.append(f"- {name}, {called}: {what}: {told(row.why[side])}")
        if "comparison" in row.why:
            lines.append(f"- {row.why['comparison']}")
        if row.work.sparse:
            lines.append(f"- {name}: its weights are holes in the files, all zeros, for want of disk: its speed is no result")
        card = max((run.get("card_bytes") or 0 for run in row.graft), default=0)
        if "70b" in name and card:
            lines.append(f"- {name}: {gib(card)} of the card at most, so that it {'fits' if card <= CARD else 'does not fit'} {gib(CARD)}")
    lines.append("- The largest matrix products of the 8B shape at 4,096 tokens, in Graft: not measured: no command of `graft` times them alone")
    return lines


def section(rows: list, head: list, rates: dict) -> str:
    limit = max(rates.values(), default=math.nan)
    table = ["| " + " | ".join(line) + " |" for line in (HEAD, *(cells(row, limit) for row in rows))]
    lines = [HEADING, "", *head, "", table[0], "|" + "---|" * len(HEAD), *table[1:], ""]
    return "\n".join([*lines, *notes(rows)]) + "\n"
