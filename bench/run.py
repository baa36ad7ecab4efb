#!/usr/bin/env python3
"""Graft and its peers side by side, on this machine. `bench/README.md` says what is measured and how.

    python3 bench/run.py                    every work, three rounds
    python3 bench/run.py --only 1b-qlora    the works whose name holds this
    python3 bench/run.py --quick            does the bench itself work? two blocks, one round
    python3 bench/run.py --device cuda --graft FILE     on an NVIDIA GPU; builds and fetches nothing

Needs Python 3.10 or later and nothing but its standard library; the peers go into a virtual
environment of their own.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import platform
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import growth
import on_cuda
from processes import ROOT, Ended, fail, last_json, process, say
from record import merged
from works import ALPHA, CUDA, CUDA_LARGE, LARGE, RANK, SHAPES, WORKS, Work, attention_flops, gemm_flops, gib, median, steady

HERE = ROOT / "bench"
LEARNING_RATE = 1e-4
QUICK = "QUICK: models of two blocks, to see that the bench works. These are no results."


# ---------------------------------------------------------------- preparation


def build() -> Path:
    say("building Graft")
    done = subprocess.run(["cargo", "build", "--release", "--workspace"], cwd=ROOT)
    if done.returncode != 0:
        fail("Graft does not build")
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "release" / "graft"


def virtual_environment(folder: Path) -> Path:
    """The Python that has the pinned peers; installs them into `folder` where it does not exist."""
    python = folder / "bin" / "python"
    if not python.exists():
        say(f"installing the peers into {folder}")
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "-r", HERE / "requirements.txt"], check=True)
    for name, (found, wanted) in other_versions(python).items():
        fail(f"{folder} has {name} {found}, the comparison is with {wanted}: remove the folder, or give another `--venv`")
    return python


def other_versions(python: Path) -> dict:
    """What this Python has in another version than `requirements.txt` names, or (`None`) has not: found and wanted."""
    wanted = {}
    for line in (HERE / "requirements.txt").read_text().splitlines():
        if "==" in line:
            name, version = line.strip().split("==")
            wanted[name] = version
    ask = (
        "import importlib.metadata as m, json, sys\n"
        "found = {}\n"
        "for name in sys.argv[1:]:\n"
        "    try: found[name] = m.version(name)\n"
        "    except m.PackageNotFoundError: found[name] = None\n"
        "print(json.dumps(found))"
    )
    answer = subprocess.run([python, "-c", ask, *wanted], check=True, capture_output=True, text=True)
    found = json.loads(answer.stdout)
    # A build for the CPU calls itself 2.15.0+cpu.
    return {name: (found[name], wanted[name]) for name in wanted if (found[name] or "").split("+")[0] != wanted[name]}


class Bench:
    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.graft = options.graft or build()
        self.folder = options.work_dir
        self.folder.mkdir(parents=True, exist_ok=True)
        self.cores = options.threads or len(os.sched_getaffinity(0))
        self.peer_script = HERE / "peer.py"
        self.until = None  # by time.monotonic, where the bench has to end

    @functools.cached_property
    def python(self) -> Path:
        """The peers' Python. One that was given is taken as it is: the report says where its versions differ."""
        return self.options.peer_python or virtual_environment(self.options.venv)

    @functools.cached_property
    def differing(self) -> list:
        """A line of the report, where the peers are not those of `requirements.txt`."""
        found = other_versions(self.python)
        shown = [f"{name} {version} instead of {wanted}" if version else f"no {name}" for name, (version, wanted) in found.items()]
        return [f"- not as in `requirements.txt`: {', '.join(shown)}"] if shown else []

    def layers(self, preset: str) -> int:
        return 2 if self.options.quick else SHAPES[preset]["layers"]

    def model(self, preset: str, form: str, sparse: bool = False, layers: int | None = None) -> Path:
        layers = layers or self.layers(preset)
        out = self.folder / f"{preset}-{form}-{layers}{'-sparse' if sparse else ''}"
        if not out.exists():
            say(f"writing {out.name}")
            flags = ["--preset", preset, "--format", form, "--layers", layers, "--out", out]
            command = [self.graft, "synth-model", *flags, *(["--sparse"] if sparse else [])]
            process(command, self.folder / "synth-model.log", self.cores, until=self.until)
        return out

    # ------------------------------------------------------------ rows and recipe

    def rows(self, work: Work, count: int) -> Path:
        """Rows that are longer than the sequence in any tokenizer, so that cutting leaves it full."""
        words = random.Random(7)
        word = lambda: "".join(words.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(words.randint(2, 8)))
        text = lambda length: " ".join(word() for _ in range(length))
        path = self.folder / f"{work.name}.jsonl"
        with open(path, "w", encoding="utf-8") as file:
            for _ in range(count):
                if work.targets == "all":
                    row = {"text": text(work.seq)}
                else:
                    turns = []
                    for _ in range(max(work.seq // 64, 2)):
                        turns.append({"role": "user", "content": text(22)})
                        turns.append({"role": "assistant", "content": text(8)})
                    row = {"messages": turns}
                file.write(json.dumps(row) + "\n")
        return path

    def recipe(self, work: Work, steps: int, out: Path) -> Path:
        quantized = "none" if work.format == "bf16" else "{format: nf4, double: true}"
        form = "text" if work.targets == "all" else "messages"
        tight = "  optimizer: adamw_8bit\n  activation_offload: disk\n" if work.tight else ""
        path = self.folder / f"{work.name}.yaml"
        path.write_text(
            f"name: {work.name}\n"
            f"model: {{path: {self.model(work.preset, work.format, work.sparse, work.layers)}}}\n"
            f"quantization: {quantized}\n"
            f"adapter: {{method: lora, rank: {RANK}, alpha: {ALPHA}, dropout: 0.0, target_modules: all-linear, dora: {str(work.mode == 'dora').lower()}}}\n"
            f"data:\n"
            f"  train: [{{path: {self.rows(work, steps * work.rows)}, format: {form}}}]\n"
            f"  chat: {{preamble: none}}\n"
            f"  max_seq_len: {work.seq}\n"
            f"  overlong: truncate_right\n"
            f"  packing: false\n"
            f"  shuffle: false\n"
            f"training:\n"
            f"  max_steps: {steps}\n"
            f"  micro_batch_size: {work.rows}\n"
            f"  learning_rate: {LEARNING_RATE}\n"
            f"  schedule: {{constant: {{}}}}\n"
            f"  checkpointing: {work.checkpointing}\n"
            f"  compute_dtype: bf16\n"
            f"{tight}"
            f"logging: {{tensorboard: false}}\n"
            f"output_dir: {out}\n"
        )
        return path

    # ------------------------------------------------------------ the two sides

    def run_graft(self, work: Work, recipe: Path, out: Path, **how) -> dict:
        if out.exists():
            subprocess.run(["rm", "-rf", str(out)], check=True)
        command = [self.graft, "train", recipe, "--quiet", "--threads", self.cores]
        if self.options.device != "cpu":
            command += ["--device", self.options.device]
        log = self.folder / f"{work.name}.graft.log"
        ran = process(command, log, self.cores, first=out / "metrics.jsonl", until=self.until, **how)
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        return {
            "seconds": [line["tokens"] / line["tokens_per_second"] for line in lines],
            "losses": [line["loss"] for line in lines],
            "tokens": lines[-1]["tokens"],
            "targets": lines[-1]["target_tokens"],
            "device_bytes": lines[-1].get("peak_device_memory_bytes"),
            "first_step": ran["first_line"],
            **{key: ran[key] for key in ("wall", "peak_bytes", "anonymous_bytes", "read_bytes")},
        }

    def run_peer(self, work: Work, rows: Path, steps: int) -> dict:
        task = {
            "dora": work.mode == "dora",
            "model": str(self.model(work.preset, work.format, work.sparse, work.layers)),
            "device": self.options.device,
            "batch": work.rows,
            "rows": str(rows),
            "steps": steps,
            "checkpointing": work.checkpointing,
            "rank": RANK,
            "alpha": ALPHA,
            "learning_rate": LEARNING_RATE,
        }
        path = self.folder / f"{work.name}.task.json"
        path.write_text(json.dumps(task))
        command = [self.python, self.peer_script, "train", path]
        ran = process(command, self.folder / f"{work.name}.peer.log", self.cores, until=self.until)
        found = last_json(ran["output"])
        if "first_step_at" in found:
            found["first_step"] = found.pop("first_step_at") - ran["started_at"]
        return {**found, "peak_bytes": ran["peak_bytes"], "anonymous_bytes": ran["anonymous_bytes"], "wall": ran["wall"]}

    def ids(self, work: Work, recipe: Path, steps: int) -> Path:
        """The ids and labels that `graft data` shows, for the other side."""
        command = [self.graft, "data", recipe, "--show", steps * work.rows, "--json"]
        samples = json.loads(process(command, self.folder / "data.log", self.cores, until=self.until)["output"])["samples"]
        lengths = {len(sample["tokens"]) for sample in samples}
        if lengths != {work.seq}:
            raise Ended(f"{work.name}: rows of {sorted(lengths)} tokens, all should have {work.seq}")
        rows = self.folder / f"{work.name}.ids.json"
        rows.write_text(json.dumps(samples))
        return rows

    def measure(self, work: Work) -> dict:
        """Both sides in turn, round after round, on the same ids and labels."""
        steps = self.options.steps + 1
        out = self.folder / "runs" / work.name
        recipe = self.recipe(work, steps, out)
        rows = self.ids(work, recipe, steps)
        graft, peer = [], []
        for number in range(self.options.rounds):
            say(f"{work.name}: round {number + 1} of {self.options.rounds}")
            graft.append(self.run_graft(work, recipe, out))
            if work.peer:
                peer.append(self.run_peer(work, rows, steps))
                self.same_first_loss(work, graft[-1], peer[-1])
        return {"work": work.name, "graft": graft, "peer": peer}

    @staticmethod
    def same_first_loss(work: Work, graft: dict, peer: dict) -> None:
        """Before the first update an adapter adds nothing: both sides must compute the same number."""
        one, other = graft["losses"][0], peer["losses"][0]
        # Both round to bf16, each in its own order.
        if abs(one - other) > 0.02 * other:
            raise Ended(f"{work.name}: the first loss is {one} in Graft and {other} in the peer: they do not compute the same")

    # ------------------------------------------------------------ limits and small works

    def limits(self) -> dict:
        gemm = process([self.python, self.peer_script, "gemm"], self.folder / "gemm.log", self.cores)
        bandwidth = process([self.python, self.peer_script, "bandwidth"], self.folder / "bandwidth.log", self.cores)
        return {**last_json(gemm["output"]), **last_json(bandwidth["output"])}

    def linear(self) -> list:
        """The frozen linear layer of the kernels' own bench against PyTorch's bf16 product of that shape, in turn."""
        bench = ["cargo", "bench", "--bench", "linear", "--", "--warm-up-time", "1", "--measurement-time", "2", "bf16, 512 x"]
        target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "criterion" / "frozen linear"
        rates, peer = {}, {}
        for _ in range(self.options.rounds):
            process(bench, self.folder / "linear.log", self.cores)
            for file in target.glob("*/*bf16, 512 x*/new"):
                seconds = json.loads((file / "estimates.json").read_text())["median"]["point_estimate"] / 1e9
                found = json.loads((file / "benchmark.json").read_text())
                flops = 2 * found["throughput"]["Elements"]
                rates.setdefault((found["function_id"], found["value_str"]), []).append(flops / seconds)
            ran = process([self.python, self.peer_script, "gemm"], self.folder / "gemm.log", self.cores)
            for shape, rate in last_json(ran["output"])["flops_per_second"].items():
                peer.setdefault(shape, []).append(rate)
        rows = []
        for (side, label), found in sorted(rates.items()):
            form, shape = label.split(" bf16, ")
            other = median(peer[shape.replace(" ", "")])
            rows.append({"side": side, "weight": form, "shape": shape, "graft": median(found), "peer": other})
        return rows

    def decode(self, bandwidth: float) -> dict:
        """Tokens a second of `graft generate`, and the share of the bandwidth that its reads make."""
        preset = "100m" if self.options.quick else "llama3.2-1b"
        model = self.model(preset, "nf4-double")
        flags = ["--model", model, "--raw", "--prompt", "a", "--max-new-tokens", 64, "--compute-dtype", "bf16", "--json"]
        rates = []
        for _ in range(self.options.rounds):
            ran = process([self.graft, "generate", *flags, "--threads", self.cores], self.folder / "decode.log", self.cores)
            rates.append(json.loads(ran["output"])["tokens_per_second"])
        config = json.loads((model / "config.json").read_text())
        read = sum(file.stat().st_size for file in model.glob("*.safetensors"))
        if not config["tie_word_embeddings"]:
            read -= 2 * config["vocab_size"] * config["hidden_size"]  # of the embedding, one row is read
        rate = median(rates)
        return {"model": model.name, "tokens_per_second": rate, "bytes_a_token": read, "share": rate * read / bandwidth}

    def tokenize(self) -> dict:
        """The same rows through `graft data` (all of it: start, reading, statistics) and `tokenizers` (encoding alone)."""
        size = 2 << 20 if self.options.quick else 128 << 20
        model = self.model("100m", "bf16")
        if self.options.tokenizer:
            # Another tokenizer beside the same config.json: no weight is read.
            other = self.folder / "tokenize-model"
            other.mkdir(exist_ok=True)
            shutil.copy(model / "config.json", other / "config.json")
            shutil.copy(self.options.tokenizer, other / "tokenizer.json")
            model = other
        rows = self.folder / "texts.jsonl"
        draw = random.Random(7)
        syllables = ["".join(pair) for pair in itertools.product("bdfgklmnprstvz", "aeiou")] + ["ing", "ed", "er", "tion", "ment", "al", "st", "un", "re"]
        vocabulary = ["".join(draw.choices(syllables, k=draw.choice((1, 1, 2, 2, 2, 3, 3, 4)))) for _ in range(30_000)]
        # Words are as frequent as in a language: the n-th one a n-th as often as the first (Zipf).
        weights = list(itertools.accumulate(1 / (rank + 3) for rank in range(len(vocabulary))))
        written = 0
        with open(rows, "w", encoding="utf-8") as file:
            while written < size:
                words = draw.choices(vocabulary, cum_weights=weights, k=draw.randint(40, 320))
                marks = draw.choices((" ", " ", " ", " ", " ", " ", " ", ", ", ". ", "\n", " 12", " – "), k=len(words))
                text = "".join(word + mark for word, mark in zip(words, marks))
                file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
                written += len(text.encode())
        task = self.folder / "tokenize.json"
        task.write_text(json.dumps({"tokenizer": str(model / "tokenizer.json"), "rows": str(rows)}))
        flags = ["--file", rows, "--format", "text", "--model", model, "--max-seq-len", 100_000, "--show", 0, "--json"]
        graft, peer = [], []
        for _ in range(self.options.rounds):
            ran = process([self.graft, "data", *flags, "--threads", self.cores], self.folder / "tokenize.graft.log", self.cores)
            graft.append(written / ran["wall"])
            ran = process([self.python, self.peer_script, "tokenize", task], self.folder / "tokenize.peer.log", self.cores)
            found = last_json(ran["output"])
            peer.append(found["bytes"] / found["seconds"])
        return {"graft": median(graft), "peer": median(peer)}


# ---------------------------------------------------------------- the table


def training_table(bench: Bench, results: list, limit: float) -> list:
    lines = [
        "| work | learnt | Graft tokens/s | PEFT tokens/s | ratio | Graft memory | PEFT memory | ratio | GEMM share | attention |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for work, result in results:
        graft, peer = result["graft"], result["peer"]
        tokens, targets = graft[0]["tokens"], graft[0]["targets"]
        seconds = median(steady(graft))
        memory = median([run["peak_bytes"] for run in graft])
        layers = bench.layers(work.preset)
        flops = sum(gemm_flops(work, layers, targets).values())
        attention = attention_flops(work, layers)
        cells = [work.name, f"{targets / tokens:.0%}", f"{tokens / seconds:.1f}"]
        if peer:
            other, its_memory = median(steady(peer)), median([run["peak_bytes"] for run in peer])
            cells += [f"{tokens / other:.1f}", f"{other / seconds:.2f}×", gib(memory), gib(its_memory), f"{memory / its_memory:.2f}×"]
        else:
            cells += ["–", "–", gib(memory), "–", "–"]
        cells.append(f"{flops / seconds / limit:.0%}")
        cells.append(f"{attention / (flops + attention):.1%}")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def large_table(results: list) -> list:
    lines = ["| work | step | whole run | resident | anonymous | read from disk |", "|---|---|---|---|---|---|"]
    for work, result in results:
        run = result["graft"][-1]
        seconds = median(run["seconds"])
        cells = [work.name, f"{seconds:.1f} s", f"{run['wall']:.1f} s", gib(run["peak_bytes"]), gib(run["anonymous_bytes"]), gib(run["read_bytes"])]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def machine(bench: Bench) -> list:
    cpu = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), platform.machine())
    flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "")
    known = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags.split()]
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    try:
        commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        commit = ""
    graft = subprocess.run([bench.graft, "--version"], capture_output=True, text=True).stdout.strip()
    return [
        f"- machine: {cpu}, {bench.cores} threads, {int(memory.split()[1]) / 2**20:.1f} GiB, {' '.join(known) or 'no wide vectors'}, {platform.system()} {platform.release()}",
        f"- Graft: {graft} at {commit or 'a commit that is not known here'}",
    ]


def report(bench: Bench, found: dict, loads: list) -> str:
    limits = found["limits"]
    rates = limits["flops_per_second"]
    versions = ", ".join(f"{name} {version}" for name, version in limits["versions"].items() if version)
    shown, shown_f32 = (", ".join(f"{shape} {rate / 1e9:.0f}" for shape, rate in of.items()) for of in (rates, limits["f32_flops_per_second"]))
    limit = max(*rates.values(), *limits["f32_flops_per_second"].values())
    lines = [*machine(bench), f"- peers: {versions}; Python {limits['python']}", *bench.differing]
    lines.append(f"- load average: {loads[0]:.2f} before, {loads[1]:.2f} after (own work included)")
    lines.append(f"- {bench.options.rounds} rounds, {bench.options.steps} steps a round after one that is not counted; medians")
    lines.append(f"- PyTorch's GEMM in GFLOP/s, bf16: {shown}; f32: {shown_f32}; the highest of all, {limit / 1e9:.0f}, is the limit of `GEMM share`")
    lines.append(f"- memory is read at {limits['bytes_per_second'] / 1e9:.1f} GB/s")
    if bench.options.quick:
        lines.append(f"- {QUICK}")
    if found["training"]:
        lines += ["", *training_table(bench, found["training"], limit)]
    if found["large"]:
        lines += ["", *large_table(found["large"])]
    if found.get("linear"):
        lines += ["", "| frozen linear, bf16 | weight | Graft GFLOP/s | PyTorch's bf16 GEMM | share |", "|---|---|---|---|---|"]
        for row in found["linear"]:
            cells = [f"{row['side']}, {row['shape']}", row["weight"], f"{row['graft'] / 1e9:.0f}", f"{row['peer'] / 1e9:.0f}", f"{row['graft'] / row['peer']:.0%}"]
            lines.append("| " + " | ".join(cells) + " |")
    if found.get("decode"):
        row = found["decode"]
        lines += ["", f"Decoding, {row['model']}: {row['tokens_per_second']:.1f} tokens/s, {row['bytes_a_token'] / 1e9:.3f} GB a token, {row['share']:.0%} of the memory's rate."]
    if found.get("tokenize"):
        row = found["tokenize"]
        lines += ["", f"Tokenising: {row['graft'] / 1e6:.1f} MB/s in `graft data`, {row['peer'] / 1e6:.1f} MB/s in `tokenizers`: {row['graft'] / row['peer']:.2f}×."]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- the command


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--only", action="append", default=[], metavar="NAME", help="works whose name holds this; may be repeated")
    add("--list", action="store_true", help="show the names and end")
    add("--device", default="cpu", metavar="DEVICE", help="cpu, cuda or cuda:N: what both sides compute on, which has its own works")
    add("--rounds", type=int, metavar="N", help="how often both sides run (default 3)")
    add("--steps", type=int, metavar="N", help="steps counted in each run (default 5)")
    add("--quick", action="store_true", help="models of two blocks, one round, two steps: tests the bench, measures nothing")
    add("--large", action="store_true", help="also the 8B, 70B and 405B shapes (on CUDA, the 70B), Graft alone; the 70B takes 39 GB of disk")
    add("--no-peer", action="store_true", help="Graft alone in every work")
    add("--linear", action="store_true", help="also the frozen linear layer alone against PyTorch's bf16 product")
    add("--decode", action="store_true", help="also decoding against the memory's rate")
    add("--tokenize", action="store_true", help="also tokenising against `tokenizers`")
    add("--tokenizer", type=Path, metavar="FILE", help="the tokenizer.json of --tokenize (default: the small one of written models)")
    growth_help = "also how a step's cost grows with rows, blocks and length up to this many tokens (default 32768: 20 minutes), Graft alone"
    add("--growth", type=int, nargs="?", const=growth.LENGTHS[-1], metavar="TOKENS", help=growth_help)
    add("--threads", type=int, metavar="N", help="threads of both sides (default: all cores)")
    add("--venv", type=Path, default=ROOT / "target" / "bench" / "venv", metavar="DIR", help="where the peers are, or are installed")
    add("--peer-python", type=Path, metavar="FILE", help="a Python that has the peers, in whatever versions; nothing is installed")
    add("--work-dir", type=Path, default=ROOT / "target" / "bench", metavar="DIR", help="models, rows, logs")
    add("--graft", type=Path, metavar="FILE", help="a built `graft`, instead of building it")
    add("--out", type=Path, metavar="DIR", help="where results.json goes, and on CUDA the report (default: the work folder)")
    add("--time-limit", type=int, metavar="SECONDS", help="on CUDA: end then, and report what there is")
    add("--record", type=Path, metavar="FILE", help="also write the report there, such as bench/RESULTS.md")
    options = parser.parse_args()
    if not re.fullmatch(r"cpu|cuda(:\d+)?", options.device):
        parser.error(f"--device is {options.device}; it can be cpu, cuda or cuda:N")
    options.on_cuda = options.device != "cpu"
    if options.on_cuda and (options.growth or options.linear or options.decode or options.tokenize):
        parser.error("--growth, --linear, --decode and --tokenize are measured on the CPU: leave --device out")
    if options.on_cuda and not (options.graft or options.list):
        parser.error("--device cuda builds nothing: --graft names a binary of `cargo build --release --workspace --features cuda`")
    if options.time_limit and not options.on_cuda:
        parser.error("--time-limit goes with --device cuda")
    # On CUDA, the second round finds the caches that the first filled.
    options.rounds = options.rounds or (1 if options.quick and not options.on_cuda else 2 if options.quick else 3)
    options.steps = options.steps or (2 if options.quick else 5)
    if options.record and options.quick:
        parser.error("--quick gives no results to record")
    return options


def main() -> None:
    options = arguments()
    # Works of the large shapes run where they are asked for by flag only.
    usual, large = (CUDA, CUDA_LARGE) if options.on_cuda else (WORKS, LARGE)
    works = usual + (large if options.large else [])
    works = [work for work in works if not options.only or any(name in work.name for name in options.only)]
    if options.no_peer:
        works = [Work(**{**vars(work), "peer": False}) for work in works]
    if options.list:
        print("\n".join(work.name for work in works))
        return
    table = bool(works or options.linear or options.decode or options.tokenize)
    if not table and not options.growth:
        fail(f"no work is called {' or '.join(options.only)}: `--list` shows the names")
    options.work_dir, options.venv = options.work_dir.resolve(), options.venv.absolute()
    options.graft = options.graft and options.graft.resolve()
    options.out = (options.out or options.work_dir).resolve()
    # Not resolved: a virtual environment's Python is a link, and knows its packages by the link's place.
    options.peer_python = options.peer_python and options.peer_python.absolute()
    if options.on_cuda and not options.peer_python:
        inside = options.venv / "bin" / "python"
        options.peer_python = inside if inside.exists() else Path(sys.executable)
    for file in (options.graft, options.peer_python):
        if file and not os.access(file, os.X_OK):
            fail(f"{file} is no program that can be run")
    options.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(options)
    before = os.getloadavg()[0]
    if before > 0.5 and not options.quick:
        say(f"warning: something else runs here (load average {before:.2f}); both sides will suffer, not always alike")
    try:
        parts = measure(bench, works if table else [], table, before)
    except Ended as ended:
        fail(str(ended))
    print("\n".join(part for part in parts if part))
    if options.record:
        title = "# Results\n\nWritten by `bench/run.py --record`; `bench/README.md` says what the columns mean.\n\n"
        options.record.write_text(merged(options.record, title, *parts))


def measure(bench: Bench, works: list, table: bool, before: float) -> tuple[str, str, str]:
    """The three parts of the report: the CPU's table, CUDA's, and the growth of the cost; those not asked for are empty."""
    options = bench.options
    if options.on_cuda:
        return "", on_cuda.measure(bench, works, machine(bench)), ""
    text = measure_table(bench, works, before) if table else ""
    section = ""
    if options.growth:
        measured = growth.measure(bench, say, fail)
        (bench.folder / "growth.json").write_text(json.dumps([{"work": work.name, "graft": runs} for work, runs in measured.items()], indent=1))
        load = f"- load average: {before:.2f} before, {os.getloadavg()[0]:.2f} after (own work included)"
        section = growth.section(measured, bench, [*machine(bench), load, *([f"- {QUICK}"] if options.quick else [])])
    return text, "", section


def measure_table(bench: Bench, works: list, before: float) -> str:
    """The report of the works and of the small works; the raw figures go into `results.json`."""
    found = {"limits": bench.limits(), "training": [], "large": []}
    for work in works:
        kind = "large" if work in LARGE else "training"
        found[kind].append((work, bench.measure(work)))
    if bench.options.linear:
        found["linear"] = bench.linear()
    if bench.options.decode:
        found["decode"] = bench.decode(found["limits"]["bytes_per_second"])
    if bench.options.tokenize:
        found["tokenize"] = bench.tokenize()
    text = report(bench, found, [before, os.getloadavg()[0]])
    raw = {**found, "training": [row for _, row in found["training"]], "large": [row for _, row in found["large"]]}
    (bench.options.out / "results.json").write_text(json.dumps(raw, indent=1))
    return text


if __name__ == "__main__":
    main()
