//! Every shipped recipe, from first step to files: as its user has it, with the files where the recipe
//! looks for them, over models of every make. Only the sizes of the release are left out.

use std::fs;
use std::path::Path;

use graft::synthetic::{Contents, Format, Synthetic};
use graft_model::folder::ModelFolder;
use graft_model::{LlamaConfig, presets};
use graft_recipes::{AdapterMethod, Model, Quantization, Recipe, library, load};
use serde_json::{Value, json};

use super::room::{ROW, Room};

/// Rows of every file: with three epochs each recipe takes a handful of steps.
const ROWS: usize = 40;

/// Where a recipe asks for Llama 3.1's chat format without its preamble, a model of another make has a
/// template of its own.
const OWN_TEMPLATE: &str = "~data.chat";

/// Two small blocks with the built-in model's tokens.
fn tiny(tied: bool, format: Format) -> Synthetic {
    let builtin = ModelFolder::open("builtin:quickstart").unwrap();
    let config = builtin.required("config.json").unwrap();
    let vocab_size = LlamaConfig::from_json(&config, "config.json").unwrap().vocab_size;
    let release = presets::llama3_1_8b();
    let config = LlamaConfig {
        d_model: 64,
        d_ff: 128,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        vocab_size,
        tied,
        ..release
    };
    Synthetic::new(config, None, format, Contents::Random { seed: 7 }).unwrap()
}

/// The same tokens under ChatML's names, with a template of the folder's own: nothing in it is called as
/// Llama 3 calls it.
fn as_chatml(folder: &Path) {
    const NAMES: [(&str, &str); 8] = [
        ("<|begin_of_text|>", "<|first|>"),
        ("<|end_of_text|>", "<|endoftext|>"),
        ("<|finetune_right_pad_id|>", "<|pad|>"),
        ("<|start_header_id|>", "<|im_start|>"),
        ("<|end_header_id|>", "<|unused_0|>"),
        ("<|eot_id|>", "<|im_end|>"),
        ("<|eom_id|>", "<|unused_1|>"),
        ("<|python_tag|>", "<|unused_2|>"),
    ];
    let tokenizer = fs::read_to_string(folder.join("tokenizer.json")).unwrap();
    let renamed = NAMES.iter().fold(tokenizer, |text, (from, to)| text.replace(from, to));
    fs::write(folder.join("tokenizer.json"), renamed).unwrap();
    let template = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}\
                    {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
    let config = json!({
        "bos_token": "<|first|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|pad|>",
        "add_bos_token": false,
        "chat_template": template,
    });
    fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
}

/// What the recipes' files are named after: the model folder and the data below the working folder.
fn settle(room: &Room, recipe: &Recipe, model: &Synthetic, change: &dyn Fn(&Path)) {
    let Model { path, .. } = &recipe.model;
    let folder = room.path(&path.to_string());
    model.write(&folder, &mut |_| ()).unwrap();
    change(&folder);
    let rows = |row: &dyn Fn(usize) -> String| (0..ROWS).map(row).collect::<String>();
    room.write("data/train.jsonl", rows(&|i| ROW.replace("12", &i.to_string()) + "\n"));
    let text = |i| format!("{{\"text\": \"The archive has {i} rooms. Each has a door.\"}}\n");
    let page = |i| format!("<h1>Room {i}</h1><p>The archive has {i} rooms. Each has a door.</p>");
    for i in 0..ROWS {
        room.write(&format!("data/documents/{}/{i}.html", i % 3), page(i));
    }
    room.write("data/general.jsonl", rows(&text));
    let alpaca = |i| {
        format!("{{\"instruction\": \"Fee {i}?\", \"input\": \"\", \"output\": \"It is {i}.\"}}\n")
    };
    room.write("data/instructions.jsonl", rows(&alpaca));
    room.write("runs/quickstart-corpus/corpus-text.jsonl", rows(&text));
    room.write("runs/quickstart-corpus/corpus-messages.jsonl", rows(&|_| format!("{ROW}\n")));
}

/// Runs every recipe whose model is a folder, and whose method `takes` says that this make serves, with
/// `words` added to its command.
fn every_recipe_runs(
    model: &Synthetic,
    change: &dyn Fn(&Path),
    takes: &dyn Fn(&Recipe) -> bool,
    words: &str,
) -> usize {
    let recipes = library::all().iter().map(|shipped| load(shipped.name, &[]).unwrap());
    let recipes = recipes.filter(|recipe| !recipe.model.path.to_string().starts_with("builtin:"));
    let mut ran = 0;
    for recipe in recipes.filter(takes) {
        let room = Room::new();
        settle(&room, &recipe, model, change);
        let name = &recipe.name;
        let full = recipe.adapter == AdapterMethod::Full;
        let merge = if full { "" } else { "finish.merge=true" };
        room.done(&format!("train {name} ~model.preset {merge} {words}"));
        let run = room.path(&format!("runs/{name}"));
        let result = if full { "model" } else { "adapter" };
        for file in ["recipe.yaml", "before.json", "after.json", "report.html", result] {
            assert!(run.join(file).exists(), "{name} left no {file}");
        }
        let manifest = fs::read(run.join("manifest.json")).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        assert_eq!(manifest["status"]["state"], "finished", "{name}: {manifest}");
        let base = recipe.model.path.to_string();
        let answers = if full {
            vec![format!("--model runs/{name}/model")]
        } else {
            let adapter = format!("--model {base} --adapter runs/{name}/adapter");
            vec![adapter, format!("--model runs/{name}/merged")]
        };
        for model in answers {
            room.done(&format!("generate {model} --prompt Fee? --max-new-tokens 2"));
        }
        ran += 1;
    }
    ran
}

/// Recipes that go over a dense model: all but those with a model inside the program.
fn all_but_builtin() -> usize {
    let recipes = library::all().iter().map(|shipped| load(shipped.name, &[]).unwrap());
    recipes.filter(|recipe| !recipe.model.path.to_string().starts_with("builtin:")).count()
}

#[test]
fn every_shipped_recipe_runs_to_its_files_over_a_dense_model_with_its_own_head() {
    let ran = every_recipe_runs(&tiny(false, Format::Bf16), &|_| (), &|_| true, "");
    assert_eq!(ran, all_but_builtin());
}

#[test]
fn every_shipped_recipe_runs_to_its_files_over_a_dense_model_with_a_tied_head() {
    let ran = every_recipe_runs(&tiny(true, Format::Bf16), &|_| (), &|_| true, "");
    assert_eq!(ran, all_but_builtin());
}

#[test]
fn every_shipped_recipe_runs_to_its_files_over_models_of_another_make() {
    for tied in [false, true] {
        let ran = every_recipe_runs(&tiny(tied, Format::Bf16), &as_chatml, &|_| true, OWN_TEMPLATE);
        assert_eq!(ran, all_but_builtin());
    }
}

#[test]
fn every_shipped_qlora_runs_to_its_files_over_a_model_stored_in_nf4() {
    let takes = |recipe: &Recipe| recipe.quantization == Quantization::Nf4 { double: true };
    for (tied, chatml) in [(false, false), (true, false), (true, true)] {
        let change = |folder: &Path| {
            if chatml {
                as_chatml(folder);
            }
        };
        let ran = every_recipe_runs(&tiny(tied, Format::Nf4Double), &change, &takes, "");
        let qloras = library::all().iter().filter(|s| takes(&load(s.name, &[]).unwrap())).count();
        // The quickstart is one, over the model inside the program.
        assert_eq!(ran, qloras - 1);
    }
}

#[test]
fn the_quickstart_runs_to_its_files() {
    let room = Room::new();
    room.done("train quickstart training.max_steps=1 evaluation.held_out=[]");
    for file in ["adapter", "merged", "before.json", "after.json", "report.html"] {
        assert!(room.path("runs/quickstart").join(file).exists(), "no {file}");
    }
}
