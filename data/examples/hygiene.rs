//! Draws rows and looks through them, to measure: `hygiene draw MEGABYTES FILE`, `hygiene survey FILE…`, and
//! `hygiene score`, precision and recall by kind on drawn texts.

#[path = "../tests/labelled/mod.rs"]
mod labelled;

use std::error::Error;
use std::io::Write;
use std::time::Instant;

use graft_data::hygiene::personal::{MaskKey, Personal};
use graft_data::hygiene::{Hygiene, Section, survey};
use graft_data::{Format, SourceFile};
use labelled::{Draw, KINDS, family, labelled};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut out = std::io::stdout().lock();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["draw", megabytes, file] => draw(megabytes.parse()?, file),
        ["survey", files @ ..] => look(files, &mut out),
        ["score"] => score(&mut out),
        _ => Err("draw MEGABYTES FILE, survey FILE…, or score".into()),
    }
}

/// Conversations of 60 to 800 words: a tenth nearly equal to the one before, a twentieth with personal data.
fn draw(megabytes: usize, file: &str) -> Result<(), Box<dyn Error>> {
    let mut draw = Draw::new(11);
    let (mut written, mut kind) = (0, 0);
    graft_files::atomic::create_file::<std::io::Error>(std::path::Path::new(file), |out| {
        while written < megabytes * 1_000_000 {
            let texts = family(&mut draw).texts;
            let copies = if draw.below(10) == 0 { 2 } else { 1 };
            let question = draw.words(20).join(" ");
            for text in texts.iter().take(copies) {
                let mut answer = text.to_lowercase();
                answer.push_str(&draw.words(100 * (2 - copies)).join(" "));
                if draw.below(20) == 0 {
                    kind += 1;
                    answer.push_str(&labelled(KINDS[kind % KINDS.len()], &mut draw).text);
                }
                let row = serde_json::json!({"messages": [
                    {"role": "user", "content": question}, {"role": "assistant", "content": answer},
                ]});
                let row = row.to_string();
                written += row.len() + 1;
                writeln!(out, "{row}")?;
            }
        }
        Ok(())
    })?;
    Ok(())
}

fn look(files: &[&str], out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let sources: Vec<SourceFile> =
        files.iter().map(|file| SourceFile::new(*file, Format::Messages)).collect();
    let (measured, train) = sources.split_at(sources.len() - 1);
    let section = |key, sources| Section { key, sources, leaves_out_empty: false, tokenizer: None };
    let asked = Hygiene::that_reports(MaskKey::of_seed(7));
    let begun = Instant::now();
    let found =
        survey(&[section("data.validation", measured)], section("data.train", train), &asked)?;
    writeln!(out, "{:.1} s", begun.elapsed().as_secs_f64())?;
    for (section, rows) in &found.report.rows {
        writeln!(out, "{section}: {rows} rows")?;
    }
    for finding in &found.report.findings {
        writeln!(out, "{finding}")?;
        for remark in &finding.remarks {
            writeln!(out, "  {remark}")?;
        }
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find(|line| line.starts_with("VmHWM"));
    writeln!(out, "{}", peak.unwrap_or_default())?;
    Ok(())
}

fn score(out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let personal = Personal::that_reports(MaskKey::of_seed(7));
    let mut draw = Draw::new(12);
    for kind in KINDS {
        let mask = format!("<{}_", kind.to_uppercase());
        let (mut right, mut found, mut known) = (0_usize, 0, 0);
        for _ in 0..20_000 {
            let set = labelled(kind, &mut draw);
            let shown = personal.shown(&set.text);
            let is_gone = set.value.as_ref().is_none_or(|value| !shown.contains(value.as_str()));
            let is_found = shown.contains(&mask) && is_gone;
            found += usize::from(is_found);
            known += usize::from(set.value.is_some());
            right += usize::from(is_found && set.value.is_some());
        }
        let of = |all: usize| right as f64 / all as f64;
        writeln!(out, "{kind}: precision {:.4}, recall {:.4} of {known}", of(found), of(known))?;
    }
    Ok(())
}
