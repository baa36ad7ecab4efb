"""The other side: PyTorch, transformers, PEFT and bitsandbytes, as their users run them.

    peer.py train TASK.json       a few optimizer steps; prints seconds a step
    peer.py gemm                  bf16 matrix products: the limit of the machine
    peer.py bandwidth             reading memory: the limit of decoding
    peer.py tokenize TASK.json    the `tokenizers` package

Every command prints one line of JSON, the last of its output. Each runs in a process of its own.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time


def threads() -> int:
    return int(os.environ["BENCH_THREADS"])


def peak_bytes() -> int:
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def versions() -> dict:
    names = ("torch", "transformers", "peft", "bitsandbytes", "tokenizers")
    return {name: importlib.metadata.version(name) for name in names}


def load(task: dict):
    """Base and adapter. The NF4 folder brings its quantization_config: nf4, double, bf16 compute."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        task["model"], dtype=torch.bfloat16, attn_implementation="sdpa", local_files_only=True
    )
    model.config.use_cache = False
    if task["checkpointing"] != "none":
        # `prepare_model_for_kbit_training` would also turn the embedding and the head into f32, which
        # takes more memory and more time: left out in the peer's favour.
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    config = LoraConfig(
        r=task["rank"],
        lora_alpha=task["alpha"],
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    )
    model = get_peft_model(model, config)
    model.train()
    return model


def train(task: dict) -> dict:
    import torch

    torch.set_num_threads(threads())
    torch.manual_seed(7)
    model = load(task)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(parameter.dtype == torch.float32 for parameter in trained), "adapters are to be f32"
    optimizer = torch.optim.AdamW(trained, lr=task["learning_rate"])
    with open(task["rows"], encoding="utf-8") as file:
        rows = [(torch.tensor([row["tokens"]]), torch.tensor([row["labels"]])) for row in json.load(file)]
    seconds, losses = [], []
    for step in range(task["steps"]):
        tokens, labels = rows[step % len(rows)]
        started = time.perf_counter()
        loss = model(input_ids=tokens, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        seconds.append(time.perf_counter() - started)
    return {"seconds": seconds, "losses": losses, "peak_bytes": peak_bytes(), "versions": versions()}


def gemm() -> dict:
    import torch

    torch.set_num_threads(threads())
    rates = {}
    for rows, inner, out in ((512, 4096, 4096), (512, 2048, 8192), (512, 768, 2048), (2048, 2048, 2048)):
        x = torch.randn(rows, inner).to(torch.bfloat16)
        w = torch.randn(out, inner).to(torch.bfloat16)
        times = []
        until = time.perf_counter() + 2.0
        while time.perf_counter() < until or len(times) < 5:
            started = time.perf_counter()
            torch.nn.functional.linear(x, w)
            times.append(time.perf_counter() - started)
        times.sort()
        rates[f"{rows}x{inner}x{out}"] = 2 * rows * inner * out / times[len(times) // 2]
    return {"flops_per_second": rates, "versions": versions()}


def bandwidth() -> dict:
    """Bytes a second read from memory, by the fastest of two reductions over 1 GiB."""
    import torch

    torch.set_num_threads(threads())
    data = torch.ones(1 << 28, dtype=torch.float32)
    best = 0.0
    for reduce in (torch.sum, torch.amax):
        for _ in range(5):
            started = time.perf_counter()
            reduce(data)
            best = max(best, data.numel() * 4 / (time.perf_counter() - started))
    return {"bytes_per_second": best, "versions": versions()}


def tokenize(task: dict) -> dict:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(task["tokenizer"])
    with open(task["rows"], encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    started = time.perf_counter()
    encoded = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    seconds = time.perf_counter() - started
    tokens = sum(len(encoding.ids) for encoding in encoded)
    return {"seconds": seconds, "tokens": tokens, "bytes": sum(len(text.encode()) for text in texts)}


def main() -> None:
    command, arguments = sys.argv[1], sys.argv[2:]
    tasks = []
    for path in arguments:
        with open(path, encoding="utf-8") as file:
            tasks.append(json.load(file))
    commands = {"train": train, "gemm": gemm, "bandwidth": bandwidth, "tokenize": tokenize}
    print(json.dumps(commands[command](*tasks)))


if __name__ == "__main__":
    main()
