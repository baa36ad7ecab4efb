//! The tables of a report: scores, answers to held-out questions, answers to free prompts.

use std::fmt::Write;

use super::html::{escape, grouped, value};
use super::{Answer, Better, PromptAnswer, Sample, Score, ScoreUnit};

/// A text longer than this is folded; nothing is cut away.
const LONGEST_PLAIN: usize = 600;

/// Before and after, one score a row.
pub(super) fn scores(scores: &[Score], page: &mut String) {
    if scores.is_empty() {
        return;
    }
    page.push_str(
        "<h2>Before and after</h2>\n<div class=\"wide\"><table class=\"scores\"><thead><tr><th>Measure</th>\
         <th class=\"n\">Base</th><th class=\"n\">Tuned</th><th class=\"n\">Change</th></tr></thead><tbody>",
    );
    for score in scores {
        let (class, change) = change(score);
        let _ = write!(
            page,
            "<tr><td>{}<small>{}</small></td><td class=\"n\">{}</td><td class=\"n after\">{}</td><td class=\"n {class}\">{change}</td></tr>",
            escape(&score.name),
            escape(&score.on),
            written(score.unit, score.before),
            written(score.unit, score.after),
        );
    }
    page.push_str("</tbody></table></div>\n");
}

fn written(unit: ScoreUnit, score: Option<f64>) -> String {
    match (unit, score.filter(|score| score.is_finite())) {
        (_, None) => "—".to_owned(),
        (ScoreUnit::Share, Some(share)) => format!("{:.1} %", 100.0 * share),
        (ScoreUnit::Number, Some(number)) => value(number),
    }
}

fn change(score: &Score) -> (&'static str, String) {
    let (Some(before), Some(after)) = (score.before, score.after) else {
        return ("quiet", "—".to_owned());
    };
    let change = after - before;
    if !change.is_finite() {
        return ("quiet", "—".to_owned());
    }
    let size = match score.unit {
        ScoreUnit::Share => format!("{:.1} points", 100.0 * change.abs()),
        ScoreUnit::Number => value(change.abs()),
    };
    let (sign, higher) = if change < 0.0 { ("−", Better::Lower) } else { ("+", Better::Higher) };
    let class = match change {
        0.0 => "quiet",
        _ if higher == score.better => "good",
        _ => "bad",
    };
    (class, format!("{sign}{size}"))
}

/// Held-out questions, with a mark on each answer.
pub(super) fn samples(samples: &[Sample], page: &mut String) {
    if samples.is_empty() {
        return;
    }
    let count = samples.len() as u64;
    let right = samples.iter().filter(|sample| sample.tuned.right).count() as u64;
    let _ = write!(
        page,
        "<h2>Held-out questions</h2>\n<p class=\"lead\">{} of {} shown here answered right by the tuned model.</p>\n\
         <table class=\"samples\"><thead><tr><th>Question</th><th>Expected</th><th>Base</th><th>Tuned</th></tr></thead><tbody>",
        grouped(right),
        grouped(count)
    );
    for Sample { question, expected, base, tuned } in samples {
        let _ = write!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            folded(question),
            folded(expected),
            marked(base),
            marked(tuned)
        );
    }
    page.push_str("</tbody></table>\n");
}

fn marked(answer: &Answer) -> String {
    // The mark is text beside its colour, for print and for those who do not see the colour.
    let (class, mark, name) =
        if answer.right { ("good", "✓", "right") } else { ("bad", "✗", "wrong") };
    format!("<b class=\"{class}\" title=\"{name}\">{mark}</b> {}", folded(&answer.text))
}

/// Prompts without a right answer.
pub(super) fn prompts(prompts: &[PromptAnswer], page: &mut String) {
    if prompts.is_empty() {
        return;
    }
    page.push_str(
        "<h2>Prompts</h2>\n<table class=\"samples\"><thead><tr><th>Prompt</th><th>Base</th><th>Tuned</th></tr></thead><tbody>",
    );
    for PromptAnswer { prompt, base, tuned } in prompts {
        let base = base
            .as_ref()
            .map_or("<span class=\"quiet\">not asked</span>".to_owned(), |base| folded(base));
        let _ = write!(
            page,
            "<tr><td>{}</td><td>{base}</td><td>{}</td></tr>",
            folded(prompt),
            folded(tuned)
        );
    }
    page.push_str("</tbody></table>\n");
}

fn folded(text: &str) -> String {
    if text.trim().is_empty() {
        return "<span class=\"quiet\">(empty)</span>".to_owned();
    }
    if text.chars().nth(LONGEST_PLAIN).is_none() {
        return escape(text);
    }
    let head: String = text.chars().take(LONGEST_PLAIN / 3).collect();
    let tail = &text[head.len()..];
    format!("<details><summary>{}…</summary>…{}</details>", escape(&head), escape(tail))
}
