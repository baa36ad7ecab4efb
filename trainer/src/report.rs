//! `report.html`: one page that says what was trained on what, how it went and what changed.
//!
//! The page needs nothing but itself: styles and drawings are inline, there is no script, and its
//! content policy forbids loading anything. Every text that is not ours is escaped.

mod chart;
pub mod data_page;
mod html;
mod provenance;
mod scale;
mod tables;

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::run_folder::manifest::{Manifest, Status};
use crate::run_folder::metrics::{EvalLine, TrainLine};
use chart::{Chart, Line, Stroke, smoothed};
use html::{bytes, duration, escape, grouped, short_count};
use scale::Origin;

/// All that a report shows. Lists may be empty: their section then says so or is left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The manifest as the run ended: name, model, method, hashes, status.
    pub manifest: Manifest,
    /// `recipe.yaml`.
    pub recipe: String,
    /// Wall time of the training, seconds, over all its parts when it was gone on with.
    pub seconds: f64,
    /// Tokens that went through the model in training, without padding.
    pub tokens: u64,
    /// Tokens that the training loss counted.
    pub target_tokens: u64,
    /// `tokens` over the time spent in training steps.
    pub tokens_per_second: f64,
    /// Largest resident size of the process; `None` where the system does not say.
    pub peak_memory_bytes: Option<u64>,
    /// Training steps in order, as in `metrics.jsonl`.
    pub train: Vec<TrainLine>,
    /// Evaluations in order, as in `metrics.jsonl`.
    pub eval: Vec<EvalLine>,
    /// Scores before and after.
    pub scores: Vec<Score>,
    /// Held-out questions with the answers of base and tuned model.
    pub samples: Vec<Sample>,
    /// Free prompts and their answers.
    pub prompts: Vec<PromptAnswer>,
}

/// A score of the base and of the tuned model.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// What is measured.
    pub name: String,
    /// On what, in a few words; may be empty.
    pub on: String,
    /// How it is written.
    pub unit: ScoreUnit,
    /// Which way is better.
    pub better: Better,
    /// The base's score.
    pub before: Option<f64>,
    /// The tuned model's score.
    pub after: Option<f64>,
}

/// How a score is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScoreUnit {
    /// A share from 0 to 1, written in percent.
    Share,
    /// A plain number.
    Number,
}

/// Which way a score is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// Larger is better, as for exact match.
    Higher,
    /// Smaller is better, as for a loss or a perplexity.
    Lower,
}

/// An answer and whether it counts as right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What the model wrote.
    pub text: String,
    /// Whether the evaluation counted it as right.
    pub right: bool,
}

/// A held-out question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The question.
    pub question: String,
    /// The right answer.
    pub expected: String,
    /// The base's answer.
    pub base: Answer,
    /// The tuned model's answer.
    pub tuned: Answer,
}

/// A prompt without a right answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptAnswer {
    /// The prompt.
    pub prompt: String,
    /// The base's answer, where it was asked.
    pub base: Option<String>,
    /// The tuned model's answer.
    pub tuned: String,
}

/// The loss fills the page's width; three others share a row below it.
const LARGE: (f64, f64) = (960.0, 330.0);
const STYLE: &str = include_str!("report/page.css");

impl Report {
    /// The page, UTF-8. Equal reports give equal pages.
    pub fn render(&self) -> String {
        let name = escape(&self.manifest.inputs.run);
        let mut page = format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{name} · training report</title>\n<style>\n{STYLE}</style></head>\n<body><main>\n"
        );
        self.header(&mut page);
        tables::scores(&self.scores, &mut page);
        self.charts(&mut page);
        tables::samples(&self.samples, &mut page);
        tables::prompts(&self.prompts, &mut page);
        provenance::section(&self.manifest, &self.recipe, &mut page);
        page.push_str(
            "<footer>Written by Graft. This page loads nothing.</footer>\n</main></body></html>\n",
        );
        page
    }

    fn header(&self, page: &mut String) {
        let inputs = &self.manifest.inputs;
        let quantization = match inputs.quantization.as_str() {
            "none" => String::new(),
            format => format!(" on {format} weights"),
        };
        let (class, state) = match &self.manifest.status {
            Status::Running => ("open", "running".to_owned()),
            Status::Finished => ("good", "finished".to_owned()),
            Status::Stopped { reason } => ("open", format!("stopped: {reason}")),
            Status::Failed { reason } => ("bad", format!("failed: {reason}")),
        };
        let _ = write!(
            page,
            "<header><p class=\"over\">Training report</p><h1>{}</h1>\n\
             <p class=\"lead\">{} · {}{} · {}</p><span class=\"state {class}\">{}</span></header>\n<dl class=\"facts\">",
            escape(&inputs.run),
            escape(&inputs.model),
            escape(&inputs.method),
            escape(&quantization),
            escape(&inputs.compute_dtype),
            escape(&state),
        );
        for (name, value, note) in self.facts() {
            let (value, note) = (escape(&value), escape(&note));
            let _ = write!(page, "<div><dt>{name}</dt><dd>{value}<small>{note}</small></dd></div>");
        }
        page.push_str("</dl>\n");
    }

    fn facts(&self) -> Vec<(&'static str, String, String)> {
        let inputs = &self.manifest.inputs;
        let (trainable, all) = (inputs.trainable_parameters, inputs.parameters);
        let share = 100.0 * trainable as f64 / all.max(1) as f64;
        let rate = match self.tokens_per_second {
            rate if rate.is_finite() && rate > 0.0 => short_count(rate.round() as u64),
            _ => "—".to_owned(),
        };
        let peak = self.peak_memory_bytes;
        let steps = self.train.last().map_or(0, |line| line.step);
        let steps = format!("{} {}", grouped(steps), if steps == 1 { "step" } else { "steps" });
        let targets = format!("{} trained on", short_count(self.target_tokens));
        vec![
            (
                "Trainable parameters",
                short_count(trainable),
                format!("{share:.2} % of {}", short_count(all)),
            ),
            ("Training time", duration(self.seconds), steps),
            ("Tokens", short_count(self.tokens), targets),
            ("Tokens per second", rate, "in training steps".to_owned()),
            ("Peak memory", peak.map_or("—".to_owned(), bytes), "of the process".to_owned()),
        ]
    }

    fn charts(&self, page: &mut String) {
        let series = |value: &dyn Fn(&TrainLine) -> f64| -> Vec<(f64, f64)> {
            self.train.iter().map(|line| (line.step as f64, value(line))).collect()
        };
        let width = (self.train.len() / 40).clamp(1, 250) * 2 + 1;
        let noisy = |title: &str, value: &dyn Fn(&TrainLine) -> f64, origin, size| {
            let raw = series(value);
            let mean = smoothed(&raw, width);
            let mut lines = vec![line("each step", Stroke::Faint, raw)];
            if self.train.len() > 10 {
                lines.push(line(&format!("mean of {width}"), Stroke::Strong, mean));
            } else {
                lines[0].stroke = Stroke::Strong;
            }
            Chart { title: title.to_owned(), lines, origin, size, legend: size == LARGE }
        };
        let mut loss = noisy("Loss (nats per token)", &|line| line.loss, Origin::Near, LARGE);
        let eval = self.eval.iter().map(|line| (line.step as f64, line.eval_loss)).collect();
        loss.lines.push(line("validation", Stroke::Dotted, eval));
        let small = (290.0, 195.0);
        let rate = series(&|line| line.learning_rate);
        let lines = vec![line("each step", Stroke::Strong, rate)];
        let rate = Chart {
            title: "Learning rate".to_owned(),
            lines,
            origin: Origin::Zero,
            size: small,
            legend: false,
        };
        let norm = noisy("Gradient norm", &|line| line.grad_norm, Origin::Zero, small);
        let speed = noisy("Tokens per second", &|line| line.tokens_per_second, Origin::Zero, small);
        let names: BTreeSet<&String> =
            self.train.iter().flat_map(|line| line.measures.keys()).collect();
        let of_line =
            |name: &str, line: &TrainLine| line.measures.get(name).copied().unwrap_or(f64::NAN);
        let measures = names
            .into_iter()
            .map(|name| noisy(name, &|line| of_line(name, line), Origin::Near, small).render());
        let _ = write!(
            page,
            "<h2>How the training went</h2>\n{}<div class=\"charts\">{}{}{}{}</div>\n",
            loss.render(),
            rate.render(),
            norm.render(),
            speed.render(),
            measures.collect::<String>()
        );
    }
}

fn line(label: &str, stroke: Stroke, points: Vec<(f64, f64)>) -> Line {
    Line { label: label.to_owned(), stroke, points }
}

#[cfg(test)]
#[path = "report/tests.rs"]
mod tests;
