"""The other side: PyTorch, transformers, PEFT and bitsandbytes, as their users run them.

    peer.py train TASK.json       a few optimizer steps; prints seconds a step
    peer.py gemm [DEVICE]         bf16 matrix products: the limit of the machine
    peer.py bandwidth             reading memory: the limit of decoding
    peer.py probe DEVICE          what is there to be compared with, and why not
    peer.py tokenize TASK.json    the `tokenizers` package

DEVICE is `cpu`, `cuda` or `cuda:N`. Every command prints one line of JSON, the last of its output. Each runs in a process of its own.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
import time


def threads() -> int:
    return int(os.environ["BENCH_THREADS"])


def peak_bytes() -> int:
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def versions() -> dict:
    found = {}
    for name in ("torch", "transformers", "peft", "bitsandbytes", "tokenizers"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def is_cuda(device: str) -> bool:
    return device.split(":")[0] == "cuda"


def load(task: dict):
    """Base and adapter. The NF4 folder brings its quantization_config: nf4, double, bf16 compute."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    # Straight to the device, block by block, as large models are loaded.
    placed = {"device_map": {"": task["device"]}} if is_cuda(task["device"]) else {}
    model = AutoModelForCausalLM.from_pretrained(
        task["model"], dtype=torch.bfloat16, attn_implementation="sdpa", local_files_only=True, **placed
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
        use_dora=task["dora"],
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
    device, cuda = task["device"], is_cuda(task["device"])
    if cuda:
        torch.cuda.set_device(device)
    wait = (lambda: torch.cuda.synchronize(device)) if cuda else (lambda: None)
    model = load(task)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(parameter.dtype == torch.float32 for parameter in trained), "adapters are to be f32"
    # What transformers' own trainer takes on a GPU.
    optimizer = torch.optim.AdamW(trained, lr=task["learning_rate"], **({"fused": True} if cuda else {}))
    with open(task["rows"], encoding="utf-8") as file:
        rows = json.load(file)
    count = task["batch"]
    batches = []
    for first in range(0, len(rows) - count + 1, count):
        batch = rows[first : first + count]
        batches.append([torch.tensor([row[key] for row in batch], device=device) for key in ("tokens", "labels")])
    seconds, losses, first_step_at = [], [], None
    for step in range(task["steps"]):
        tokens, labels = batches[step % len(batches)]
        wait()
        started = time.perf_counter()
        loss = model(input_ids=tokens, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        wait()
        seconds.append(time.perf_counter() - started)
        first_step_at = first_step_at or time.time()
    found = {"seconds": seconds, "losses": losses, "peak_bytes": peak_bytes(), "versions": versions()}
    if cuda:
        # Of the whole process, loading included: what tensors held, and what was taken from the driver for them.
        found["device_allocated_bytes"] = torch.cuda.max_memory_allocated(device)
        found["device_reserved_bytes"] = torch.cuda.max_memory_reserved(device)
        found["first_step_at"] = first_step_at
    return found


def gemm(device: str = "cpu") -> dict:
    import torch

    if is_cuda(device):
        return {"flops_per_second": cuda_gemm(torch, device), "versions": versions(), "python": platform.python_version()}
    torch.set_num_threads(threads())
    shapes = ((512, 4096, 4096), (512, 2048, 8192), (512, 768, 2048), (2048, 2048, 2048))
    rates, rates_f32 = ({f"{rows}x{inner}x{out}": cpu_gemm(torch, rows, inner, out, dtype) for rows, inner, out in shapes} for dtype in (torch.bfloat16, torch.float32))
    return {"flops_per_second": rates, "f32_flops_per_second": rates_f32, "versions": versions(), "python": platform.python_version()}


def cpu_gemm(torch, rows: int, inner: int, out: int, dtype) -> float:
    x, w = torch.randn(rows, inner).to(dtype), torch.randn(out, inner).to(dtype)
    times = []
    until = time.perf_counter() + 2.0
    while time.perf_counter() < until or len(times) < 5:
        started = time.perf_counter()
        torch.nn.functional.linear(x, w)
        times.append(time.perf_counter() - started)
    times.sort()
    return 2 * rows * inner * out / times[len(times) // 2]


def cuda_gemm(torch, device: str) -> dict:
    """The projections of the 8B shape at 4,096 tokens, and two squares; timed by the device's own events."""
    shapes = ((4096, 4096, 4096), (4096, 4096, 14336), (4096, 14336, 4096), (4096, 4096, 28672), (8192, 8192, 8192))
    rates = {}
    torch.cuda.set_device(device)
    for rows, inner, out in shapes:
        x = torch.randn(rows, inner, device=device, dtype=torch.bfloat16)
        w = torch.randn(out, inner, device=device, dtype=torch.bfloat16)
        times = []
        until = time.perf_counter() + 1.5  # long enough that the clocks settle
        while time.perf_counter() < until or len(times) < 10:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            for _ in range(10):
                torch.nn.functional.linear(x, w)
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / 1e3 / 10)
        times = sorted(times[len(times) // 3 :])  # the first third warms up
        rates[f"{rows}x{inner}x{out}"] = 2 * rows * inner * out / times[len(times) // 2]
    return rates


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def probe(device: str) -> dict:
    """Why a package cannot be used, by its name; `None` where it can."""
    missing = {}
    for name in ("torch", "transformers", "peft", "accelerate", "bitsandbytes"):
        try:
            __import__(name)
            missing[name] = None
        except Exception as error:  # a broken library must not hide what the others say
            missing[name] = "is not there" if isinstance(error, ModuleNotFoundError) and error.name == name else f"cannot be imported: {first_line(error)}"
    found = {"versions": versions(), "python": platform.python_version(), "missing": missing, "device": None}
    if missing["torch"]:
        return found
    import torch

    if is_cuda(device) and not torch.cuda.is_available():
        missing["torch"] = "finds no CUDA device"
        return found
    if is_cuda(device):
        properties = torch.cuda.get_device_properties(device)
        found["device"] = {
            "name": properties.name,
            "bytes": properties.total_memory,
            "capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
        }
    if not missing["bitsandbytes"]:
        from bitsandbytes.functional import quantize_4bit

        try:
            # The import succeeds without the library for this CUDA; a first call does not.
            quantize_4bit(torch.ones(4096, device=device, dtype=torch.bfloat16), quant_type="nf4")
        except Exception as error:
            missing["bitsandbytes"] = f"does not work on {device}: {first_line(error)}"
    return found


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
    if command in ("train", "tokenize"):
        with open(arguments[0], encoding="utf-8") as file:
            arguments = [json.load(file)]
    commands = {"train": train, "gemm": gemm, "bandwidth": bandwidth, "probe": probe, "tokenize": tokenize}
    print(json.dumps(commands[command](*arguments)))


if __name__ == "__main__":
    main()
