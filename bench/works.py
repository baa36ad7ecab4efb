"""What is measured: the works, the models they need, and the FLOPs of a training step."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

RANK = 16
ALPHA = 32

# Name of `graft synth-model --preset`, then what it takes from the release's config.json.
SHAPES = {
    "100m": dict(d_model=768, d_ff=2048, layers=12, heads=12, kv_heads=4, head_dim=64, vocab=32_000),
    "llama3.2-1b": dict(d_model=2048, d_ff=8192, layers=16, heads=32, kv_heads=8, head_dim=64, vocab=128_256),
    "llama3.1-8b": dict(d_model=4096, d_ff=14336, layers=32, heads=32, kv_heads=8, head_dim=128, vocab=128_256),
    "llama3.1-70b": dict(d_model=8192, d_ff=28672, layers=80, heads=64, kv_heads=8, head_dim=128, vocab=128_256),
    "llama3.1-405b": dict(d_model=16384, d_ff=53248, layers=126, heads=128, kv_heads=8, head_dim=128, vocab=128_256),
}


@dataclass(frozen=True)
class Work:
    """One row of the table: a training step that both sides take."""

    preset: str
    mode: str  # lora, dora: frozen bf16 weights; qlora: NF4 with quantised scales
    seq: int
    checkpointing: str  # selective | block | none, as recipes call it; the peer checkpoints for the first two
    targets: str = "all"  # all | quarter
    rows: int = 1  # sequences an optimizer step
    layers: int | None = None  # blocks, where not as many as the release has
    sparse: bool = False  # weights are holes in the files
    tight: bool = False  # optimizer states in 8 bits, what waits for the backward pass on disk
    peer: bool = True  # whether the other side can do it at all

    @property
    def name(self) -> str:
        short = self.preset.rsplit("-", 1)[-1]
        length = f"{self.seq}x{self.rows}" if self.rows > 1 else str(self.seq)
        parts = [short, self.mode, length, self.checkpointing]
        if self.layers:
            parts.append(f"{self.layers}blocks")
        if self.targets != "all":
            parts.append(self.targets)
        return "-".join(parts)

    @property
    def format(self) -> str:
        return {"lora": "bf16", "dora": "bf16", "qlora": "nf4-double"}[self.mode]


WORKS = [
    Work("100m", mode, seq, checkpointing)
    for seq in (512, 2048)
    for mode in ("lora", "qlora")
    for checkpointing in ("selective", "none")
]
WORKS += [Work("llama3.2-1b", mode, 512, "selective") for mode in ("qlora", "lora")]
WORKS += [
    Work(preset, mode, 512, "selective", targets="quarter")
    for preset in ("100m", "llama3.2-1b")
    for mode in ("qlora", "lora")
]

# The least memory instead of the most speed.
WORKS += [Work(preset, "qlora", 512, "block") for preset in ("100m", "llama3.2-1b")]
WORKS += [Work("llama3.2-1b", "lora", 512, "block")]

# The lengths of rows of the weights trained apart.
WORKS += [Work("100m", "dora", 512, checkpointing) for checkpointing in ("selective", "none")]
WORKS += [Work("llama3.2-1b", "dora", 512, "selective")]

# Larger than the peer can take on such machines: Graft alone, by `--large`.
LARGE = [
    Work("llama3.1-8b", "qlora", 512, "block", peer=False),
    Work("llama3.1-70b", "qlora", 16, "block", rows=16, peer=False),
    Work("llama3.1-405b", "qlora", 16, "block", sparse=True, tight=True, peer=False),
]

# On a GPU, by `--device cuda`. The last fits a card of 48 GiB in Graft alone, by `--large`.
CUDA = [
    Work("llama3.1-8b", "qlora", 2048, "selective", rows=2),
    Work("llama3.1-8b", "qlora", 2048, "block", rows=2),
    Work("llama3.1-8b", "lora", 2048, "block", rows=2),
]
CUDA_LARGE = [Work("llama3.1-70b", "qlora", 2048, "block", peer=False)]

# Which frozen products Graft's backward pass runs again under `checkpointing: block`, in every block
# but the last, whose tape is kept; the outputs of `o` and `down` nobody reads. `selective` keeps what
# products give and runs none again. Below the lowest adapter
# nothing is propagated: the first block's `q`, `k` and `v` give no dx. Follows
# engine/src/walk.rs: change both together.
REPLAYED = ("q", "k", "v", "gate", "up")
LOWEST = ("q", "k", "v")


def projections(shape: dict) -> dict:
    """in × out of each projection of a block."""
    d, f = shape["d_model"], shape["d_ff"]
    q, kv = shape["heads"] * shape["head_dim"], shape["kv_heads"] * shape["head_dim"]
    return {"q": (d, q), "k": (d, kv), "v": (d, kv), "o": (q, d), "gate": (d, f), "up": (d, f), "down": (f, d)}


def gemm_flops(work: Work, layers: int, targets: int) -> dict:
    """FLOPs of the matrix products of one optimizer step of Graft, 2 a multiply-add, by kind.

    T tokens, of which `targets` are learnt; L blocks; W = Σ in·out over a block's projections;
    A = Σ rank·(in + out) over them. No frozen weight has a gradient.

        forward   2·T·W·L                     dx       2·T·(W·L − W_lowest)
        replay    2·T·W_replayed·(L − 1)      head     2·2·targets·d_model·vocab
        adapters  2·T·A·L forward, 4·T·A·L backward, and the replay's share again

    Attention's products are not counted: their share is stated apart by `attention_flops`.
    """
    shape = SHAPES[work.preset]
    tokens = work.seq * work.rows
    sizes = projections(shape)
    dense = {kind: a * b for kind, (a, b) in sizes.items()}
    low = {kind: RANK * (a + b) for kind, (a, b) in sizes.items()}
    blocks_again = layers - 1 if work.checkpointing == "block" else 0
    again = sum(dense[kind] for kind in REPLAYED) * blocks_again
    # `x·Aᵀ` of the others is run again for the gradient of `B`.
    halves = sum(RANK * sizes[kind][0] for kind in sizes if kind not in REPLAYED)
    low_again = (sum(low[kind] for kind in REPLAYED) + halves) * blocks_again
    lowest = sum(dense[kind] for kind in LOWEST)
    return {
        "forward": 2 * tokens * sum(dense.values()) * layers,
        "dx": 2 * tokens * (sum(dense.values()) * layers - lowest),
        "replay": 2 * tokens * again,
        "head": 2 * 2 * targets * shape["d_model"] * shape["vocab"],
        "adapters": 6 * tokens * sum(low.values()) * layers + 2 * tokens * low_again,
    }


def model_flops(work: Work, layers: int, targets: int) -> int:
    """FLOPs of a step's matrix products that any trainer needs, whatever it computes again: for MFU."""
    return sum(gemm_flops(replace(work, checkpointing="none"), layers, targets).values())


def weights_bytes(work: Work, layers: int) -> int:
    """Bytes of the model folder's weights: NF4 takes half a byte a weight, and one scale byte for 64."""
    shape = SHAPES[work.preset]
    dense = sum(a * b for a, b in projections(shape).values()) * layers
    a_weight = {"bf16": 2, "nf4-double": 0.5 + 1 / 64 + 4 / (64 * 256)}[work.format]
    return int(dense * a_weight) + 2 * 2 * shape["vocab"] * shape["d_model"]


def attention_flops(work: Work, layers: int) -> int:
    """FLOPs of causal attention: two products forward, five backward, forward again in a replay."""
    shape = SHAPES[work.preset]
    product = work.rows * work.seq * (work.seq + 1) * shape["heads"] * shape["head_dim"]  # half of 2·T²·d
    again = 2 * product * (layers - 1) if work.checkpointing == "block" else 0
    return 7 * product * layers + again


def median(values: list) -> float:
    values = sorted(values)
    if not values:
        return math.nan
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2


def steady(runs: list) -> list:
    """Seconds of every step but each process's first, which also warms caches and the allocator."""
    return [seconds for run in runs for seconds in run["seconds"][1:]]


def gib(count: float) -> str:
    return f"{count / 2**30:.2f} GiB"
