"""GGUF files that Graft wrote, beside llama.cpp: bytes and greedy tokens.

    pip install llama-cpp-python gguf jinja2          # compiles llama.cpp; nothing else is fetched
    gguf_live.py bytes  GRAFT MODEL FOLDER            # q8_0 and q4_k_m beside llama.cpp's own quantiser
    gguf_live.py blocks EXAMPLE MODEL                 # every block type beside ggml_quantize_chunk
    gguf_live.py greedy GRAFT MODEL FILE [--adapter DIR] [--lora FILE]

EXAMPLE is `cargo build --release -p graft-gguf --examples` (target/release/examples/encode); MODEL a folder with one
model.safetensors, or for `greedy` whatever `graft generate --model` takes.
"""

import argparse
import ctypes
import json
import subprocess
from pathlib import Path

import llama_cpp
import numpy as np
from gguf import GGUFReader

TOKENS = 48
PROMPTS = [
    "What is the capital of France?", "Write one sentence about the sea.", "List three colours.",
    "How many days has a week?", "Explain what a mortgage is.", "Who wrote Hamlet?",
    'Translate "good morning" into Spanish.', "What is 12 plus 30?", "Name a mammal that lives in water.",
    "Give me a short recipe for pancakes.", "Why is the sky blue?", "What does HTTP mean?",
    "Write a haiku about rain.", "What is the largest planet?", "Summarise the plot of Cinderella.",
    "How do I boil an egg?", "What is photosynthesis?", "Tell me a fact about penguins.",
    "When did the Second World War end?", "Write a polite e-mail asking for a day off.",
]
BLOCKS = {"F16": 1, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14, "BF16": 30}


def graft(*arguments):
    done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def compare_bytes(args):
    folder = Path(args.folder)
    source = folder / "source.gguf"
    graft(args.graft, "export", "--model", args.model, "--type", "bf16", "--out", str(source), "--quiet")
    for name, file_type in [("q8_0", 7), ("q4_k_m", 15)]:
        mine, theirs = folder / f"graft-{name}.gguf", folder / f"llama-{name}.gguf"
        graft(args.graft, "export", "--model", args.model, "--type", name, "--out", str(mine), "--quiet")
        parameters = llama_cpp.llama_model_quantize_default_params()
        parameters.ftype = file_type
        paths = str(source).encode(), str(theirs).encode()
        if llama_cpp.llama_model_quantize(*paths, ctypes.byref(parameters)):
            raise SystemExit("llama.cpp quantised nothing")
        tensors = [{tensor.name: tensor for tensor in GGUFReader(path).tensors} for path in (mine, theirs)]
        if tensors[0].keys() != tensors[1].keys():
            raise SystemExit(f"{name}: other tensors: {tensors[0].keys() ^ tensors[1].keys()}")
        total = other = 0
        for key, tensor in tensors[0].items():
            if tensor.tensor_type != tensors[1][key].tensor_type:
                raise SystemExit(f"{name}: {key} is {tensor.tensor_type}, not {tensors[1][key].tensor_type}")
            one, two = (np.asarray(it[key].data).view(np.uint8).ravel() for it in tensors)
            total, other = total + one.size, other + int((one != two).sum())
        print(f"{name}: {len(tensors[0])} tensors of the same types, {total:,} bytes, {other} differ")


def compare_blocks(args):
    from safetensors import safe_open

    library = ctypes.CDLL(str(Path(llama_cpp.__file__).parent / "lib" / "libggml-base.so"))
    quantise = library.ggml_quantize_chunk
    quantise.restype = ctypes.c_size_t
    quantise.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p]
    file = safe_open(Path(args.model) / "model.safetensors", "pt")
    for name, number in BLOCKS.items():
        total = other = 0
        for key in file.keys():
            values = file.get_tensor(key).float().numpy()
            inner = 1 if number in (1, 30) else 32 if number < 12 else 256
            if values.ndim < 2 or values.size % inner:
                continue
            values = np.ascontiguousarray(values.reshape(-1, values.shape[1] if values.shape[1] % inner == 0 else inner))
            mine = subprocess.run(
                [args.example, name, str(values.shape[1])], input=values.tobytes(), stdout=subprocess.PIPE, check=True
            ).stdout
            theirs = np.zeros(len(mine), np.uint8)
            quantise(number, values.ctypes.data, theirs.ctypes.data, 0, *values.shape, None)
            total, other = total + len(mine), other + int((theirs != np.frombuffer(mine, np.uint8)).sum())
        print(f"{name}: {total:,} bytes, {other} differ")


def compare_greedy(args):
    from jinja2 import Environment

    model = llama_cpp.Llama(args.file, n_ctx=512, verbose=False, lora_path=args.lora, n_gpu_layers=0)
    vocabulary = llama_cpp.llama_model_get_vocab(model.model)
    template = Environment(trim_blocks=True, lstrip_blocks=True).from_string(model.metadata["tokenizer.chat_template"])
    bos = model.detokenize([model.token_bos()], special=True).decode()
    beside = ["--adapter", args.adapter] if args.adapter else []
    same = 0
    for prompt in PROMPTS:
        said = json.loads(graft(
            args.graft, "generate", "--model", args.model, "--prompt", prompt, "--max-new-tokens", str(TOKENS),
            "--compute-dtype", "f32", "--json", "--quiet", *beside,
        ))
        turns = [{"role": "user", "content": prompt}]
        text = template.render(messages=turns, add_generation_prompt=True, bos_token=bos, eos_token="")
        tokens = []
        for token in model.generate(
            model.tokenize(text.encode(), add_bos=False, special=True), temp=0.0, top_k=1, repeat_penalty=1.0, reset=True
        ):
            if llama_cpp.llama_vocab_is_eog(vocabulary, token) or len(tokens) == TOKENS:
                break
            tokens.append(token)
        if tokens == said["tokens"]:
            same += 1
        else:
            first = next((at for at, pair in enumerate(zip(tokens, said["tokens"])) if pair[0] != pair[1]), None)
            print(f"  {prompt!r}: another token at {first} of {len(tokens)} and {len(said['tokens'])}")
    print(f"{Path(args.file).name}: {same} of {len(PROMPTS)} answers the same, token by token")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, run, places, flags in [
        ("bytes", compare_bytes, ["graft", "model", "folder"], []),
        ("blocks", compare_blocks, ["example", "model"], []),
        ("greedy", compare_greedy, ["graft", "model", "file"], ["--adapter", "--lora"]),
    ]:
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        for place in places:
            command.add_argument(place)
        for flag in flags:
            command.add_argument(flag)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
