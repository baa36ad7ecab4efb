//! The releases of Llama 3.x by the names they are fetched by: what a missing folder should hold.

use std::path::Path;

use crate::config::LlamaConfig;
use crate::presets;

/// A release.
#[derive(Debug, Clone, Copy)]
pub struct Release {
    /// Its name on the hub of Hugging Face.
    pub id: &'static str,
    /// Its config.json.
    pub config: fn() -> LlamaConfig,
    /// Files that its weights are in.
    pub shards: usize,
}

const fn release(id: &'static str, config: fn() -> LlamaConfig, shards: usize) -> Release {
    Release { id, config, shards }
}

/// Tuned releases first: the first of a shape stands for it.
const RELEASES: &[Release] = &[
    release("meta-llama/Llama-3.1-8B-Instruct", presets::llama3_1_8b, 4),
    release("meta-llama/Llama-3.1-8B", presets::llama3_1_8b, 4),
    release("meta-llama/Llama-3.1-70B-Instruct", presets::llama3_1_70b, 30),
    release("meta-llama/Llama-3.1-70B", presets::llama3_1_70b, 30),
    release("meta-llama/Llama-3.1-405B-Instruct", presets::llama3_1_405b, 191),
    release("meta-llama/Llama-3.1-405B", presets::llama3_1_405b, 191),
    release("meta-llama/Llama-3.2-1B-Instruct", presets::llama3_2_1b, 1),
    release("meta-llama/Llama-3.2-1B", presets::llama3_2_1b, 1),
    release("meta-llama/Llama-3.2-3B-Instruct", presets::llama3_2_3b, 2),
    release("meta-llama/Llama-3.2-3B", presets::llama3_2_3b, 2),
    release("meta-llama/Llama-3.3-70B-Instruct", presets::llama3_3_70b, 30),
];

/// The release that a folder is called after, whatever stands before its name.
pub fn of_folder(path: &Path) -> Option<&'static Release> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let name = name.strip_prefix("meta-").unwrap_or(&name);
    RELEASES.iter().find(|release| release.name().eq_ignore_ascii_case(name))
}

/// The release that a recipe calls `preset`: `llama3.1-8b`.
pub fn of_preset(preset: &str) -> Option<&'static Release> {
    RELEASES.iter().find(|release| {
        let name = release.name().to_ascii_lowercase().replacen("llama-", "llama", 1);
        name.trim_end_matches("-instruct") == preset
    })
}

impl Release {
    /// Its name without the owner's.
    pub fn name(&self) -> &'static str {
        self.id.rsplit('/').next().unwrap_or(self.id)
    }

    /// The files that a run reads, by name.
    pub fn files(&self) -> Vec<String> {
        let beside =
            ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"];
        let mut files: Vec<String> = beside.map(str::to_owned).to_vec();
        if self.shards == 1 {
            files.push(crate::checkpoint::SINGLE_FILE.to_owned());
        } else {
            files.push(crate::checkpoint::INDEX_FILE.to_owned());
            let shard = |number| format!("model-{number:05}-of-{:05}.safetensors", self.shards);
            files.extend((1..=self.shards).map(shard));
        }
        files
    }
}

/// What puts a model into `folder`, as a sentence that can go on.
pub(crate) fn way_to_get(release: Option<&Release>, folder: &Path) -> String {
    if folder.ends_with("model/builtin/quickstart") {
        return "It is part of Graft's sources: run in their folder".to_owned();
    }
    format!(
        "Graft downloads nothing: fetch the model yourself, for example with `{}`, and copy it there",
        fetch(release, folder)
    )
}

/// The command that fetches a model into `folder`: the release, or what the folder's name says.
pub fn fetch(release: Option<&Release>, folder: &Path) -> String {
    let to = folder.display();
    if let Some(release) = release.or_else(|| of_folder(folder)) {
        // The weights lie there twice: once more in a layout of Meta's own.
        return format!("hf download {} --exclude \"original/*\" --local-dir {to}", release.id);
    }
    let names: Vec<_> = folder.iter().map(|name| name.to_string_lossy()).collect();
    let owner = match names.as_slice() {
        [owner, _] if folder.is_relative() && owner != "models" && owner != "." => owner.as_ref(),
        _ => "OWNER",
    };
    let name = names.last().map_or("NAME", |name| name.as_ref());
    format!("hf download {owner}/{name} --local-dir {to}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_presets_lead_to_their_release() {
        let id = |path: &str| of_folder(Path::new(path)).map(|release| release.id);
        assert_eq!(id("models/Llama-3.1-8B"), Some("meta-llama/Llama-3.1-8B"));
        assert_eq!(id("/x/Meta-Llama-3.1-8B-Instruct/"), Some("meta-llama/Llama-3.1-8B-Instruct"));
        assert_eq!(id("models/mine"), None);
        let shapes: Vec<_> = presets::PRESETS
            .iter()
            .map(|(name, preset)| {
                let preset_name =
                    name.to_ascii_lowercase().replacen("llama ", "llama", 1).replace(' ', "-");
                let release = of_preset(&preset_name).unwrap();
                assert_eq!((release.config)(), preset());
                release.name()
            })
            .collect();
        assert_eq!(shapes.len(), presets::PRESETS.len());
        assert!(shapes.iter().all(|name| name.ends_with("-Instruct")), "{shapes:?}");
    }

    #[test]
    fn a_fetch_names_the_model_that_is_missing() {
        let shown = ["models/Llama-3.2-3B", "mistral/7b", "models/none", "/data/none"]
            .map(|path| fetch(None, Path::new(path)));
        insta::assert_snapshot!(shown.join("\n"), @r#"
        hf download meta-llama/Llama-3.2-3B --exclude "original/*" --local-dir models/Llama-3.2-3B
        hf download mistral/7b --local-dir mistral/7b
        hf download OWNER/none --local-dir models/none
        hf download OWNER/none --local-dir /data/none
        "#);
        insta::assert_snapshot!(way_to_get(None, Path::new("model/builtin/quickstart")), @"It is part of Graft's sources: run in their folder");
        let files = of_preset("llama3.2-3b").unwrap().files().join("\n");
        insta::assert_snapshot!(files, @r"
        config.json
        generation_config.json
        tokenizer.json
        tokenizer_config.json
        model.safetensors.index.json
        model-00001-of-00002.safetensors
        model-00002-of-00002.safetensors
        ");
        assert!(
            of_preset("llama3.2-1b").unwrap().files().contains(&"model.safetensors".to_owned())
        );
    }
}
