//! What was trained on what: settings, versions, hashes, and the recipe in full.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::html::{bytes, escape};
use crate::run_folder::manifest::{FileHash, Manifest};

/// The last section of a report.
pub(super) fn section(manifest: &Manifest, recipe: &str, page: &mut String) {
    page.push_str("<h2>What was trained on what</h2>\n<table><tbody>");
    for (name, value) in settings(manifest) {
        let _ = write!(page, "<tr><th>{}</th><td>{}</td></tr>", escape(&name), escape(&value));
    }
    page.push_str("</tbody></table>\n");
    files("Base files", &manifest.inputs.base, page);
    files("Data files", &manifest.inputs.data, page);
    let hash = escape(&manifest.inputs.recipe_sha256);
    let _ = write!(
        page,
        "<h2>Recipe</h2>\n<pre>{}</pre>\n<p class=\"lead\">SHA-256 {hash}</p>\n",
        escape(recipe)
    );
}

fn settings(manifest: &Manifest) -> Vec<(String, String)> {
    let inputs = &manifest.inputs;
    let resumed: Vec<String> = manifest.resumed_after.iter().map(u64::to_string).collect();
    let mut settings = vec![
        ("Begun".to_owned(), manifest.started.clone()),
        ("Ended".to_owned(), manifest.ended.clone().unwrap_or("—".to_owned())),
        ("Device".to_owned(), format!("{}, {} threads", inputs.device, inputs.threads)),
        ("Seed".to_owned(), inputs.seed.to_string()),
    ];
    if !resumed.is_empty() {
        settings.push(("Resumed after step".to_owned(), resumed.join(", ")));
    }
    let versions = inputs.versions.iter().map(|(name, version)| format!("{name} {version}"));
    settings.push(("Versions".to_owned(), versions.collect::<Vec<_>>().join(", ")));
    settings.push(("Trained tensors".to_owned(), format!("SHA-256 {}", inputs.trainable_sha256)));
    settings
}

fn files(title: &str, files: &BTreeMap<String, FileHash>, page: &mut String) {
    if files.is_empty() {
        return;
    }
    let _ = write!(
        page,
        "<h2>{title}</h2>\n<table><thead><tr><th>File</th><th class=\"n\">Size</th><th>SHA-256</th></tr></thead><tbody>"
    );
    for (name, FileHash { bytes: size, sha256, sampled }) in files {
        let of = if *sampled { " (of samples)" } else { "" };
        let _ = write!(
            page,
            "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"code\">{}{of}</td></tr>",
            escape(name),
            bytes(*size),
            escape(sha256)
        );
    }
    page.push_str("</tbody></table>\n");
}
