//! Whatever stands in a file, nothing that a command says steers the terminal, turns the reading order
//! around or hides.

use graft_data::is_visible;
use serde_json::json;

use super::room::{ROW, Room, safetensors};

/// Colour, title, link, clear, C1, carriage return, backspace, override, isolate, no width, tags.
const HOSTILE: &str = "x\u{1b}[31m\u{1b}]0;t\u{7}\u{1b}]8;;u\u{1b}\\\u{9b}2J\r\u{8}\u{7f}\u{202e}\u{2066}\u{200b}\u{feff}\u{e0041}y";

/// The same in JSON, as any file may hold it.
fn hostile() -> String {
    json!(HOSTILE).to_string()
}

/// What a command says, which must be visible from first to last.
fn said(room: &Room, line: &str, code: i32) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let said = room.graft_words(&words);
    let all = format!("{}{}", said.stdout, said.stderr);
    assert_eq!(said.code, code, "graft {line}\n{}", all.escape_debug());
    let steers = all.chars().find(|&c| !is_visible(c) && c != '\n' && c != '\t');
    assert_eq!(steers, None, "graft {line}\n{}", all.escape_debug());
    all
}

/// Says it, and that the hostile text is part of it, spelled out.
fn spelled(room: &Room, line: &str, code: i32) {
    let all = said(room, line, code);
    assert!(
        all.contains(r"\u{1b}") || all.contains(r"\u001b"),
        "graft {line} does not tell:\n{all}"
    );
}

#[test]
fn rows_and_templates_do_not() {
    let room = Room::new();
    let flags = "--format messages --model builtin:quickstart";
    let row = |row: String| room.write("rows.jsonl", row);
    row(ROW.replace("Fee?", hostile().trim_matches('"')));
    spelled(&room, &format!("data --file rows.jsonl {flags} --preamble none"), 0);
    spelled(&room, &format!("data --file rows.jsonl {flags} --preamble none --json"), 0);
    row(ROW.replace("\"messages\"", &hostile()));
    spelled(&room, &format!("data --file rows.jsonl {flags}"), 2);
    spelled(&room, &format!("eval --data rows.jsonl {flags}"), 2);
    row(ROW.replace("\"user\"", &hostile()));
    spelled(&room, &format!("data --file rows.jsonl {flags}"), 2);
    room.model("model", |config| config);
    room.write("model/chat_template.jinja", format!("{{{{ raise_exception({}) }}}}", hostile()));
    room.write("rows.jsonl", ROW);
    spelled(&room, "data --file rows.jsonl --format messages --model model", 2);
    room.write("model/chat_template.jinja", format!("{{{{ {} }}}}", hostile()));
    said(&room, "data --file rows.jsonl --format messages --model model", 2);
}

#[test]
fn recipes_and_command_lines_do_not() {
    let room = Room::new();
    room.recipe("");
    let override_of = |key: &str| format!("{key}={}", hostile());
    for (key, code) in
        [("name", 2), ("output_dir", 0), ("model.path", 2), ("data.system_prompt", 0)]
    {
        for command in ["validate", "plan"] {
            let all = room.graft_words(&[command, "r.yaml", &override_of(key)]);
            let text = format!("{}{}", all.stdout, all.stderr);
            let steers = text.chars().find(|&c| !is_visible(c) && c != '\n' && c != '\t');
            assert_eq!(steers, None, "{command} {key}\n{}", text.escape_debug());
            assert!(all.code == code || command == "plan", "{command} {key}: {text}");
        }
    }
    room.write("h.yaml", format!("{}: 1\nmodel: {{path: builtin:quickstart}}\n", hostile()));
    spelled(&room, "validate h.yaml", 2);
    let all = room.graft_words(&["inspect", HOSTILE]);
    assert!(all.code == 2 && all.stderr.contains(r"\u{1b}[31m"), "{}", all.stderr.escape_debug());
    // Whole sequences are left out by the library that prints, the rest is spelled out.
    let all = room.graft_words(&["generate", "--model", "builtin:quickstart", HOSTILE]);
    assert!(all.code == 2 && all.stderr.contains(r"\u{202e}"), "{}", all.stderr.escape_debug());
    assert!(
        all.stderr.chars().all(|c| is_visible(c) || c == '\n'),
        "{}",
        all.stderr.escape_debug()
    );
}

#[test]
fn models_adapters_runs_and_tensors_do_not() {
    let room = Room::new();
    room.write("t.safetensors", safetensors(&[(HOSTILE.to_owned(), [2, 3])]));
    spelled(&room, "inspect t.safetensors", 0);
    room.model("model", |config| config);
    room.write("model/model.safetensors", safetensors(&[(HOSTILE.to_owned(), [2, 3])]));
    for command in
        ["inspect model", "quantize --model model --out q", "generate --model model --prompt x"]
    {
        spelled(&room, command, 2);
    }
    room.model("odd", |config| config.replacen("\"silu\"", &hostile(), 1));
    spelled(&room, "inspect odd", 2);
    let name = |matrix: &str| {
        format!("base_model.model.model.layers.1.self_attn.q_proj.lora_{matrix}.weight")
    };
    let keys = |base: &str, more: &str| {
        format!(
            "{{\"peft_type\": \"LORA\", \"base_model_name_or_path\": {base}, \"r\": 4, \
             \"lora_alpha\": 8, \"target_modules\": [\"q_proj\"]{more}}}"
        )
    };
    room.write("adapter/adapter_config.json", keys(&hostile(), ""));
    room.write(
        "adapter/adapter_model.safetensors",
        safetensors(&[(name("A"), [4, 256]), (name("B"), [256, 4])]),
    );
    spelled(&room, "inspect adapter", 0);
    spelled(&room, "inspect adapter --json", 0);
    room.write("adapter/adapter_config.json", keys("null", &format!(", {}: 1", hostile())));
    for command in ["inspect adapter", "merge --model builtin:quickstart --adapter adapter --out m"]
    {
        spelled(&room, command, 2);
    }
    let manifest = json!({
        "status": {"state": "failed", "reason": HOSTILE}, "started": HOSTILE, "ended": null,
        "resumed_after": [], "run": HOSTILE, "model": HOSTILE, "method": HOSTILE,
        "quantization": "nf4", "compute_dtype": "f32", "device": HOSTILE, "seed": 1, "threads": 1,
        "parameters": 1, "trainable_parameters": 1, "trainable_sha256": "", "recipe_sha256": "",
        "versions": {}, "base": {}, "data": {},
    });
    room.write("run/manifest.json", manifest.to_string());
    room.write("run/metrics.jsonl", "");
    said(&room, "inspect run", room.graft("inspect run").code);
    said(&room, "inspect run --json", room.graft("inspect run --json").code);
}
