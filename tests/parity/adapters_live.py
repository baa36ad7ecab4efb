"""Files in the other direction, on freshly drawn models: what Graft writes, read by PEFT, transformers
and bitsandbytes.

Command:  python adapters_live.py --graft target/release/graft --seed 1
As a module: `run(graft, seed, out)` gives one row a comparison: part, comparison, compared, worst,
tolerance. It raises nothing: a comparison that cannot be made is a row whose worst is not a number,
with its `error`.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import traceback
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

# Sums of the reference depend on the width of its vectors and on its threads; Graft follows these.
REFERENCE = {"ATEN_CPU_CAPABILITY": "avx2", "TORCHDYNAMO_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
TOKENIZER = Path(__file__).parents[2] / "model/builtin/quickstart"
ROPE = {"rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
# A row's loss is a sum of a few dozen terms that carry the logits' error with either sign.
LOSS = 1e-5
# Both sum the same f32 products in another order, so a weight near the middle between two bf16
# numbers may be rounded the other way: one spacing at the larger of base and sum.
SPACING = 1.0


def run(graft, seed, out):
    """All rows. A process of its own, for the reference reads its environment when it starts."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    table = out / "rows.json"
    command = [sys.executable, __file__, "--graft", graft, "--seed", seed, "--out", out, "--table", table]
    done = subprocess.run(list(map(str, command)), env=os.environ | REFERENCE, capture_output=True, text=True)
    try:
        return json.loads(table.read_text())
    except (OSError, ValueError):
        error = (done.stderr or done.stdout)[-2_000:]
        return [row("adapters", "the live comparison of files", 0, math.nan, 0.0) | {"error": error}]


def row(part, comparison, compared, worst, tolerance):
    return dict(part=part, comparison=comparison, compared=compared, worst=float(worst), tolerance=tolerance)


class Live:
    def __init__(self, graft, seed, out):
        self.graft, self.seed, self.out, self.rows = Path(graft).resolve(), seed, Path(out), []
        self.random = torch.Generator().manual_seed(seed)

    def draw(self, *choices):
        return choices[int(torch.randint(0, len(choices), (), generator=self.random))]

    def command(self, *arguments):
        done = subprocess.run([self.graft, *map(str, arguments)], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"graft {' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}")
        return done.stdout

    def base(self, name, tied=False, dtype=torch.bfloat16, wild=False):
        """A random model with a tokenizer."""
        folder = self.out / name
        config = LlamaConfig(
            hidden_size=64, intermediate_size=self.draw(64, 128), num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=self.draw(2, 4), head_dim=16, vocab_size=2_048, tie_word_embeddings=tied,
            rms_norm_eps=1e-5, max_position_embeddings=512, bos_token_id=1_792, eos_token_id=1_793,
            rope_parameters=ROPE,
        )
        model = LlamaForCausalLM(config)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.ndim == 1:
                    weight.uniform_(0.5, 1.5, generator=self.random)
                    continue
                weight.normal_(std=weight.shape[1] ** -0.5, generator=self.random)
                if wild and "proj" in name:
                    self.make_wild(weight)
        model.to(dtype).save_pretrained(folder)
        return with_tokenizer(folder)

    def make_wild(self, weight):
        """Heavy tails, and rows that are constant, zero, subnormal or huge."""
        weight.div_(torch.rand(weight.shape, generator=self.random).clamp(min=1e-3))
        for kind, value in enumerate((0.007, 0.0, -0.0, 3e-40, 3e4)):
            weight[kind::16] = value if kind < 3 else weight[kind::16].sign() * value

    def texts(self):
        words = ["ledger", "Öffnung", "signal", "的", "certificate", "17", "officer", "—", "may", "tomorrow?"]
        lines = [" ".join(self.draw(*words) for _ in range(self.draw(5, 12, 30))) for _ in range(12)]
        path = self.out / "rows.jsonl"
        path.write_text("".join(json.dumps({"text": line}, ensure_ascii=False) + "\n" for line in lines))
        tokenizer = Tokenizer.from_file(str(TOKENIZER / "tokenizer.json"))
        encode = lambda line: tokenizer.encode(line, add_special_tokens=False).ids
        return path, [[1_792, *encode(line), 1_793] for line in lines]

    def compare_losses(self, comparison, model, rows, base, *flags):
        """`graft eval` row by row with the model's own losses."""
        path, ids = rows
        scores = self.out / "scores.jsonl"
        scores.unlink(missing_ok=True)
        self.command("eval", "--model", base, "--data", path, "--format", "text", "--compute-dtype", "f32",
                     "--per-example", scores, *flags)
        worst, found = 0.0, list(map(json.loads, scores.read_text().splitlines()))
        assert len(found) == len(ids), "rows"
        for score, tokens in zip(found, map(torch.tensor, ids)):
            with torch.no_grad():
                logits = model(input_ids=tokens[None], use_cache=False).logits[0]
            nll = float(cross_entropy(logits[:-1].double(), tokens[1:], reduction="sum"))
            assert score["target_tokens"] == len(tokens) - 1, "targets"
            worst = max(worst, abs(score["nll"] - nll) / nll)
        self.rows.append(row("adapters", comparison, len(ids), worst, LOSS))

    def trained(self, base, rows, name, quantization):
        """An adapter that Graft trained."""
        recipe = {
            "name": name, "model": {"path": str(base)}, "quantization": quantization,
            "adapter": {
                "method": "lora", "rank": self.draw(3, 4, 8), "alpha": self.draw(4, 8.5, 16),
                "rslora": self.draw(True, False), "layers": self.draw("all", {"last": 2}, [0, 2]),
                "target_modules": self.draw("all-linear", ["q_proj", "down_proj"]),
            },
            "data": {"train": [{"path": str(rows[0]), "format": "text"}], "max_seq_len": 256},
            "training": {"max_steps": 6, "micro_batch_size": 4, "learning_rate": 1e-2, "compute_dtype": "f32"},
            "output_dir": str(self.out / name),
        }
        path = self.out / f"{name}.yaml"
        path.write_text(json.dumps(recipe))
        self.command("train", path)
        return self.out / name / "adapter"

    def keys_of(self, comparison, base, adapter):
        """PEFT finds every tensor that it needs, and no other."""
        model = PeftModel.from_pretrained(load(base), adapter)
        result = model.load_adapter(adapter, "again")
        left = [key for key in [*result.missing_keys, *result.unexpected_keys] if "lora_" in key]
        saved = load_file(adapter / "adapter_model.safetensors")
        self.rows.append(row("adapters", comparison, len(saved), len(left), 0.0))

    def trained_here(self):
        rows, base = self.texts(), self.base("base", tied=self.draw(True, False))
        adapter = self.trained(base, rows, "over-bf16", "none")
        self.keys_of("keys of Graft's adapter in PEFT, missing or unexpected", base, adapter)
        tuned, ids = PeftModel.from_pretrained(load(base), adapter).eval(), torch.arange(9)[None]
        assert float((tuned(ids).logits - load(base)(ids).logits).abs().max()) > 1e-3, "nothing was trained"
        self.compare_losses("losses of Graft's adapter in PEFT", tuned, rows, base, "--adapter", adapter)
        self.merged("Graft's merge of its adapter and PEFT's, bf16 spacings", base, adapter)
        quantised = self.quantised("base-nf4", base)
        adapter = self.trained(base, rows, "over-nf4", {"format": "nf4", "double": True})
        tuned = PeftModel.from_pretrained(exactly(load(quantised)), adapter).eval()
        self.compare_losses("losses of Graft's adapter over NF4 in PEFT", tuned, rows, base, "--adapter", adapter)
        self.compare_losses("losses of Graft's adapter over a folder of `graft quantize`", tuned, rows, quantised, "--adapter", adapter)

    def trained_there(self):
        rows, base = self.texts(), self.base("base-of-peft", tied=self.draw(True, False))
        quantised = self.out / "nf4-of-transformers"
        load(base, torch.bfloat16, self.draw(True, False)).save_pretrained(quantised)
        with_tokenizer(quantised)
        options = dict(r=self.draw(2, 5), lora_alpha=self.draw(3, 8), use_rslora=self.draw(True, False),
                       rank_pattern={"q_proj": 3}, alpha_pattern={r".*\.1\..*": 6},
                       modules_to_save=self.draw(None, ["lm_head"], ["embed_tokens"]))
        adapter = self.out / "adapter-of-peft"
        model = get_peft_model(load(quantised), LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM", **options))
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.requires_grad:
                    weight.add_(torch.empty_like(weight).normal_(std=0.1, generator=self.random))
        model.save_pretrained(adapter)
        for comparison, folder in (("", base), (" over NF4", quantised)):
            tuned = PeftModel.from_pretrained(exactly(load(folder)), adapter).eval()
            comparison = f"losses of PEFT's adapter{comparison} in Graft"
            self.compare_losses(comparison, tuned, rows, folder, "--adapter", adapter)
        self.merged("Graft's merge of PEFT's adapter and PEFT's, bf16 spacings", base, adapter)

    def merged(self, comparison, base, adapter):
        out = self.out / f"merged-{adapter.parent.name}-{adapter.name}"
        self.command("merge", "--model", base, "--adapter", adapter, "--out", out)
        before, found = load(base, torch.bfloat16).state_dict(), load(out, torch.bfloat16).state_dict()
        expected = PeftModel.from_pretrained(load(base, torch.bfloat16), adapter).merge_and_unload().state_dict()
        assert expected.keys() == found.keys(), expected.keys() ^ found.keys()
        worst = 0.0
        for name, weight in expected.items():
            a, b, w = weight.double(), found[name].double(), before[name].double()
            size = torch.maximum(a.abs(), w.abs()).clamp(min=1e-30)
            worst = max(worst, float(((a - b).abs() / (torch.exp2(torch.floor(torch.log2(size))) / 128)).max()))
        self.rows.append(row("adapters", comparison, len(expected), worst, SPACING))

    def quantised(self, name, base, double=True):
        out = self.out / name
        self.command("quantize", "--model", base, "--out", out, "--double", str(double).lower())
        return out

    def quantised_here(self):
        """Folders of `graft quantize` are those of transformers and bitsandbytes, byte for byte."""
        count, other, configs, logits = 0, 0, 0, 0
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            for wild in (False, True):
                base = self.base(f"{dtype}-{wild}".replace(".", "-"), dtype=dtype, wild=wild)
                for double in (False, True):
                    ours = self.quantised(f"{base.name}-{double}-graft", base, double)
                    theirs = self.out / f"{base.name}-{double}-transformers"
                    model = load(base, dtype, double)
                    model.save_pretrained(theirs)
                    read = lambda folder: (folder / "model.safetensors").read_bytes()
                    config = lambda folder: json.loads((folder / "config.json").read_text())
                    count += 1
                    other += read(ours) != read(theirs)
                    configs += config(ours) != config(theirs)
                    if not wild:
                        ids = torch.randint(0, 2_048, (1, 40), generator=self.random)
                        with torch.no_grad():
                            logits += not torch.equal(load(ours, dtype)(ids).logits, load(theirs, dtype)(ids).logits)
        self.rows.append(row("NF4", "bytes of `graft quantize` and transformers' folders, differing", count, other, 0.0))
        self.rows.append(row("NF4", "config.json of `graft quantize` and transformers' folders, differing", count, configs, 0.0))
        self.rows.append(row("NF4", "logits of these folders in transformers, differing", count // 2, logits, 0.0))


def with_tokenizer(folder):
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).write_bytes((TOKENIZER / file).read_bytes())
    return folder


def load(folder, dtype=None, double=None):
    """In f32 where nothing else is said; quantised where `double` says how."""
    options = {}
    if double is not None:
        kind = dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
        options["quantization_config"] = BitsAndBytesConfig(bnb_4bit_use_double_quant=double, **kind)
    options |= dict(dtype=dtype or torch.float32, attn_implementation="eager", device_map={"": "cpu"})
    return AutoModelForCausalLM.from_pretrained(folder, **options).eval()


def exactly(model):
    """Decodes 4-bit weights to f32, where bitsandbytes would round them to bf16."""
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.weight.quant_state.dtype = torch.float32
            decoded = dequantize_4bit(module.weight.data, module.weight.quant_state)
            module.forward = lambda x, decoded=decoded: torch.nn.functional.linear(x, decoded)
    return model


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--graft", type=Path, default=Path("target/release/graft"))
    parser.add_argument("--seed", type=int, default=1)
    for name in ("--out", "--table"):
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    if arguments.table is None:
        with TemporaryDirectory() as folder:
            rows = run(arguments.graft, arguments.seed, arguments.out or folder)
        for found in rows:
            print(json.dumps(found, ensure_ascii=False))
        sys.exit(any(not found["worst"] <= found["tolerance"] for found in rows))
    torch.set_num_threads(1)
    live = Live(arguments.graft, arguments.seed, arguments.out)
    for part in (live.trained_here, live.trained_there, live.quantised_here):
        try:
            part()
        except Exception:  # A row says so; the others are still made.
            failed = row("adapters", part.__name__, 0, math.nan, 0.0)
            live.rows.append(failed | {"error": traceback.format_exc()[-2_000:]})
    arguments.table.write_text(json.dumps(live.rows))


if __name__ == "__main__":
    main()
