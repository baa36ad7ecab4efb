//! GGUF files: written by `graft export`, read as bases by every command, and refused where they lie.

use graft_gguf::blocks::decode;
use graft_gguf::{File, TensorType};
use graft_model::checkpoint::Checkpoint;
use graft_model::folder::ModelFolder;

use crate::room::{Room, is_absent};

const MODEL: &str = "--model builtin:quickstart";
const ASK: &str = "--prompt Fee? --max-new-tokens 8 --compute-dtype f32 --quiet --json";

/// A room with an adapter in `run/adapter`, trained for a step that moves it.
fn adapted() -> Room {
    let room = Room::new();
    room.recipe(
        "adapter: {rank: 4, alpha: 8}\ntraining: {max_steps: 2, schedule: constant, learning_rate: 0.02}\nquantization: none\n",
    );
    room.done("train r.yaml --quiet");
    room
}

fn tokens(room: &Room, of: &str) -> serde_json::Value {
    let said: serde_json::Value =
        serde_json::from_str(&room.done(&format!("generate {of} {ASK}"))).unwrap();
    assert!(said["tokens"].as_array().is_some_and(|tokens| !tokens.is_empty()), "{said}");
    said["tokens"].clone()
}

fn read(room: &Room, name: &str) -> File {
    File::read(&std::fs::read(room.path(name)).unwrap().into()).unwrap()
}

/// The numbers behind the first words `of` a line of a command's table.
fn line(shown: &str, of: &str) -> String {
    let found = shown.lines().find_map(|line| line.strip_prefix(of));
    found.unwrap_or_else(|| panic!("no {of} in\n{shown}")).trim().to_owned()
}

#[test]
fn a_model_in_every_type_is_a_model_again() {
    let room = Room::new();
    let expected = tokens(&room, MODEL);
    for kind in ["f32", "f16", "bf16", "q8_0", "q4_k_m"] {
        let shown = room.done(&format!("export {MODEL} --type {kind} --out {kind}.gguf --quiet"));
        assert!(shown.contains("nats a token from the model as stored"), "{shown}");
        let found = tokens(&room, &format!("--model {kind}.gguf"));
        if kind != "q8_0" && kind != "q4_k_m" {
            assert_eq!(found, expected, "{kind}");
        }
    }
    let kinds: Vec<String> = ["f16", "q8_0", "q4_k_m"]
        .map(|kind| line(&room.done(&format!("inspect {kind}.gguf")), "size"))
        .into();
    insta::assert_snapshot!(kinds.join("\n"), @"
    6.63 MiB
    3.53 MiB
    2.23 MiB
    ");
    let shown = room.done("inspect q4_k_m.gguf");
    let shown = shown.split("            tokenizer.").next().unwrap().to_owned();
    insta::assert_snapshot!(shown, @r#"
    model       q4_k_m.gguf
    file        q4_k_m.gguf, GGUF version 3
    release     none that Graft knows; any Llama 3.x shape works
    parameters  3,475,712
    shape       4 blocks of width 256 and 704, 4 heads on 2 keys of 64, 2,048 tokens, the embedding is the head
    context     4,096 tokens
    quantized   in blocks of Q4_K, Q6_K, Q8_0, Q5_0, decoded to f16 where they are used
    tensors     F32: 9 tensors, 9.00 KiB
                Q4_K: 22 tensors, 1.16 MiB
                Q5_0: 2 tensors, 242.00 KiB
                Q6_K: 3 tensors, 472.50 KiB
                Q8_0: 2 tensors, 374.00 KiB
    size        2.23 MiB
    tokenizer   2,048 tokens
    chat        a template of its own
    keys        general.architecture = "llama"
                general.file_type = 15
                general.name = "builtin:quickstart"
                general.quantization_version = 2
                general.size_label = "3.5M"
                general.type = "model"
                llama.attention.head_count = 4
                llama.attention.head_count_kv = 2
                llama.attention.key_length = 64
                llama.attention.layer_norm_rms_epsilon = 0.00001
                llama.attention.value_length = 64
                llama.block_count = 4
                llama.context_length = 4096
                llama.embedding_length = 256
                llama.feed_forward_length = 704
                llama.rope.dimension_count = 64
                llama.rope.freq_base = 500000
                llama.vocab_size = 2048
    "#);
}

#[test]
fn an_adapter_is_merged_on_the_way_or_written_by_itself() {
    let room = adapted();
    let beside = "--model builtin:quickstart --adapter run/adapter";
    let expected = tokens(&room, beside);
    assert_ne!(tokens(&room, MODEL), expected, "the adapter changes nothing");
    room.done(&format!("export {beside} --type f32 --out merged.gguf --quiet"));
    assert_eq!(tokens(&room, "--model merged.gguf"), expected);
    room.done(&format!("export {beside} --adapter-only --out lora.gguf --quiet"));
    let file = read(&room, "lora.gguf");
    let value = |key: &str| file.value(key).unwrap().to_string();
    let keys = ["general.type", "general.architecture", "adapter.type", "adapter.lora.alpha"];
    insta::assert_snapshot!(keys.map(value).join(" "), @r#""adapter" "llama" "lora" 8"#);
    let adapter = Checkpoint::open_file(
        &ModelFolder::at(&room.path("run/adapter")).unwrap(),
        "adapter_model.safetensors",
    )
    .unwrap();
    assert_eq!(file.tensors().len(), adapter.len());
    let numbers = |name: &str| {
        let tensor = file.tensors().iter().find(|tensor| tensor.name == name).unwrap();
        let mut values = vec![0.0; tensor.shape.iter().product()];
        decode(tensor.kind, &tensor.bytes, &mut values);
        values
    };
    let peft = |name: &str| {
        let name = format!("base_model.model.model.layers.1.{name}.weight");
        adapter.tensor(&name).unwrap().to_f32().unwrap()
    };
    assert_eq!(numbers("blk.1.attn_q.weight.lora_a"), peft("self_attn.q_proj.lora_A"));
    assert_eq!(numbers("blk.1.ffn_down.weight.lora_b"), peft("mlp.down_proj.lora_B"));
    // Rows of a head of 64 go from halves to neighbours, those of `B` alone.
    let (q, was) = (numbers("blk.1.attn_q.weight.lora_b"), peft("self_attn.q_proj.lora_B"));
    let row = |values: &[f32], row: usize| values[row * 4..][..4].to_vec();
    for (file, checkpoint) in [(0, 0), (1, 32), (2, 1), (64, 64), (127, 127), (126, 95)] {
        assert_eq!(row(&q, file), row(&was, checkpoint), "row {file}");
    }
}

#[test]
fn a_gguf_file_is_a_base_like_any_other() {
    let room = Room::new();
    room.recipe("adapter: {rank: 2}\ntraining: {max_steps: 1}\nquantization: none\n");
    room.write("models/README.md", "a folder");
    room.done(&format!("export {MODEL} --type q8_0 --out models/q.gguf --quiet"));
    // A folder with one such file and no config.json is that file.
    room.done("train r.yaml model.path=models --quiet");
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(room.path("run/manifest.json")).unwrap()).unwrap();
    let inputs = manifest["base"].to_string();
    assert!(inputs.contains("q.gguf"), "{inputs}");
    let said = room.graft("train r.yaml model.path=models/q.gguf --resume --quiet");
    assert_eq!(said.code, 0, "{}", said.stderr);
    room.done("plan r.yaml model.path=models/q.gguf");
    room.done("eval --model models/q.gguf --adapter run/adapter --data a.jsonl --format messages");
    room.done("merge --model models/q.gguf --adapter run/adapter --out folder --quiet");
    assert_eq!(
        tokens(&room, "--model folder"),
        tokens(&room, "--model models/q.gguf --adapter run/adapter")
    );
    room.done("export --model models/q.gguf --adapter run/adapter --out again.gguf --quiet");
    let (first, again) = (read(&room, "models/q.gguf"), read(&room, "again.gguf"));
    for (key, value) in first.metadata().iter().filter(|(key, _)| key.starts_with("tokenizer.")) {
        assert_eq!(again.value(key), Some(value), "{key}");
    }
    room.done("quantize --model models/q.gguf --out nf4 --quiet");
    // A file may get others beside it; in a folder that was named, a second one would part the two.
    let inside = room.refused("quantize --model models --out models/new");
    assert!(inside.contains("lies in the base's folder"), "{inside}");
    room.refused("export --model models --out models/new.gguf");
    room.done("export --model models/q.gguf --out models/beside.gguf --quiet");
    std::fs::remove_file(room.path("models/beside.gguf")).unwrap();
    // What it is called decides nothing.
    std::fs::rename(room.path("models/q.gguf"), room.path("models/renamed.gguf")).unwrap();
    room.done("train r.yaml model.path=models/renamed.gguf --resume training.max_steps=2 --quiet");
    std::fs::rename(room.path("models/renamed.gguf"), room.path("models/q.gguf")).unwrap();
    std::fs::copy(room.path("models/q.gguf"), room.path("models/r.gguf")).unwrap();
    insta::assert_snapshot!(room.refused("generate --model models --prompt x"), @"error: the folder `models` holds no config.json and several GGUF files: give the path of one: q.gguf, r.gguf");
}

#[test]
fn what_no_gguf_file_can_say_is_refused_before_anything_is_written() {
    let room = adapted();
    room.write("taken.gguf", "mine");
    room.model("m", |config| config);
    let beside = "--model builtin:quickstart --adapter run/adapter";
    room.done("train r.yaml adapter.dora=true training.max_steps=1 output_dir=dora --quiet");
    let merged = "--model builtin:quickstart --adapter dora/adapter --out dora.gguf";
    room.done(&format!("export {merged} --type f32 --quiet"));
    let refused = [
        format!("export {MODEL} --adapter dora/adapter --adapter-only --out new.gguf"),
        format!("export {MODEL} --out taken.gguf"),
        format!("export {MODEL} --out none/new.gguf"),
        format!("export {MODEL} --adapter-only --out new.gguf"),
        format!("export {MODEL} --onto original --out new.gguf"),
        format!("export {beside} --adapter-only --type q8_0 --out new.gguf"),
        format!("export {beside} --adapter-only --tolerance 1 --out new.gguf"),
        "export --model m --out new.gguf".to_owned(),
    ];
    let said = refused.map(|line| room.refused(&line));
    insta::assert_snapshot!(said.join(""), @"
    error: `dora/adapter/adapter_model.safetensors` cannot be written as a GGUF adapter: it is DoRA, whose magnitudes llama.cpp does not know. Export base and adapter as one model, without --adapter-only
    error: `taken.gguf` exists and is not replaced: choose another name, or remove this one
    error: there is no folder `none` to write `none/new.gguf` into: make it, or choose another
    error: --adapter-only: there is no adapter: give one with --adapter DIR
    error: --quantization, --onto: they say how an adapter is merged, and there is none: leave them out
    error: an adapter's matrices are too narrow for blocks: `--type q8_0` is for a whole model; take f32, f16 or bf16
    error: --tolerance, --onto, --quantization, --tokenizer: the adapter by itself is neither merged nor compared, and has no tokenizer: leave them out
    error: `model.safetensors` or `model.safetensors.index.json` is not in the model folder `m`. Graft downloads nothing: copy the file there from where the model comes from
    ");
    assert_eq!(std::fs::read(room.path("taken.gguf")).unwrap(), b"mine");
    let said = room.graft(&format!("export {MODEL} --type q4_k_m --tolerance 0 --out new.gguf"));
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("does not answer as the model does"), "{}", said.stderr);
    assert!(is_absent(&room.path("new.gguf")));
}

#[test]
fn files_that_lie_are_named_by_every_command() {
    let room = Room::new();
    room.recipe("");
    room.done(&format!("export {MODEL} --out whole.gguf --quiet"));
    let whole = std::fs::read(room.path("whole.gguf")).unwrap();
    let place = |what: &str| {
        let found = whole.windows(what.len()).position(|window| window == what.as_bytes());
        found.unwrap() + what.len()
    };
    let with = |place: usize, bytes: &[u8]| {
        let mut file = whole.clone();
        file[place..place + bytes.len()].copy_from_slice(bytes);
        file
    };
    let many = (1u64 << 50).to_le_bytes();
    let lies = [
        ("empty", Vec::new()),
        ("cut", whole[..whole.len() / 2].to_vec()),
        ("keys", with(16, &many)),
        ("text", with(place("general.name") + 4, &many)),
        ("list", with(place("tokenizer.ggml.tokens") + 8, &many)),
        ("kind", with(place("blk.0.ffn_up.weight") + 20, &10u32.to_le_bytes())),
        ("shape", with(place("blk.0.ffn_up.weight") + 4, &many)),
        ("offset", with(place("blk.0.ffn_up.weight") + 24, &many)),
        ("other", with(place("general.architecture") + 12, b"qwen2")),
        ("model", with(place("tokenizer.ggml.model") + 12, b"bert")),
        ("pre", with(place("tokenizer.ggml.pre") + 12, b"llama-xyz")),
        ("heads", with(place("llama.attention.head_count") + 4, &0u32.to_le_bytes())),
        ("blocks", with(place("llama.block_count") + 4, &4_000_000u32.to_le_bytes())),
        ("width", with(place("llama.embedding_length") + 4, &512u32.to_le_bytes())),
        ("rows", with(place("llama.vocab_size") + 4, &2049u32.to_le_bytes())),
    ];
    let mut shown = String::new();
    for (name, bytes) in lies {
        let file = format!("{name}.gguf");
        room.write(&file, bytes);
        let said = room.refused(&format!("generate --model {file} --prompt x"));
        assert!(said.contains(&file), "{said}");
        shown.extend(said.split_inclusive('\n').take(2));
        room.refused(&format!("validate r.yaml model.path={file}"));
        room.refused(&format!("inspect {file}"));
        room.refused(&format!("export --model {file} --out new.gguf"));
    }
    insta::assert_snapshot!(shown, @"
    error: `empty.gguf` cannot be read: it begins with ``, not with `GGUF`: it is no GGUF file, or an empty one
    error: `cut.gguf` cannot be read: tensor `blk.1.ffn_up.weight` claims the bytes 3280896..3641344 after the list of tensors, but 3444944 follow it: the copy is cut off, or the file lies
    error: `keys.gguf` cannot be read: the number of metadata keys is 1125899906842624, but must be at most 65536
    error: `text.gguf` cannot be read: the value of `general.name` at byte 138 takes 1125899906842624 bytes, but only 7022294 follow: the copy is cut off
    error: `list.gguf` cannot be read: entry 2049 of the list `tokenizer.ggml.tokens` at byte 33241 takes 21474836489 bytes, but only 6989191 follow: the copy is cut off
    error: `kind.gguf` cannot be read: tensor `blk.0.ffn_up.weight` is of type Q2_K, which is not read; read are F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K. Take the model in one of these
    error: `shape.gguf` cannot be read: tensor `blk.0.ffn_up.weight` claims the bytes 1804288..1585267068836218880 after the list of tensors, but 6956160 follow it: the copy is cut off, or the file lies
    error: `offset.gguf` cannot be read: tensor `blk.0.ffn_up.weight` claims the bytes 1125899906842624..1125899907203072 after the list of tensors, but 6956160 follow it: the copy is cut off, or the file lies
    error: `other.gguf` is no model that Graft can run: `general.architecture` is `qwen2`, but must be `llama`
    error: the tokenizer of `model.gguf` cannot be used: `tokenizer.ggml.model` is `bert`, but must be `gpt2`, a byte-level BPE; take the model's own folder
    error: the tokenizer of `pre.gguf` cannot be used: `tokenizer.ggml.pre` is `llama-xyz`, but must be one of llama-bpe, llama3, llama-v3, smollm, starcoder, refact, codeshell, gpt-2, phi-2, qwen2, deepseek-r1-qwen
    error: `heads.gguf (its `llama.` keys)` does not describe a model that Graft can run:
      `llama.attention.head_count` is 0, but must be a whole number from 1 to 4294967295
    error: `blocks.gguf (its `llama.` keys)` does not describe a model that Graft can run:
      `llama.block_count` is 4000000, but must be at most 4096
    error: the tensors of `width.gguf` are not those of its keys:
      `model.embed_tokens.weight` is [2048, 256], but the model needs [2048, 512]
    error: `rows.gguf` is no model that Graft can run: `llama.vocab_size` is 2049, but must be 2048, the rows of `token_embd.weight`
    ");
    // What a file of another kind of numbers holds is refused by their name.
    assert_eq!(TensorType::from_id(10), Err("Q2_K".to_owned()));
}

#[test]
fn a_file_without_a_tokenizer_says_so_in_its_own_words() {
    use graft_gguf::{TensorSpec, Writer};
    let room = Room::new();
    room.done(&format!("export {MODEL} --out whole.gguf --quiet"));
    let whole = read(&room, "whole.gguf");
    let keys = whole.metadata().iter().filter(|(key, _)| !key.starts_with("tokenizer."));
    let keys: Vec<_> = keys.map(|(key, value)| (key.clone(), value.clone())).collect();
    let specs = whole.tensors().iter().map(|tensor| TensorSpec {
        name: tensor.name.clone(),
        kind: tensor.kind,
        shape: tensor.shape.clone(),
    });
    let (mut bytes, mut next) = (Vec::new(), whole.tensors().iter());
    let fill =
        |_: &TensorSpec, out: &mut dyn std::io::Write| out.write_all(&next.next().unwrap().bytes);
    Writer::new(&keys, specs.collect()).write(&mut bytes, fill).unwrap();
    room.write("bare.gguf", bytes);
    let refused = room.refused("generate --model bare.gguf --prompt x");
    insta::assert_snapshot!(refused, @"error: `bare.gguf` brings no tokenizer (`tokenizer.ggml.model`): give the folder of one with --tokenizer DIR, in a recipe as `model.tokenizer`");
    let shown = room.done("quantize --model bare.gguf --out nf4 -q");
    assert!(shown.contains("tokenizer   none: the base brings none"), "{shown}");
    room.model("m", |config| config);
    room.done("quantize --model bare.gguf --tokenizer m --out whole -q");
}
