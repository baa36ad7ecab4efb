//! What an adapter was trained with goes where it goes: into the adapter, the merged model and every export.

use graft_gguf::File;
use serde_json::Value;

use crate::room::Room;

const TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n{{ m.content }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n{% endif %}";

/// A room with a model in `base` that has chat templates of its own.
fn room() -> Room {
    let room = Room::new();
    room.recipe("training: {max_steps: 1}\nquantization: none\nfinish: {merge: true}\n");
    room.done("train r.yaml -q output_dir=first");
    std::fs::rename(room.path("first/merged"), room.path("base")).unwrap();
    std::fs::remove_file(room.path("base/graft.json")).unwrap();
    room.write("base/chat_template.jinja", TEMPLATE);
    room.write("base/additional_chat_templates/tool_use.jinja", TEMPLATE);
    room.write("base/additional_chat_templates/rag.jinja", format!("{TEMPLATE}{{# rag #}}"));
    room.recipe("training: {max_steps: 2, schedule: constant, learning_rate: 0.02}\nquantization: none\nfinish: {merge: true}\n");
    room
}

const RUN: &str = "train r.yaml -q model.path=base data.system_prompt=Briefly. data.train_on.roles=[user,assistant]";

fn json(room: &Room, file: &str) -> Value {
    serde_json::from_slice(&std::fs::read(room.path(file)).unwrap()).unwrap()
}

#[test]
fn what_an_adapter_was_trained_with_is_with_the_model_that_is_made_of_it() {
    let room = room();
    room.done(RUN);
    let inspected: Value = serde_json::from_str(&room.done("inspect run/adapter --json")).unwrap();
    let metadata = &inspected["metadata"];
    assert_eq!(metadata["graft.system_prompt"], "Briefly.");
    assert_eq!(metadata["graft.train_on"], r#"{"roles":["user","assistant"],"turns":"all"}"#);
    let shown = room.done("inspect run/adapter");
    assert!(
        shown.contains("\nlearnt ") && shown.contains("\ntemplate ") && shown.contains("\ndated "),
        "{shown}"
    );
    // The run's merge and the command's say the same.
    room.done("merge --model base --adapter run/adapter --out merged -q");
    let told = json(&room, "run/merged/graft.json");
    assert_eq!(told, json(&room, "merged/graft.json"));
    for key in
        ["graft.system_prompt", "graft.train_on", "graft.preamble", "graft.chat_template_sha256"]
    {
        assert_eq!(told[key], metadata[key], "{key}");
    }
    assert!(
        told.get("graft.base_norms").is_none() && told.get("graft.quantization").is_none(),
        "{told}"
    );
    for file in [
        "chat_template.jinja",
        "additional_chat_templates/tool_use.jinja",
        "additional_chat_templates/rag.jinja",
    ] {
        let read = |of: &str| std::fs::read(room.path(&format!("{of}/{file}"))).unwrap();
        assert_eq!(read("base"), read("merged"), "{file}");
    }
    // So do a GGUF file's keys, all templates among them, and a folder that is made of either.
    room.done("export --model base --adapter run/adapter --out whole.gguf -q");
    let file = File::read(&std::fs::read(room.path("whole.gguf")).unwrap().into()).unwrap();
    let text = |key: &str| file.value(key).and_then(graft_gguf::Value::as_text).map(str::to_owned);
    assert_eq!(text("graft.system_prompt").as_deref(), Some("Briefly."));
    assert_eq!(text("tokenizer.chat_template").as_deref(), Some(TEMPLATE));
    assert!(text("tokenizer.chat_template.rag").unwrap().contains("rag"));
    let names = file.value("tokenizer.chat_templates").unwrap().as_array().unwrap();
    assert_eq!(names.texts().unwrap().collect::<Vec<_>>(), ["rag", "tool_use"]);
    room.done("quantize --model merged --out nf4 -q");
    assert_eq!(json(&room, "nf4/graft.json"), told);
    // And every command that talks goes by it.
    for model in ["base --adapter run/adapter", "merged", "nf4", "whole.gguf"] {
        let said =
            room.graft(&format!("generate --model {model} --prompt Fee? --max-new-tokens 1"));
        assert_eq!(said.code, 0, "{}", said.stderr);
        let note = "system prompt of the adapter's training: \"Briefly.\"";
        assert!(said.stderr.contains(note), "{model}: {}", said.stderr);
        assert!(!said.stderr.contains("warning"), "{model}: {}", said.stderr);
    }
}

#[test]
fn another_template_than_that_of_the_training_is_told_and_half_an_adapter_or_one_of_zeros_too() {
    let room = room();
    room.done(RUN);
    room.write("base/chat_template.jinja", format!("{TEMPLATE}{{# other #}}"));
    for line in [
        "generate --model base --adapter run/adapter --prompt Fee? --max-new-tokens 1",
        "merge --model base --adapter run/adapter --out merged",
        "export --model base --adapter run/adapter --out whole.gguf",
        "export --for peft --model base --adapter run/adapter --out peft",
        "eval --model base --adapter run/adapter --data a.jsonl --format messages",
    ] {
        let said = room.graft(line);
        assert_eq!(said.code, 0, "{line}\n{}", said.stderr);
        let warned = said.stderr.contains("was trained with the chat template of SHA-256 ");
        assert!(warned, "{line}\n{}", said.stderr);
    }
    // Half of it: the description chooses what the file lacks.
    let config = std::fs::read_to_string(room.path("run/adapter/adapter_config.json")).unwrap();
    room.done("train r.yaml -q output_dir=some adapter.target_modules=[q_proj]");
    room.write("some/adapter/adapter_config.json", config);
    let shown = room.done("inspect some/adapter");
    assert!(shown.contains("it holds no update of `model.layers.0."), "{shown}");
    let refused =
        room.refused("adapters --method rerank --rank 1 --adapter some/adapter --out new");
    assert!(refused.contains("half an adapter is another one"), "{refused}");
    let weights = room.path("run/adapter/adapter_model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[header..].fill(0);
    std::fs::write(&weights, bytes).unwrap();
    let shown = room.done("inspect run/adapter");
    assert!(shown.contains("\nwarning     it changes nothing: each of its updates"), "{shown}");
    let said = room.graft("adapters --method rerank --rank 1 --adapter run/adapter --out new");
    assert!(said.code == 0 && said.stderr.contains("changes nothing"), "{}", said.stderr);
}
