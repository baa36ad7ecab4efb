//! `graft validate`: a plan, or every problem with its place.

use graft::run_folder::RunFolder;

use crate::room::{ROW, Room, is_absent};

#[test]
fn a_good_recipe_is_shown_as_a_plan_and_nothing_is_written() {
    let room = Room::new();
    room.recipe("  chat: {preamble: none}\n");
    let before = room.names();
    let shown = room.done("validate r.yaml training.compute_dtype=f32 --threads 2");
    insta::assert_snapshot!(shown, @r"
    recipe        r
    model         builtin:quickstart
    parameters    3,475,712
    trainable     299,008 (8.60 %), lora of rank 16 on 28 projections
    quantization  none
    compute       f32 on cpu, 2 threads
    data          2 rows, 2 samples, 52 tokens, 14 targets
    steps         3 (3 epochs of 1)
    output        run
    ");
    let json = room.done("validate r.yaml --json");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["valid"], &json["steps"]), (&true.into(), &3.into()));
    assert_eq!(room.names(), before);
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_key() {
    let room = Room::new();
    room.recipe("training:\n  learning_rat: 1.0e-4\n");
    insta::assert_snapshot!(room.refused("validate r.yaml"), @r"
    error: recipe `r.yaml` has a problem:
    r.yaml:6:3: training.learning_rat: unknown key
      help: did you mean `training.learning_rate`?
    ");
}

#[test]
fn names_of_columns_turns_and_speakers_are_held_to_the_form() {
    let room = Room::new();
    room.recipe("  validation:
    - {path: a.jsonl, format: messages, columns: {text: a}, turn_fields: {from: b}, roles: {human: c}}
    - {path: a.jsonl, format: sharegpt, turn_fields: {from: b, value: b}, roles: {user: [c, d], assistant: d}}
    - {path: a.jsonl, format: alpaca, turn_fields: {role: b}, roles: {user: c}}
    - {path: a.jsonl, format: messages, turn_fields: {role: b}, ignore_columns: [messages.b]}
");
    insta::assert_snapshot!(room.refused("validate r.yaml"), @"
    error: recipe `r` has 8 problems:
    r.yaml:6:57: data.validation.0.columns.text: `text` is no field of `format: messages`; allowed: messages, system, tools, builtin_tools, tools_in_user_message, weight
    r.yaml:6:81: data.validation.0.turn_fields.from: `from` is no field of the turns of `format: messages`; allowed: role, content, tool_calls, name, tool_call_id, weight
    r.yaml:6:100: data.validation.0.roles.human: `human` is no role of `format: messages`; allowed: system, user, assistant, tool
    r.yaml:7:71: data.validation.1.turn_fields.value: found `b`, which `from` is read from
    r.yaml:7:89: data.validation.1.roles.user: found `d`, which stands for `assistant`, too
    r.yaml:8:52: data.validation.2.turn_fields: a row of `format: alpaca` is no list of turns; drop it, or use `format: messages` or `format: sharegpt`
    r.yaml:8:70: data.validation.2.roles: a row of `format: alpaca` is no list of turns; drop it, or use `format: messages` or `format: sharegpt`
    r.yaml:9:61: data.validation.3.turn_fields.role: found `messages.b`, which `ignore_columns` leaves out
    ");
}

#[test]
fn all_problems_are_named_at_once() {
    let room = Room::new();
    room.recipe("  max_seq_len: 5000\n  validation: [{path: no.jsonl, format: messages}]\nadapter: {layers: {last: 9}, init_from: nowhere}\n");
    insta::assert_snapshot!(room.refused("validate r.yaml model.preset=llama3.1-8b"), @r#"
    error: recipe `r` has 5 problems:
    r.yaml:5:16: data.max_seq_len: found 5000, but the model's longest sequence is 4096
    r.yaml:6:23: data.validation.0.path: cannot read `no.jsonl`: No such file or directory (os error 2)
    r.yaml:7:26: adapter.layers.last: found 9, but the model has 4 blocks
    r.yaml:7:41: adapter.init_from: there is no adapter at `nowhere`: `adapter_config.json` is missing. An adapter is a folder with adapter_config.json and adapter_model.safetensors
    command line: model.preset=llama3.1-8b: model.preset: the folder is no llama3.1-8b:
      `hidden_size` is 256, but must be 4096
      `intermediate_size` is 704, but must be 14336
      `num_hidden_layers` is 4, but must be 32
      `num_attention_heads` is 4, but must be 32
      `num_key_value_heads` is 2, but must be 8
      `head_dim` is 64, but must be 128
      `vocab_size` is 2048, but must be 128256
      `max_position_embeddings` is 4096, but must be 131072
      `tie_word_embeddings` is true, but must be false
      `bos_token_id` is 1792, but must be 128000
      `rope_scaling` is {"factor":8.0,"high_freq_factor":4.0,"low_freq_factor":1.0,"original_max_position_embeddings":512,"rope_type":"llama3"}, but must be {"factor":8.0,"high_freq_factor":4.0,"low_freq_factor":1.0,"original_max_position_embeddings":8192,"rope_type":"llama3"}
    "#);
    let said = room.graft("validate r.yaml --json");
    let json: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!((said.code, &json["valid"]), (2, &false.into()));
    assert_eq!(json["problems"].as_array().unwrap().len(), 4);
    assert_eq!(json["problems"][0]["location"]["line"], 5);
}

#[test]
fn what_is_missing_is_named() {
    let room = Room::new();
    room.recipe("");
    insta::assert_snapshot!(room.refused("validate none.yaml"), @r"
    error: recipe `none.yaml` has a problem:
    cannot read `none.yaml`: No such file or directory (os error 2)
    ");
    insta::assert_snapshot!(room.refused("validate quickstrat"), @r"
    error: recipe `quickstrat` has a problem:
    `quickstrat` is neither a shipped recipe nor a file here
      help: did you mean `quickstart`?
    ");
    insta::assert_snapshot!(room.refused("validate r.yaml model.path=models/none"), @r"
    error: recipe `r` has a problem:
    command line: model.path=models/none: model.path: there is no model folder `models/none`. Graft downloads nothing: fetch the model yourself, for example with `hf download OWNER/none --local-dir models/none`, and copy it there, or use `builtin:quickstart`
    ");
    let named = room.refused("validate r.yaml model.path=models/mine model.preset=llama3.2-3b");
    assert!(
        named.contains("`hf download meta-llama/Llama-3.2-3B-Instruct --exclude \"original/*\" --local-dir models/mine`"),
        "{named}"
    );
    let base = room.refused("validate domain-adaptation");
    assert!(base.contains("hf download meta-llama/Llama-3.1-8B --exclude"), "{base}");
    room.model("model/builtin/quickstart", |config| config);
    insta::assert_snapshot!(room.refused("validate quickstart-base"), @r"
    error: recipe `quickstart-base` has 2 problems:
    quickstart-base.yaml (shipped):8:14: data.train.0.path: cannot read `runs/quickstart-corpus/corpus-text.jsonl`: No such file or directory (os error 2)
      help: `cargo run --release -p graft-data --example quickstart_corpus -- --out runs/quickstart-corpus`, in Graft's sources, writes it
    quickstart-base.yaml (shipped):9:14: data.train.1.path: cannot read `runs/quickstart-corpus/corpus-messages.jsonl`: No such file or directory (os error 2)
      help: `cargo run --release -p graft-data --example quickstart_corpus -- --out runs/quickstart-corpus`, in Graft's sources, writes it
    ");
    insta::assert_snapshot!(room.refused("validate r.yaml data.train.0.path=none.jsonl"), @r"
    error: recipe `r` has a problem:
    command line: data.train.0.path=none.jsonl: data.train.0.path: cannot read `none.jsonl`: No such file or directory (os error 2)
    ");
}

#[cfg(unix)]
#[test]
fn what_never_ends_is_refused_at_once_wherever_a_file_is_meant() {
    let room = Room::new();
    room.recipe("");
    room.model("model", |config| config);
    let pipe = |name: &str| {
        let path = room.path(name);
        let _ = std::fs::remove_file(&path);
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    };
    pipe("pipe.yaml");
    assert!(room.refused("validate pipe.yaml").contains("it is a pipe"));
    let line = "validate r.yaml model.path=model model.init=random";
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
        let kept = std::fs::read(room.path("model").join(name)).ok();
        pipe(&format!("model/{name}"));
        let shown = room.refused(line);
        assert!(shown.contains(&format!("`model/{name}` is a pipe")), "{name}: {shown}");
        std::fs::remove_file(room.path("model").join(name)).unwrap();
        let sparse = std::fs::File::create(room.path("model").join(name)).unwrap();
        sparse.set_len(100 << 30).unwrap();
        let shown = room.refused(line);
        assert!(
            shown.contains("has 107374182400 bytes; of such a file at most"),
            "{name}: {shown}"
        );
        std::fs::remove_file(room.path("model").join(name)).unwrap();
        if let Some(kept) = kept {
            room.write(&format!("model/{name}"), kept);
        }
    }
    std::fs::create_dir(room.path("adapter")).unwrap();
    pipe("adapter/adapter_config.json");
    let shown = room.refused("validate r.yaml adapter.init_from=adapter");
    assert!(
        shown.contains("`adapter/adapter_config.json` is a pipe, and only plain files are read"),
        "{shown}"
    );
}

#[test]
fn a_wrong_override_is_named() {
    let room = Room::new();
    room.recipe("");
    insta::assert_snapshot!(room.refused("validate r.yaml training.seed=many adapter.rnk=3 nonsense"), @r"
    error: recipe `r.yaml` has 3 problems:
    command line: adapter.rnk=3: adapter.rnk: unknown key
      help: did you mean `adapter.rank`?
    command line: nonsense: found no `=`; allowed: key=value, or ~key to drop a key
    command line: training.seed=many: training.seed: found the text `many`; allowed: a whole number, at least 0
    ");
    // Beyond what is read, the end of it is named.
    let large = ["training.seed=18446744073709551615", "training.max_steps=18446744073709551615"];
    insta::assert_snapshot!(room.refused(&format!("validate r.yaml {}", large.join(" "))), @r"
    error: recipe `r.yaml` has 2 problems:
    command line: training.max_steps=18446744073709551615: training.max_steps: found 1.8446744073709552e19; allowed: a whole number from 1 to 1000000000
    command line: training.seed=18446744073709551615: training.seed: found 1.8446744073709552e19; allowed: a whole number from 0 to 9223372036854775807
    ");
}

#[test]
fn wrong_data_is_named_with_file_and_line() {
    let room = Room::new();
    room.recipe("");
    room.write("bad.jsonl", format!("{ROW}\n{{\"messages\": [}}\n"));
    room.write("empty.jsonl", "\n");
    let bad = room.refused("validate r.yaml data.train.0.path=bad.jsonl");
    assert!(bad.contains("data.train: bad.jsonl:2: malformed JSON at column 15"), "{bad}");
    let empty = room.refused("validate r.yaml data.train.0.path=empty.jsonl");
    assert!(empty.contains("data.train: empty.jsonl holds no rows"), "{empty}");
    let long = room.refused("validate r.yaml data.max_seq_len=10");
    assert!(long.contains("a.jsonl:1: the row has"), "{long}");
}

#[test]
fn a_tokenizer_of_another_model_is_refused_with_both_numbers() {
    let room = Room::new();
    room.recipe("");
    room.model("small", |config| config.replace("\"vocab_size\": 2048", "\"vocab_size\": 1900"));
    insta::assert_snapshot!(room.refused("validate r.yaml model.path=small model.init=random"), @r"
    error: recipe `r` has a problem:
    command line: model.path=small: model.path: the tokenizer `small/tokenizer.json` has ids up to 2047, but the model's vocab_size is 1900: they are not of one model
    ");
}

#[test]
fn an_output_folder_of_another_run_is_refused_and_left_as_it_is() {
    let room = Room::new();
    room.recipe("");
    room.write("run/recipe.yaml", "name: other\n");
    room.write("run/adapter/adapter_config.json", "{}");
    assert!(!RunFolder::holds_run(&room.path("run")));
    insta::assert_snapshot!(room.refused("validate r.yaml"), @r"
    error: recipe `r` has a problem:
    r.yaml:2:13: output_dir: `run` already holds a run: `adapter`, but no readable `manifest.json`
      to keep it and train anew: choose another folder, `output_dir=run-2`
    ");
    room.done("validate r.yaml output_dir=run-2");
    assert!(is_absent(&room.path("run-2")));
}

#[test]
fn weights_that_are_cut_off_or_not_of_the_model_are_refused() {
    let room = Room::new();
    room.recipe("");
    room.model("model", |config| config);
    room.write("model/model.safetensors", [9, 0, 0, 0, 0, 0, 0, 0, b'{']);
    insta::assert_snapshot!(room.refused("validate r.yaml model.path=model"), @r"
    error: recipe `r` has a problem:
    command line: model.path=model: model.path: `model/model.safetensors` is not a usable safetensors file: its header claims 9 bytes, but 1 follow: the copy is cut off
    ");
    room.write("model/model.safetensors", crate::room::safetensors(&[("x".into(), [1, 2])]));
    let shown = room.refused("validate r.yaml model.path=model");
    assert!(
        shown.contains("`model.embed_tokens.weight` is missing; the model needs it as [2048, 256]"),
        "{shown}"
    );
    assert!(shown.contains("`x` (F32 [1, 2]) is not of this model"), "{shown}");
}
