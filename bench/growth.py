"""How the cost of Graft's training step grows: with rows, with blocks, and with the length of a row.

The first two should be straight lines; the third shows what attention adds, which is the only part of a
step that grows with the square of the length.
"""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path
from typing import Callable

from works import Work, attention_flops, gemm_flops, gib, median, steady

HEADING = "## Cost growth"
ROWS = (1, 2, 4, 8)
LAYERS = (6, 12, 24)
LENGTHS = (512, 2048, 8192, 32_768)
LONG = 8192  # from here on a step takes minutes: one is counted, in one round
SLACK = 0.05  # of the cores' time; runs this close in what others took count alike
QUICK_LAYERS = (1, 2, 4)
QUICK_LENGTHS = (32, 64, 128, 256)


def work(seq: int, layers: int, rows: int = 1) -> Work:
    return Work("100m", "lora", seq, "selective", rows=rows, layers=layers, peer=False)


def works(options) -> tuple[list, list, list]:
    """What the three tables show, in their order. The work that all of them hold is measured once."""
    layers, lengths = (QUICK_LAYERS, QUICK_LENGTHS) if options.quick else (LAYERS, LENGTHS)
    lengths = [length for place, length in enumerate(lengths) if place < 2 or length <= options.growth]
    middle, shortest = layers[1], lengths[0]
    by_rows = [work(shortest, middle, count) for count in ROWS]
    by_layers = [work(shortest, count) for count in layers]
    by_length = [work(length, middle) for length in lengths]
    return by_rows, by_layers, by_length


def others_seconds() -> float:
    """CPU seconds since the start of the machine that went to none of the ended children of this process."""
    ticks = [int(count) for count in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (sum(ticks) - idle) / os.sysconf("SC_CLK_TCK") - own.ru_utime - own.ru_stime


def measure(bench, say: Callable, fail: Callable) -> dict:
    """The runs of every work. Rounds go through all of them in turn, so that a busy minute does not hit one alone."""
    found = {one: [] for table in works(bench.options) for one in table}
    for number in range(bench.options.rounds):
        for one, runs in found.items():
            if one.seq >= LONG and runs:
                continue
            say(f"growth, {one.name}: round {number + 1} of {1 if one.seq >= LONG else bench.options.rounds}")
            out = bench.folder / "runs" / one.name
            steps = 2 if one.seq >= LONG else 3
            recipe = bench.recipe(one, steps, out)
            others, started = others_seconds(), time.perf_counter()
            runs.append(bench.run_graft(one, recipe, out))
            spent = (time.perf_counter() - started) * os.cpu_count()
            runs[-1]["others"] = max((others_seconds() - others) / spent, 0.0)
            if runs[-1]["tokens"] != one.seq * one.rows:
                fail(f"{one.name}: a step of {runs[-1]['tokens']} tokens, it should have {one.seq * one.rows}")
    return found


def calm(runs: list) -> list:
    """The runs that other programs disturbed least: chosen by what the others took, not by how fast Graft was."""
    least = min(run["others"] for run in runs)
    return [run for run in runs if run["others"] <= least + SLACK]


def line(points: list) -> tuple[float, float]:
    """`a` and `b` of a + b·x by least squares of the relative errors: clocks err in proportion to what they time."""
    weights = [1 / y**2 for _, y in points]
    total = sum(weights)
    x_mean = sum(w * x for w, (x, _) in zip(weights, points)) / total
    y_mean = sum(w * y for w, (_, y) in zip(weights, points)) / total
    slope = sum(w * (x - x_mean) * (y - y_mean) for w, (x, y) in zip(weights, points))
    slope /= sum(w * (x - x_mean) ** 2 for w, (x, _) in zip(weights, points))
    return y_mean - slope * x_mean, slope


def off(points: list, fit: tuple[float, float]) -> list:
    """How far each point lies from the line, as a share of the line."""
    a, b = fit
    return [y / (a + b * x) - 1 for x, y in points]


def table(head: list, rows: list) -> list:
    shown = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    return [shown[0], "|" + "---|" * len(head), *shown[1:]]


def rows_table(by_rows: list, seconds: dict) -> list:
    points = [(one.rows, seconds[one]) for one in by_rows]
    fit = line(points)
    shown = [
        [f"{count}", f"{count * one.seq:,}", f"{time:.3f} s", f"{count * one.seq / time:.1f}", f"{time / points[0][1]:.2f}×", f"{far:+.1%}"]
        for one, (count, time), far in zip(by_rows, points, off(points, fit))
    ]
    return [
        f"Rows of {by_rows[0].seq} tokens, {by_rows[0].layers} blocks:",
        "",
        *table(["rows a step", "tokens", "step", "tokens/s", "against one row", "off the line"], shown),
        "",
        f"The line: {fit[0]:.3f} s a step + {fit[1]:.3f} s a row.",
    ]


def layers_table(by_layers: list, seconds: dict) -> list:
    points = [(one.layers, seconds[one]) for one in by_layers]
    fit = line(points)
    shown = [[f"{count}", f"{time:.3f} s", f"{far:+.1%}"] for (count, time), far in zip(points, off(points, fit))]
    return [
        f"Blocks, one row of {by_layers[0].seq} tokens:",
        "",
        *table(["blocks", "step", "off the line"], shown),
        "",
        f"The line: {fit[0]:.3f} s for embedding, head, loss and the rest that a step has once + {fit[1]:.4f} s a block.",
    ]


def lengths_table(by_length: list, seconds: dict, measured: dict) -> list:
    points = [(one.seq, seconds[one] / one.seq) for one in by_length]
    fit = line(points)
    shown = []
    for one, (_, a_token), far in zip(by_length, points, off(points, fit)):
        products = sum(gemm_flops(one, one.layers, measured[one][0]["targets"]).values())
        attention = attention_flops(one, one.layers)
        memory = median([run["peak_bytes"] for run in measured[one]])
        shares = [f"{attention / (products + attention):.1%}", f"{1 - fit[0] / a_token:.1%}"]
        shown.append([f"{one.seq:,}", f"{seconds[one]:.3f} s", f"{1 / a_token:.1f}", gib(memory), *shares, f"{far:+.1%}"])
    return [
        f"One row, {by_length[0].layers} blocks:",
        "",
        *table(["tokens", "step", "tokens/s", "memory", "attention, FLOPs", "attention, time", "off the line"], shown),
        "",
        f"The line: a token takes {fit[0] * 1e3:.4f} ms + {fit[1] * 1e6:.4f} µs for each token of its row. `attention, FLOPs` is by "
        "the formula of `works.py`. `attention, time` is (seconds a token − the line's constant, a token that attends to nothing) "
        "over seconds a token.",
    ]


def section(measured: dict, bench, conditions: list) -> str:
    measured = {one: calm(runs) for one, runs in measured.items()}
    seconds = {one: median(steady(runs)) for one, runs in measured.items()}
    by_rows, by_layers, by_length = works(bench.options)
    counted = f"- {bench.options.rounds} rounds, 2 steps a round after one that is not counted; medians"
    if by_length[-1].seq >= LONG:
        counted += f". From {LONG:,} tokens on: one round, one step"
    others = {one: max(run["others"] for run in runs) for one, runs in measured.items()}
    usual = median([run["others"] for runs in measured.values() for run in runs])
    worst = max(others, key=others.get)
    shared = f"- other programs took {usual:.0%} of the cores' time in the median run, {others[worst]:.0%} in the worst, {worst.name}; "
    shared += f"runs that they disturbed by {SLACK:.0%} more than a work's calmest do not count"
    lines = [HEADING, "", "Shape `100m`, LoRA on bf16 weights, checkpointing `selective`.", "", *conditions, shared, counted]
    lines += ["", *rows_table(by_rows, seconds), "", *layers_table(by_layers, seconds)]
    lines += ["", *lengths_table(by_length, seconds, measured)]
    return "\n".join(lines) + "\n"
