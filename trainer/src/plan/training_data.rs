//! What a recipe trains on, read to be looked at.

use std::sync::Arc;

use graft_data::hygiene::Report;
use graft_data::hygiene::personal::Personal;
use graft_data::{Dataset, SourceFile, Tokenizer};
use graft_recipes::Recipe;

use super::findings::Findings;
use super::hygiene;
use super::keeping::Keeping;
use super::sources::Measured;
use super::{PlanErrors, model, sources};

/// What a recipe trains on, without the weights, the measurements or the output folder.
#[derive(Debug)]
pub struct TrainingData {
    /// The model's tokenizer.
    pub tokenizer: Tokenizer,
    /// Rows of `data.train`, but for those that `data.hygiene` leaves out.
    pub dataset: Dataset,
    /// What was found in the rows; `None` where nobody looked.
    pub looked: Option<LookedThrough>,
}

/// What was found in rows.
#[derive(Debug)]
pub struct LookedThrough {
    /// What it is.
    pub report: Report,
    /// What is masked wherever a row is shown.
    pub personal: Arc<Personal>,
    /// The files of each section that was read, as they are.
    pub sections: Vec<(String, Vec<SourceFile>)>,
    /// What is to be known beside.
    pub notes: Vec<String>,
}

impl TrainingData {
    /// Reads the tokenizer and the training files of a recipe; its model may lack weights. What `data.hygiene`
    /// forbids is read, too; `closely` looks for more than that asks for.
    ///
    /// # Errors
    /// Every problem of these two, with the places of their keys.
    pub fn load(recipe: &Recipe, closely: bool) -> Result<Self, PlanErrors> {
        let mut findings = Findings::new(recipe);
        let model = model::open(recipe, &mut findings);
        let (config, template) = (model.config.as_ref(), model.template.as_ref());
        let hygiene = hygiene::resolve(recipe, &mut findings);
        let (sample, train) = sources::training(recipe, config, template, &hygiene, &mut findings);
        findings.finish()?;
        let tokenizer = model.tokenizer.expect("what could not be read was recorded");
        // What is measured need not be there to look at what is trained on.
        let mut of_measured = Findings::new(recipe);
        let measured = sources::measured(recipe, &sample, &hygiene, &mut of_measured);
        let (measured, mut notes) = match of_measured.finish() {
            Ok(_) => (measured_files(measured), Vec::new()),
            Err(problems) => {
                (Vec::new(), vec![format!("not compared with what is measured: {problems}")])
            }
        };
        let mut findings = Findings::new(recipe);
        let asked = hygiene.asked;
        let asked = if closely { asked.and_reports() } else { asked };
        let section = |key, sources, leaves_out_empty| {
            hygiene_section(key, sources, leaves_out_empty, &tokenizer)
        };
        let sections: Vec<_> = measured
            .iter()
            .map(|(key, files)| section(key, files, key != "evaluation.held_out"))
            .collect();
        let of_train = section("data.train", &train, sample.allow_empty_targets);
        let mut keeping = Keeping::of(&recipe.data.cache);
        let surveyed = hygiene::survey(&asked, &sections, of_train, &mut keeping, &mut findings);
        findings.finish()?;
        let mut findings = Findings::new(recipe);
        let cleaned = surveyed.cleaned("data.train", &train);
        let dataset = keeping.load(&cleaned, &tokenizer, &sample);
        let dataset = dataset.map_err(|error| findings.problem("data.train", error)).ok();
        findings.finish()?;
        let mut sections = measured;
        notes.append(&mut keeping.notes);
        sections.push(("data.train".to_owned(), train));
        let looked = surveyed.report.map(|report| LookedThrough {
            report,
            personal: asked.personal,
            sections,
            notes,
        });
        Ok(Self {
            tokenizer,
            dataset: dataset.expect("a failure was recorded as a problem"),
            looked,
        })
    }
}

/// The files of what is measured, by section.
fn measured_files(measured: Measured) -> Vec<(String, Vec<SourceFile>)> {
    let Measured { validation, held_out, general } = measured;
    let sections = [
        ("data.validation", validation.files().to_vec()),
        ("evaluation.held_out", held_out),
        ("evaluation.general", general),
    ];
    sections.into_iter().map(|(key, files)| (key.to_owned(), files)).collect()
}

fn hygiene_section<'a>(
    key: &'a str,
    sources: &'a [SourceFile],
    leaves_out_empty: bool,
    tokenizer: &'a Tokenizer,
) -> graft_data::hygiene::Section<'a> {
    let tokenizer = Some(tokenizer);
    graft_data::hygiene::Section { key, sources, leaves_out_empty, tokenizer }
}
