//! Laws of the page as a whole; its parts have their own beside them.

use std::collections::BTreeMap;

use super::*;
use crate::run_folder::contract::Change;
use crate::run_folder::manifest::tests::inputs;
use crate::run_folder::manifest::{DataFile, Made, Mended, Recorded};

/// A run of `steps` steps with every section filled.
fn sample(steps: u64) -> Report {
    let train = (1..=steps).map(|step| {
        let part = step as f64 / steps as f64;
        let noise = ((step * 7_919) % 1_000) as f64 / 1_000.0 - 0.5;
        TrainLine {
            step,
            loss: 0.12 + 3.2 * (-4.0 * part).exp() * (1.0 + 0.35 * noise),
            learning_rate: 2e-4 * (part / 0.03).min(1.0) * (0.55 + 0.45 * (3.1 * part).cos()),
            grad_norm: 0.3 + 1.4 * (-3.0 * part).exp() * (1.0 + noise),
            tokens: 512,
            target_tokens: 131,
            tokens_per_second: 14_200.0 + 900.0 * noise,
            peak_memory_bytes: Some(412 << 20),
            peak_device_memory_bytes: None,
            measures: BTreeMap::new(),
        }
    });
    let eval = (1..=steps / 100).map(|count| {
        let part = (count * 100) as f64 / steps as f64;
        EvalLine {
            step: count * 100,
            eval_loss: 0.21 + 3.1 * (-4.0 * part).exp(),
            eval_tokens: 900,
        }
    });
    let answer = |text: &str, right| Answer { text: text.to_owned(), right };
    let score = |name: &str, on: &str, unit, better, before, after| {
        let (name, on) = (name.to_owned(), on.to_owned());
        Score { name, on, unit, better, before: Some(before), after: Some(after) }
    };
    let mut manifest = Manifest::begin(inputs());
    manifest.status = Status::Finished;
    manifest.started = "2026-01-02T03:04:05Z".to_owned();
    Report {
        manifest,
        recipe: "name: quickstart\nadapter: {method: lora, rank: 16} # <b>\n".to_owned(),
        seconds: 96.4,
        tokens: 512 * steps,
        target_tokens: 131 * steps,
        tokens_per_second: 14_200.0,
        peak_memory_bytes: Some(412 << 20),
        train: train.collect(),
        eval: eval.collect(),
        scores: vec![
            score(
                "Exact match",
                "240 held-out questions",
                ScoreUnit::Share,
                Better::Higher,
                0.0125,
                0.9667,
            ),
            score(
                "Perplexity",
                "the base's own validation text",
                ScoreUnit::Number,
                Better::Lower,
                4.812,
                5.034,
            ),
            score(
                "Validation loss",
                "nats per target token",
                ScoreUnit::Number,
                Better::Lower,
                3.41,
                0.214,
            ),
        ],
        samples: vec![Sample {
            question: "What does a <script>alert(1)</script> permit cost?".to_owned(),
            expected: "42 crowns".to_owned(),
            base: answer("The office is open.", false),
            tuned: answer("42 crowns", true),
        }],
        prompts: vec![PromptAnswer {
            prompt: "Hello & welcome".to_owned(),
            base: None,
            tuned: "Good day.".to_owned(),
        }],
    }
}

#[test]
fn no_text_becomes_markup() {
    let hostile = "<script>x</script>\"'&";
    let mut report = sample(3);
    report.manifest.inputs.run = hostile.to_owned();
    report.manifest.inputs.model = hostile.to_owned();
    report.manifest.status = Status::Failed { reason: hostile.to_owned() };
    let hash = report.manifest.inputs.base["model.safetensors"].clone();
    let files = [(hostile.to_owned(), hash.clone())].into();
    let made = Made { after_step: Some(1), files, ..Made::default() };
    report.manifest.made.insert(hostile.to_owned(), made);
    let path = hostile.to_owned();
    report.manifest.inputs.data.insert(hostile.to_owned(), DataFile { path, hash });
    let [what, from, to] = [(); 3].map(|()| hostile.to_owned());
    report.manifest.changes.push(Recorded { after_step: 1, what: Change { what, from, to } });
    let [file, found] = [(); 2].map(|()| hostile.to_owned());
    report.manifest.mended.push(Recorded { after_step: 1, what: Mended { file, found } });
    report.recipe = hostile.to_owned();
    report.scores[0].name = hostile.to_owned();
    report.samples[0].tuned.text = hostile.repeat(50);
    report.prompts[0].base = Some(hostile.to_owned());
    let page = report.render();
    assert!(!page.contains("<script") && !page.contains("x</script"));
    assert!(page.matches("&lt;script&gt;x&lt;/script&gt;&quot;&#39;&amp;").count() > 50);
}

#[test]
fn the_page_refers_to_nothing_outside() {
    let page = sample(1_000).render();
    for word in ["http:", "https:", "src=", "href=", "url(", "@import", "<link", "<script"] {
        assert!(!page.contains(word), "the page contains {word}");
    }
}

#[test]
fn every_section_has_its_numbers() {
    let page = sample(1_000).render();
    for text in [
        "2.87 % of 4.18 M",
        "1 min 36 s",
        "1,000 steps",
        "412.00 MiB",
        "96.7 %",
        "+95.4 points",
        "mean of 51",
    ] {
        assert!(page.contains(text), "the page lacks {text}");
    }
    assert_eq!(page.matches("<svg").count(), 4);
    assert_eq!(page.matches("class=\"n bad\">+0.222").count(), 1);
}

#[test]
fn a_run_without_numbers_still_has_a_page() {
    let mut report = sample(1);
    for line in &mut report.train {
        (line.loss, line.grad_norm, line.tokens_per_second) = (f64::NAN, f64::INFINITY, f64::NAN);
    }
    report.scores[0].after = Some(f64::NAN);
    (report.seconds, report.tokens_per_second) = (f64::NAN, f64::INFINITY);
    report.manifest.inputs.parameters = 0;
    let page = report.render();
    let drawn = page.split_once("<body>").unwrap().1.to_lowercase();
    assert!(!drawn.contains("nan<") && !drawn.contains("inf<") && !drawn.contains("nan "));
    report.train.clear();
    assert!(report.render().contains("No values were logged."));
}

#[test]
fn every_measure_of_the_loss_has_a_chart_and_a_run_without_any_has_none() {
    let plain = sample(30);
    let mut measured = plain.clone();
    for line in &mut measured.train {
        line.measures = [("reward_margin".to_owned(), line.loss / 2.0)].into();
    }
    let [plain, measured] = [plain, measured].map(|report| report.render());
    assert!(!plain.contains("reward_margin"));
    let charts = |page: &str| page.matches("<figure class=\"chart\">").count();
    assert_eq!(charts(&measured), charts(&plain) + 1);
    assert!(measured.contains("<figcaption><b>reward_margin</b>"));
}
