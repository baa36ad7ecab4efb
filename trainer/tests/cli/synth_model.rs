//! `graft synth-model`: every flag, and what it refuses.

use crate::room::{Room, Said, is_absent};

fn json(room: &Room, path: &str) -> serde_json::Value {
    serde_json::from_str(&room.done(&format!("inspect {path} --json"))).unwrap()
}

#[test]
fn a_synthetic_model_is_a_model_that_trains() {
    let room = Room::new();
    let line = "synth-model --preset 100m --layers 1 --format nf4-double --out synth";
    let shown = room.done(line);
    for name in ["written     synth\n", "parameters  55,445,760\n", "weights", "on disk", "time"] {
        assert!(shown.contains(name), "{name}\n{shown}");
    }
    insta::assert_snapshot!(room.done("inspect synth"), @r"
    model       synth
    release     none that Graft knows; any Llama 3.x shape works
    parameters  55,445,760
    shape       1 blocks of width 768 and 2048, 12 heads on 4 keys of 64, 32,000 tokens, a head of its own
    context     131,072 tokens
    quantized   NF4 with quantised scales (bitsandbytes)
    tensors     BF16: 5 tensors, 93.75 MiB
                F32: 21 tensors, 8.94 KiB
                U8: 21 tensors, 3.09 MiB
    size        96.86 MiB
    tokenizer   32,000 tokens
    chat        a template of its own
    ");
    room.recipe(
        "  chat: {preamble: none}\nquantization: {format: nf4, double: true}\n\
         adapter: {method: lora, rank: 2, alpha: 4}\ntraining: {max_steps: 1}\n",
    );
    room.done("train r.yaml model.path=synth");
    // Weights of the stated size: the first loss is that of guessing among 32,000 tokens.
    let metrics = std::fs::read_to_string(room.path("run/metrics.jsonl")).unwrap();
    let line: serde_json::Value = serde_json::from_str(metrics.lines().next().unwrap()).unwrap();
    let loss = line["loss"].as_f64().unwrap();
    assert!((loss - 32_000_f64.ln()).abs() < 1.0, "{loss}");
}

#[test]
fn every_shape_has_the_sizes_of_its_release() {
    let room = Room::new();
    let presets = [
        ("100m", 124_668_672_u64),
        ("llama3.2-1b", 1_235_814_400),
        ("llama3.2-3b", 3_212_749_824),
        ("llama3.1-8b", 8_030_261_248),
        ("llama3.1-70b", 70_553_706_496),
        ("llama3.3-70b", 70_553_706_496),
        ("llama3.1-405b", 405_853_388_800),
    ];
    for (preset, parameters) in presets {
        let line = format!("synth-model --preset {preset} --format bf16 --sparse --out {preset}");
        let said = room.done(&line);
        let found = json(&room, preset);
        assert_eq!(found["parameters"], parameters, "{preset}\n{said}");
        assert_eq!(found["bytes"], 2 * parameters, "{preset}");
        assert_eq!(found["quantized"], false);
        if preset != "100m" {
            assert_eq!(found["differs_from_release"], serde_json::json!([]), "{preset}");
        }
    }
}

#[test]
fn the_format_decides_the_size() {
    let room = Room::new();
    for (format, bits) in [("nf4", 4.5), ("nf4-double", 4.127), ("bf16", 16.0)] {
        let flags = format!("--preset llama3.1-8b --layers 2 --format {format}");
        room.done(&format!("synth-model {flags} --sparse --out {format}"));
        let found = json(&room, format);
        assert_eq!(found["quantized"], format != "bf16");
        assert_eq!(found["config"]["num_hidden_layers"], 2);
        let blocks = found["bytes"].as_f64().unwrap() - 2.0 * 2.0 * 128_256.0 * 4_096.0;
        let weights = 2.0 * 218_103_808.0;
        assert!((8.0 * blocks / weights - bits).abs() < 0.01, "{format}: {blocks} bytes");
    }
}

#[test]
fn the_seed_decides_the_weights() {
    let room = Room::new();
    let weights = |name: &str, seed: &str| {
        room.done(&format!("synth-model --preset 100m --layers 1 {seed} --out {name}"));
        std::fs::read(room.path(name).join("model.safetensors")).unwrap()
    };
    let first = weights("a", "");
    assert!(first == weights("b", "--seed 7"));
    assert!(first != weights("c", "--seed 8"));
}

#[test]
fn what_cannot_be_written_is_refused_before_anything_is() {
    let room = Room::new();
    room.write("taken/x", "");
    room.write("file", "");
    let refused = |flags: &str| room.refused(&format!("synth-model {flags}"));
    for out in ["taken", "file"] {
        let shown = refused(&format!("--preset 100m --out {out}"));
        assert!(shown.contains("nothing is overwritten"), "{shown}");
    }
    let shown = refused("--preset llama3.1-405b --format bf16 --layers 4096 --out huge/one");
    let needed = "bytes (4096 blocks of 5.94 GiB, 7.83 GiB of tables";
    for part in [needed, "bytes left", "--sparse", "another disk"] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    assert!(is_absent(&room.path("huge")));
    let shown = refused("--preset llama3.1-9b --out x");
    assert!(shown.contains("llama3.1-8b"), "{shown}");
    for wrong in ["--layers 0", "--layers 4097", "--format fp4", "--seed x"] {
        refused(&format!("--preset 100m --out x {wrong}"));
    }
}

#[test]
fn help_has_an_example_and_says_what_sparse_costs() {
    let Said { code, stdout, .. } = Room::new().graft("synth-model --help");
    assert_eq!(code, 0);
    for part in ["graft synth-model --preset llama3.1-8b", "holes", "[default: nf4-double]"] {
        assert!(stdout.contains(part), "{part}\n{stdout}");
    }
}
