//! What the resolver refuses, what it makes of a good recipe, and what the data of a plan holds.
#![expect(clippy::disallowed_methods, reason = "tests write their own input files")]

use std::fs;
use std::path::Path;

use graft_adapters::Method;
use graft_model::ProjectionKind;
use tempfile::TempDir;

use super::model_files::ModelFiles;
use super::*;
use crate::toy_method::Factors;

/// A folder with the built-in config and tokenizer, without weights.
fn model_folder(root: &Path, change: impl Fn(String) -> String) -> PathBuf {
    let builtin = ModelFolder::open("builtin:quickstart").unwrap();
    let folder = root.join("model");
    fs::create_dir_all(&folder).unwrap();
    let config = String::from_utf8(builtin.required("config.json").unwrap().to_vec()).unwrap();
    fs::write(folder.join("config.json"), change(config)).unwrap();
    fs::write(folder.join("tokenizer.json"), builtin.required("tokenizer.json").unwrap()).unwrap();
    folder
}

const ROW: &str = r#"{"messages": [{"role": "user", "content": "Fee?"}, {"role": "assistant", "content": " 12 euros. "}]}"#;

/// A recipe in `root` with these lines beside a good minimum.
fn recipe(root: &Path, lines: &str, overrides: &[&str]) -> Recipe {
    let path = root.join("r.yaml");
    fs::write(root.join("a.jsonl"), format!("{ROW}\n{ROW}\n")).unwrap();
    let root = root.display();
    let yaml = format!(
        "model: {{path: builtin:quickstart}}\noutput_dir: {root}/run\ndata:\n  train: [{{path: {root}/a.jsonl, format: messages}}]\n  chat: {{preamble: none}}\n{lines}"
    );
    fs::write(&path, yaml).unwrap();
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    graft_recipes::load(path.to_str().unwrap(), &overrides).unwrap()
}

fn refused(root: &Path, lines: &str, overrides: &[&str]) -> String {
    let error = Plan::resolve(recipe(root, lines, overrides), Device::cpu()).unwrap_err();
    error.to_string().replace(&root.display().to_string(), "ROOT")
}

fn tokens(samples: &graft_data::Samples, at: usize) -> Vec<u32> {
    samples.sample(at).unwrap().tokens
}

fn root() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn a_good_recipe_becomes_a_plan() {
    let root = root();
    let lines = "adapter: {rank: 4, target_modules: [q_proj, v_proj], layers: {last: 2}}\n";
    let Resolved { plan, tokenizer } =
        Plan::resolve(recipe(root.path(), lines, &["quantization=nf4"]), Device::cpu()).unwrap();
    let (AnyMethod::Lora(config), None) = (&plan.method, &plan.init_from) else { panic!("lora") };
    let sites: Vec<_> = config.sites.keys().map(|site| (site.layer, site.kind)).collect();
    let (q, v) = (ProjectionKind::Q, ProjectionKind::V);
    assert_eq!(sites, [(2, q), (2, v), (3, q), (3, v)]);
    // q: 256 → 256, v: 256 → 128.
    assert_eq!(plan.trainable_parameters(), 2 * 4 * (512 + 384));
    assert_eq!(
        (plan.nf4, plan.warnings.len()),
        (Some(graft_kernels::nf4::AbsmaxFormat::Double), 0)
    );
    let data = plan.load_data(tokenizer).unwrap();
    assert_eq!((data.train.len(), data.statistics.rows), (2, 2));
    let schedule = data.schedule(&plan).unwrap();
    assert_eq!(plan.total_steps(&schedule), 3);
    assert!(!plan.output_dir.exists());
}

#[test]
fn every_shipped_quickstart_file_is_found() {
    let Resolved { plan, tokenizer } =
        Plan::resolve(graft_recipes::load("quickstart", &[]).unwrap(), Device::cpu()).unwrap();
    let data = plan.load_data(tokenizer).unwrap();
    let Questions { tokenizer, held_out, prompts } = data.questions.unwrap();
    assert!(!held_out.is_empty() && !prompts.is_empty() && !data.general.is_empty());
    let row = &held_out[0];
    assert!(row.question.ends_with(['?', '.']) && !row.expected.is_empty());
    let shown = tokenizer.decode(&row.prompt, false).unwrap();
    assert!(shown.ends_with("<|start_header_id|>assistant<|end_header_id|>\n\n"), "{shown}");
    assert!(shown.contains(&row.question));
}

#[test]
fn all_problems_are_named_at_once_with_their_places() {
    let root = root();
    let lines = "  validation: [{path: none.jsonl, format: messages}]\nadapter: {layers: [1, 9]}\nevaluation: {held_out: [{path: builtin:quickstart/x, format: text}]}\n";
    insta::assert_snapshot!(refused(root.path(), lines, &["data.max_seq_len=9999"]), @r"
    recipe `r` has 5 problems:
    ROOT/r.yaml:6:23: data.validation.0.path: cannot read `none.jsonl`: No such file or directory (os error 2)
    ROOT/r.yaml:7:19: adapter.layers: found 9, but the model has 4 blocks, 0 to 3
    ROOT/r.yaml:8:32: evaluation.held_out.0.path: `builtin:quickstart/x` is not in this program; built in: builtin:quickstart/train, builtin:quickstart/held-out, builtin:quickstart/general
    ROOT/r.yaml:8:62: evaluation.held_out.0.format: found text, which has no questions; allowed: messages, sharegpt, alpaca, completion
    command line: data.max_seq_len=9999: data.max_seq_len: found 9999, but the model's longest sequence is 4096
    ");
}

#[test]
fn a_quantised_folder_must_be_asked_for_as_it_is() {
    let root = root();
    let folder = model_folder(root.path(), |config| {
        config.replacen(
            '{',
            r#"{"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": true},"#,
            1,
        )
    });
    let path = format!("model.path={}", folder.display());
    let random = "model.init=random";
    insta::assert_snapshot!(refused(root.path(), "", &[&path, random]), @r"
    recipe `r` has a problem:
    quantization: found none, but the model folder holds NF4 weights (double: true)
      help: write `quantization: {format: nf4, double: true}`, or take the release's bf16 folder
    ");
    let original =
        ["quantization={format: nf4, double: true}", "finish={merge: true, onto: original}"];
    let said = refused(root.path(), "", &[&[&*path, random], &original[..]].concat());
    insta::assert_snapshot!(said, @"
    recipe `r` has a problem:
    command line: finish={merge: true, onto: original}: finish.onto: found `original`, but the weights of `ROOT/model` are stored in NF4, so that their original values are not there: take `dequantised`, or the unquantised release
    ");
    insta::assert_snapshot!(refused(root.path(), "", &[&path, random, "quantization={format: nf4, double: false}"]), @r"
    recipe `r` has a problem:
    command line: quantization={format: nf4, double: false}: quantization.double: found false, but the model folder was quantised with true
    ");
    insta::assert_snapshot!(refused(root.path(), "", &[&path, random, "adapter={method: full}"]), @r"
    recipe `r` has a problem:
    command line: adapter={method: full}: adapter.method: found full, but the model folder holds NF4 weights, which cannot be trained
      help: take the release's bf16 folder, or train adapters with `adapter.method: lora`
    ");
}

#[test]
fn vocabularies_that_disagree_are_refused_with_both_numbers() {
    let root = root();
    let narrow = |config: String| config.replace(r#""vocab_size": 2048"#, r#""vocab_size": 1802"#);
    let folder = model_folder(root.path(), narrow);
    let path = format!("model.path={}", folder.display());
    insta::assert_snapshot!(refused(root.path(), "", &[&path, "model.init=random"]), @r"
    recipe `r` has a problem:
    command line: model.path=ROOT/model: model.path: the tokenizer `ROOT/model/tokenizer.json` has ids up to 2047, but the model's vocab_size is 1802: they are not of one model
    ");
    let other = |config: String| config.replace(r#""bos_token_id": 1792"#, r#""bos_token_id": 1"#);
    model_folder(root.path(), other);
    insta::assert_snapshot!(refused(root.path(), "", &[&path, "model.init=random"]), @r"
    recipe `r` has a problem:
    command line: model.path=ROOT/model: model.path: the tokenizer `ROOT/model/tokenizer.json` begins texts with id 1792 (`<|begin_of_text|>`), but the model's bos_token_id is 1: they are not of one model
    ");
    fs::remove_file(folder.join("tokenizer.json")).unwrap();
    insta::assert_snapshot!(refused(root.path(), "", &[&path, "model.init=random"]), @r"
    recipe `r` has a problem:
    command line: model.path=ROOT/model: model.path: `tokenizer.json` is not in the model folder `ROOT/model`. Graft downloads nothing: copy the file there from where the model comes from
    ");
}

/// A tokenizer.model of 1,792 ranks: the single bytes, then pairs of them.
fn meta_tokenizer() -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |bits: usize| char::from(DIGITS[bits & 63]);
    let line = |rank: usize| match rank.checked_sub(256) {
        None => format!("{}{}== {rank}\n", digit(rank >> 2), digit(rank << 4)),
        Some(pair) => {
            format!("{}{}{}= {rank}\n", digit(pair >> 10), digit(pair >> 4), digit(pair << 2))
        }
    };
    (0..1_792).map(line).collect()
}

#[test]
fn metas_tokenizer_is_read_where_there_is_no_other() {
    let root = root();
    let folder = model_folder(root.path(), |config| config);
    let open = || ModelFiles::open(folder.to_str().unwrap());
    fs::write(folder.join("tokenizer.model"), "no tokenizer").unwrap();
    assert!(open().unwrap().tokenizer.origin().ends_with("tokenizer.json"));

    fs::remove_file(folder.join("tokenizer.json")).unwrap();
    let error = open().unwrap_err().to_string().replace(&root.path().display().to_string(), "ROOT");
    insta::assert_snapshot!(error, @"ROOT/model/tokenizer.model:1: \"no\" is not base64; a Llama 3 tokenizer.model is needed");

    fs::write(folder.join("tokenizer.model"), meta_tokenizer()).unwrap();
    let tokenizer = open().unwrap().tokenizer;
    assert_eq!((tokenizer.bos(), tokenizer.vocab_size()), (Some(1_792), 2_048));
    assert!(tokenizer.origin().ends_with("tokenizer.model"));
}

#[test]
fn a_folders_own_chat_template_is_used_unless_the_preamble_is_left_out() {
    let root = root();
    let folder = model_folder(root.path(), |config| config);
    let template = "{% for m in messages %}<|start_header_id|>{{ m.role }}|{% generation %}{{ m.content }}\
                    <|eot_id|>{% endgeneration %}{% endfor %}{{ strftime_now('%Y') }}";
    let config = serde_json::json!({"chat_template": template}).to_string();
    fs::write(folder.join("tokenizer_config.json"), config).unwrap();
    let path = format!("model.path={}", folder.display());
    let text = |overrides: &[&str]| {
        let overrides: Vec<&str> = [&path[..]].iter().chain(overrides).copied().collect();
        let TrainingData { tokenizer, dataset, .. } =
            TrainingData::load(&recipe(root.path(), "", &overrides), false).unwrap();
        tokenizer.decode(&dataset.samples.sample(0).unwrap().tokens, false).unwrap()
    };
    let official = ["data.chat.preamble=official", "data.chat.date=01 Feb 2030"];
    assert_eq!(
        text(&official),
        "<|start_header_id|>user|Fee?<|eot_id|><|start_header_id|>assistant| 12 euros. <|eot_id|>2030"
    );
    assert!(
        text(&[]).starts_with("<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nFee?")
    );

    fs::write(folder.join("chat_template.jinja"), "{{ raise_exception('no such turn') }}").unwrap();
    let recipe = recipe(root.path(), "", &[&path, "data.chat.preamble=official"]);
    let error = TrainingData::load(&recipe, true).unwrap_err().to_string();
    let error = error.replace(&root.path().display().to_string(), "ROOT");
    assert!(error.contains("ROOT/a.jsonl:1: ROOT/model/chat_template.jinja, line 1 of the chat template: the template says: no such turn"), "{error}");
}

#[test]
fn a_folder_of_another_release_or_without_weights_is_refused() {
    let root = root();
    let folder = model_folder(root.path(), |config| config);
    let path = format!("model.path={}", folder.display());
    insta::assert_snapshot!(refused(root.path(), "", &[&path]), @r"
    recipe `r` has a problem:
    command line: model.path=ROOT/model: model.path: `model.safetensors` or `model.safetensors.index.json` is not in the model folder `ROOT/model`. Graft downloads nothing: copy the file there from where the model comes from
    ");
    let shown = refused(root.path(), "", &["model.preset=llama3.2-1b"]);
    assert!(
        shown.contains(
            "model.preset: the folder is no llama3.2-1b:\n  `hidden_size` is 256, but must be 2048\n"
        ),
        "{shown}"
    );
}

#[test]
fn an_output_folder_with_another_run_is_refused_unless_it_goes_on() {
    let root = root();
    let run = root.path().join("run");
    fs::create_dir(&run).unwrap();
    fs::write(run.join("metrics.jsonl"), "").unwrap();
    insta::assert_snapshot!(refused(root.path(), "", &[]), @r"
    recipe `r` has a problem:
    ROOT/r.yaml:2:13: output_dir: `ROOT/run` already holds a run: `metrics.jsonl`, but no readable `manifest.json`
      to keep it and train anew: choose another folder, `output_dir=ROOT/run-2`
    ");
    let error =
        Plan::resolve_for(recipe(root.path(), "", &[]), Start::Resume, Device::cpu()).unwrap_err();
    assert!(error.to_string().contains("but not its `manifest.json`"), "{error}");
    fs::write(run.join("manifest.json"), "").unwrap();
    fs::write(run.join("recipe.yaml"), "").unwrap();
    let error =
        Plan::resolve_for(recipe(root.path(), "", &[]), Start::Resume, Device::cpu()).unwrap_err();
    assert!(error.to_string().contains("manifest.json` cannot be used"), "{error}");
}

#[test]
fn a_run_s_folder_and_its_base_s_are_apart() {
    let root = root();
    let model = model_folder(root.path(), |text| text);
    std::os::unix::fs::symlink(&model, root.path().join("link")).unwrap();
    for (output, expected) in [
        ("model", "is or lies in the base's folder"),
        ("model/run", "is or lies in the base's folder"),
        ("link/run/../x", "is or lies in the base's folder"),
        ("", "the base's folder"),
    ] {
        let output = format!("output_dir={}/{output}", root.path().display());
        let base = format!("model.path={}", model.display());
        let said = refused(root.path(), "", &[&base, &output, "model.init=random"]);
        assert!(said.contains(expected), "{output}: {said}");
    }
}

#[test]
fn too_wide_adapters_and_leaks_are_warned_of() {
    let root = root();
    let same = format!(
        "evaluation.held_out=[{{path: {}/a.jsonl, format: messages}}]",
        root.path().display()
    );
    let recipe = recipe(root.path(), "", &["adapter={rank: 200, target_modules: [k_proj]}", &same]);
    let warnings = Plan::resolve(recipe, Device::cpu()).unwrap().plan.warnings.join("\n");
    insta::assert_snapshot!(warnings.replace(&root.path().display().to_string(), "ROOT"), @r"
    a rank of 200 is more than k_proj can use: its smaller side is 128
    `ROOT/a.jsonl` is both trained on and measured: scores will flatter
    ");
}

#[test]
fn data_problems_of_all_sections_are_named_at_once() {
    let root = root();
    fs::write(root.path().join("bad.jsonl"), "{\"messages\"\n").unwrap();
    let lines = format!(
        "  validation: {{fraction: 0.5}}\nevaluation:\n  held_out: [{{path: {}/bad.jsonl, format: messages}}]\n",
        root.path().display()
    );
    let Resolved { plan, tokenizer } =
        Plan::resolve(recipe(root.path(), &lines, &["data.max_seq_len=8"]), Device::cpu()).unwrap();
    let shown = plan.load_data(tokenizer).unwrap_err().to_string();
    insta::assert_snapshot!(shown.replace(&root.path().display().to_string(), "ROOT"), @r"
    recipe `r` has 2 problems:
    ROOT/r.yaml:4:10: data.train: ROOT/a.jsonl:1: the row has 26 tokens, but max_seq_len is 8; 2 of 2 rows are too long, the longest has 26 (ROOT/a.jsonl:1)
           tokens      rows
             1–64         2 ██████████████████████████████
    raise `max_seq_len`, or choose what happens to them: `overlong: drop`, `truncate_left`, `truncate_right` or `split`
    ROOT/r.yaml:8:13: evaluation.held_out: ROOT/bad.jsonl:1: malformed JSON at column 11: EOF while parsing an object
    ");
}

#[test]
fn a_fraction_is_kept_out_of_training() {
    let root = root();
    let Resolved { plan, tokenizer } =
        Plan::resolve(recipe(root.path(), "  validation: {fraction: 0.5}\n", &[]), Device::cpu())
            .unwrap();
    // The recipe's rows are equal, and equal rows stand on one side.
    let rows = format!("{ROW}\n{}\n{ROW}\n", ROW.replace("Fee?", "Fees?"));
    fs::write(root.path().join("a.jsonl"), rows).unwrap();
    let data = plan.load_data(tokenizer).unwrap();
    // Half of three rows is two: the copies.
    assert_eq!((data.train.len(), data.validation.len(), data.statistics.rows), (1, 2, 3));
    assert_eq!(tokens(&data.validation, 0), tokens(&data.validation, 1));
    assert_ne!(tokens(&data.train, 0), tokens(&data.validation, 0));
}

#[test]
fn rows_that_are_trained_on_and_measured_are_warned_of_wherever_they_stand() {
    let root = root();
    let at = |name: &str| root.path().join(name);
    // Three spellings of the file that is trained on.
    fs::create_dir(at("sub")).unwrap();
    std::os::unix::fs::symlink(at("a.jsonl"), at("link.jsonl")).unwrap();
    // Its row in another file and another format, among others.
    let other = |question: &str| {
        format!("{{\"instruction\": \"{question}\", \"output\": \" 12 euros. \"}}\n")
    };
    fs::write(at("other.jsonl"), other("Fees?") + &other("Fee?")).unwrap();
    let folder = root.path().display();
    let lines = format!(
        "  validation: [{{path: {folder}/sub/../a.jsonl, format: messages}}]\nevaluation:\n  held_out: [{{path: {folder}/other.jsonl, format: alpaca}}, {{path: {folder}/link.jsonl, format: messages}}]\n"
    );
    let Resolved { plan, tokenizer } =
        Plan::resolve(recipe(root.path(), &lines, &[]), Device::cpu()).unwrap();
    let data = plan.load_data(tokenizer).unwrap();
    let warnings = [&plan.warnings[..], &data.warnings].concat().join("\n");
    insta::assert_snapshot!(warnings.replace(&folder.to_string(), "ROOT"), @r"
    `ROOT/sub/../a.jsonl` is both trained on and measured: scores will flatter
    `ROOT/link.jsonl` is both trained on and measured: scores will flatter
    evaluation.held_out: of the 2 rows of `ROOT/other.jsonl`, 1 are trained on, too (ROOT/other.jsonl:2 says what ROOT/a.jsonl:1 says): scores will flatter
    ");
    assert_eq!(data.files.len(), 4);
}

#[test]
fn a_folder_that_holds_a_model_is_no_place_for_a_run() {
    let root = root();
    let folder = model_folder(root.path(), |config| config);
    let output = format!("output_dir={}", folder.display());
    let error = Plan::resolve_for(recipe(root.path(), "", &[&output]), Start::Anew, Device::cpu());
    let error = error.unwrap_err().to_string().replace(&root.path().display().to_string(), "ROOT");
    insta::assert_snapshot!(error, @"
    recipe `r` has a problem:
    command line: output_dir=ROOT/model: output_dir: found `ROOT/model`, which holds the `config.json` of a model: choose a folder of its own for the run
    ");
}

#[test]
fn answers_that_no_end_token_closes_are_warned_of() {
    let root = root();
    let model = model_folder(root.path(), |config| config);
    let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";
    fs::write(model.join("chat_template.jinja"), template).unwrap();
    let weights = ModelFolder::open("builtin:quickstart").unwrap();
    let weights = weights.required("model.safetensors").unwrap();
    fs::write(model.join("model.safetensors"), weights).unwrap();
    let path = format!("model.path={}", model.display());
    let overrides = [path.as_str(), "~data.chat.preamble"];
    let Resolved { plan, tokenizer } =
        Plan::resolve(recipe(root.path(), "", &overrides), Device::cpu()).unwrap();
    let warnings = plan.load_data(tokenizer).unwrap().warnings.join("\n");
    insta::assert_snapshot!(warnings, @"data.train: in 2 of 2 rows an answer is learnt without a token that ends it (<|end_of_text|>, <|eom_id|>, <|eot_id|>): the model would not learn to stop; look at one with `graft data`, and at what the chat template writes behind an answer");
}

#[test]
fn what_is_hashed_is_what_became_the_samples() {
    let root = root();
    let Resolved { plan, tokenizer } =
        Plan::resolve(recipe(root.path(), "", &[]), Device::cpu()).unwrap();
    let path = root.path().join("a.jsonl");
    let text = fs::read(&path).unwrap();
    let data = plan.load_data(tokenizer).unwrap();
    // Whatever the file holds later.
    fs::write(&path, "other").unwrap();
    let hash = &data.files["data.train[0]"].hash;
    let sha256 = graft_files::sha256::sha256_hex(&text);
    assert_eq!((hash.bytes, &hash.sha256), (text.len() as u64, &sha256));
}

#[test]
fn a_merge_of_what_cannot_be_merged_is_refused_by_name_and_of_everything_else_is_not() {
    let root = root();
    let check = |overrides: &[&str], method: &dyn Method| {
        let recipe = recipe(root.path(), "", overrides);
        let mut findings = Findings::new(&recipe);
        method::check_merge(&recipe, method, &mut findings);
        findings.finish().map_err(|problems| problems.to_string())
    };
    let merge = ["finish.merge=true"];
    let toy = Factors { tells: true };
    insta::assert_snapshot!(check(&merge, &toy).unwrap_err(), @"
    recipe `r` has a problem:
    command line: finish.merge=true: finish.merge: found true and adapter.method = factors; allowed: false, as what `factors` learns cannot be added to the base's weights
      help: drop `finish.merge`
    ");
    assert_eq!(check(&[], &toy), Ok(Vec::new()));
    let resolved = Plan::resolve(recipe(root.path(), "", &merge), Device::cpu()).unwrap();
    assert_eq!(check(&merge, &*resolved.plan.method), Ok(Vec::new()));
}

#[test]
fn rows_are_told_left_out_masked_or_refused_as_hygiene_has_it() {
    let root = root();
    let rows = [ROW.to_owned(), ROW.to_owned(), ROW.replace("12 euros", "Ask anna@example.org")];
    let load = |overrides: &[&str]| {
        let overrides = [overrides, &["data.max_seq_len=256"]].concat();
        let Resolved { plan, tokenizer } =
            Plan::resolve(recipe(root.path(), "", &overrides), Device::cpu()).unwrap();
        // In the place of the recipe's own.
        fs::write(root.path().join("a.jsonl"), rows.join("\n")).unwrap();
        plan.load_data(tokenizer).map_err(|problems| problems.to_string())
    };
    let shown = |text: String| text.replace(&root.path().display().to_string(), "ROOT");
    let as_it_is = load(&[]).unwrap();
    let samples = |data: &super::LoadedData| -> Vec<graft_data::Sample> {
        data.train.iter().map(Result::unwrap).collect()
    };
    assert_eq!(
        (as_it_is.train.len(), as_it_is.hygiene.len(), &as_it_is.cleaned_sha256),
        (3, 0, &None)
    );
    let told = load(&["data.hygiene={duplicates: report, personal: {mail: report}}"]).unwrap();
    assert_eq!((samples(&told) == samples(&as_it_is), &told.cleaned_sha256), (true, &None));
    insta::assert_snapshot!(shown(told.warnings.join("\n")), @r"
    data.hygiene.duplicates: 1 row equal to an earlier one (the first: ROOT/a.jsonl:2 and ROOT/a.jsonl:1)
    data.hygiene.personal.mail: mail addresses: 1 in 1 row (the first: ROOT/a.jsonl:3, <MAIL_a0628bde>)
    ");
    let cleaned = load(&["data.hygiene={duplicates: drop, personal: {mail: mask}}"]).unwrap();
    assert_eq!(cleaned.train.len(), 2);
    assert_ne!(samples(&cleaned)[1].tokens, samples(&as_it_is)[2].tokens);
    insta::assert_snapshot!(cleaned.counts["data.train"], @r"3 rows, 2 samples; masked: mail addresses: 1; rows dropped: equal to an earlier one: 1");
    insta::assert_snapshot!(shown(format!("{:#?}", cleaned.hygiene)), @r#"
    {
        "data.hygiene.duplicates": "drop: 1 row equal to an earlier one (the first: ROOT/a.jsonl:2 and ROOT/a.jsonl:1)",
        "data.hygiene.personal.mail": "mask: mail addresses: 1 in 1 row (the first: ROOT/a.jsonl:3, <MAIL_a0628bde>)",
    }
    "#);
    let refused = load(&["data.hygiene={duplicates: error, personal: {mail: error}}"]).unwrap_err();
    insta::assert_snapshot!(shown(refused), @r"
    recipe `r` has 2 problems:
    command line: data.hygiene={duplicates: error, personal: {mail: error}}: data.hygiene.duplicates: 1 row equal to an earlier one (the first: ROOT/a.jsonl:2 and ROOT/a.jsonl:1)
      help: mend the files, or have the rows left out: `drop` in place of `error`
    command line: data.hygiene={duplicates: error, personal: {mail: error}}: data.hygiene.personal.mail: mail addresses: 1 in 1 row (the first: ROOT/a.jsonl:3, <MAIL_a0628bde>)
      help: mend the files, or say `mask` or `drop` in place of `error`
    ");
}

#[test]
fn chunks_of_one_document_stand_on_one_side() {
    let root = root();
    let chunk = |at: usize| {
        let document = format!("{:016x}{:048x}", 7 + at / 4, 0);
        let row = ROW.replace("Fee?", &format!("Fee {at}?"));
        row.replacen('{', &format!("{{\"_source\": {{\"sha256\": \"{document}\"}}, "), 1)
    };
    let rows: Vec<String> = (0..24).map(chunk).collect();
    let lines = "  validation: {fraction: 0.3}\n";
    for seed in 1..6 {
        let seed = format!("training.seed={seed}");
        let Resolved { plan, tokenizer } =
            Plan::resolve(recipe(root.path(), lines, &[&seed]), Device::cpu()).unwrap();
        // In the place of the recipe's own.
        fs::write(root.path().join("a.jsonl"), rows.join("\n")).unwrap();
        let data = plan.load_data(tokenizer).unwrap();
        let documents = |samples: &graft_data::Samples| -> std::collections::BTreeSet<usize> {
            samples.iter().map(|sample| (sample.unwrap().origin.line - 1) / 4).collect()
        };
        assert!(documents(&data.train).is_disjoint(&documents(&data.validation)));
        assert_eq!(data.train.len() + data.validation.len(), 24);
    }
}
