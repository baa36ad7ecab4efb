//! What was trained on what: settings, versions, hashes, and the recipe in full.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::html::{bytes, escape};
use crate::run_folder::contract::Change;
use crate::run_folder::manifest::{FileHash, Inputs, Manifest, Recorded};

/// The last section of a report.
pub(super) fn section(manifest: &Manifest, recipe: &str, page: &mut String) {
    page.push_str("<h2>What was trained on what</h2>\n<table><tbody>");
    for (name, value) in settings(manifest) {
        let _ = write!(page, "<tr><th>{}</th><td>{}</td></tr>", escape(&name), escape(&value));
    }
    page.push_str("</tbody></table>\n");
    history(manifest, page);
    let inputs = &manifest.inputs;
    files("Base files", named(&inputs.base), page);
    files("Tokenizer and chat template", named(&inputs.tokenizer), page);
    files("Adapter that it started from", named(&inputs.init_from), page);
    let data = inputs.data.iter().map(|(key, file)| (format!("{} ({key})", file.path), &file.hash));
    files("Data files", data, page);
    rows(inputs, page);
    hygiene(inputs, page);
    let made = manifest.made.values().flat_map(|made| named(&made.files));
    files("Files that it made", made, page);
    let hash = escape(&inputs.recipe_sha256);
    let _ = write!(
        page,
        "<h2>Recipe</h2>\n<pre>{}</pre>\n<p class=\"lead\">SHA-256 {hash}</p>\n",
        escape(recipe)
    );
}

/// What became of the rows, where not all were used whole.
fn rows(inputs: &Inputs, page: &mut String) {
    let used = inputs.rows.iter().filter(|(_, counts)| !counts.are_plain());
    let rows: Vec<_> = used.collect();
    if rows.is_empty() {
        return;
    }
    page.push_str("<h2>Rows that were not used whole</h2>\n<table><tbody>");
    for (key, counts) in rows {
        let counts = escape(&counts.to_string());
        let _ = write!(page, "<tr><th>{}</th><td>{counts}</td></tr>", escape(key));
    }
    page.push_str("</tbody></table>\n");
}

/// What was looked for in the rows, and found.
fn hygiene(inputs: &Inputs, page: &mut String) {
    if inputs.hygiene.is_empty() {
        return;
    }
    page.push_str("<h2>What was looked for in the rows</h2>\n<table><tbody>");
    for (key, found) in &inputs.hygiene {
        let (key, found) = (escape(key), escape(found));
        let _ = write!(page, "<tr><th>{key}</th><td>{found}</td></tr>");
    }
    page.push_str("</tbody></table>\n");
}

fn settings(manifest: &Manifest) -> Vec<(String, String)> {
    let inputs = &manifest.inputs;
    let resumed: Vec<String> = manifest.resumed_after.iter().map(u64::to_string).collect();
    let mut settings = vec![
        ("Begun".to_owned(), manifest.started.clone()),
        ("Ended".to_owned(), manifest.ended.clone().unwrap_or("—".to_owned())),
        ("Device".to_owned(), device(inputs)),
        ("Seed".to_owned(), inputs.seed.to_string()),
    ];
    if !resumed.is_empty() {
        settings.push(("Resumed after step".to_owned(), resumed.join(", ")));
    }
    let versions = inputs.versions.iter().map(|(name, version)| format!("{name} {version}"));
    settings.push(("Versions".to_owned(), versions.collect::<Vec<_>>().join(", ")));
    if let Some(sha256) = &manifest.trained_sha256 {
        settings.push(("Trained values".to_owned(), format!("SHA-256 {sha256}")));
    }
    settings
}

fn device(inputs: &Inputs) -> String {
    let kernels = inputs.kernels.as_ref().map_or_else(String::new, |name| format!(" ({name})"));
    format!("{}{kernels}, {} threads", inputs.device, inputs.threads)
}

/// What was changed on the way because it was asked for, and damage that was found.
fn history(manifest: &Manifest, page: &mut String) {
    let changes = manifest.changes.iter().map(|Recorded { after_step, what }| {
        let Change { what, from, to } = what;
        (after_step, what, format!("{from} before, {to} since"))
    });
    let mended = manifest
        .mended
        .iter()
        .map(|Recorded { after_step, what }| (after_step, &what.file, what.found.clone()));
    for (title, rows) in [
        ("Changed on the way", changes.collect::<Vec<_>>()),
        ("Damage found in the run's folder", mended.collect()),
    ] {
        if rows.is_empty() {
            continue;
        }
        let _ = write!(page, "<h2>{title}</h2>\n<table><tbody>");
        for (step, what, text) in rows {
            let (what, text) = (escape(what), escape(&text));
            let _ = write!(page, "<tr><th>After step {step}: {what}</th><td>{text}</td></tr>");
        }
        page.push_str("</tbody></table>\n");
    }
}

fn named(files: &BTreeMap<String, FileHash>) -> impl Iterator<Item = (String, &FileHash)> {
    files.iter().map(|(name, hash)| (name.clone(), hash))
}

fn files<'a>(title: &str, files: impl Iterator<Item = (String, &'a FileHash)>, page: &mut String) {
    let mut files = files.peekable();
    if files.peek().is_none() {
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
            escape(&name),
            bytes(*size),
            escape(sha256)
        );
    }
    page.push_str("</tbody></table>\n");
}
