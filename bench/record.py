"""The record of results, `bench/RESULTS.md`: parts that are measured on different machines and at different times."""

from __future__ import annotations

from pathlib import Path

import growth
import on_cuda

HEADINGS = (on_cuda.HEADING, growth.HEADING)


def parts_of(text: str) -> list:
    """The text before the first heading, then that under each heading, with it; empty where there is none."""
    starts = [f"\n{text}".find(f"\n{heading}\n") for heading in HEADINGS]
    found = [[0, 0], *([start, number] for number, start in enumerate(starts, 1) if start >= 0)]
    found.sort()
    parts = [""] * (1 + len(HEADINGS))
    for (start, number), (end, _) in zip(found, [*found[1:], [len(text), 0]]):
        parts[number] = text[start:end]
    return parts


def merged(record: Path, title: str, *parts: str) -> str:
    """The record with the parts that were measured now; those that were not stay as they are."""
    old = parts_of(record.read_text() if record.exists() else "")
    if parts[0] or not old[0].strip():
        old[0] = title + parts[0]
    kept = [new or was for new, was in zip(["", *parts[1:]], old)]
    return "\n".join(part.rstrip("\n") + "\n" for part in kept if part.strip())
