//! `finish.for`: whether the programs take what will be learnt, before any hour is spent on it.

use graft_adapters::AnyMethod;
use graft_recipes::{Init, Recipe, Target};

use super::findings::Findings;
use super::model::ModelPart;
use super::sources::chat_template;
use crate::modelfile::{Speech, modelfile};
use crate::servers::{Traits, Way, server};
use crate::serving::MODEL;

/// Holds the method's adapter against what each program takes.
pub(super) fn check(
    recipe: &Recipe,
    model: &ModelPart,
    method: Option<&AnyMethod>,
    findings: &mut Findings<'_>,
) {
    // That a whole model has no adapter was said already.
    let Some(AnyMethod::Lora(lora)) = method else { return };
    if recipe.finish.targets.is_empty() {
        return;
    }
    if recipe.model.init == Init::Random {
        findings.problem_with_hint(
            "finish.for",
            "found programs and model.init = random: the weights that the adapter is for are in no file",
            "drop `finish.for`",
        );
        return;
    }
    let mut traits = Traits::of(lora);
    if lora.part.is_some() {
        // Written with what it began as beside it.
        traits.rank *= 2;
    }
    for (index, target) in recipe.finish.targets.iter().enumerate() {
        let (key, name) = (format!("finish.for.{index}"), target.name());
        match server(*target).way(&traits, None) {
            Ok(way) => {
                let rank = if let Way::Folded { rank, .. } = way { rank } else { traits.rank };
                let told = server(*target).told_of_rank(rank).filter(|_| way != Way::Merged);
                if let Some(told) = told {
                    findings.warn(format!("finish.for: {told}"));
                }
            }
            Err(refused) => findings.problem_with_hint(
                &key,
                format_args!("found {name}, but {refused}"),
                &format!("drop `{name}` here; `graft export --for {name}` does it after the run"),
            ),
        }
        if *target == Target::Ollama {
            check_modelfile(recipe, model, &key, findings);
        }
    }
}

/// Whether the chat template and the system prompt have a form in a Modelfile.
fn check_modelfile(recipe: &Recipe, model: &ModelPart, key: &str, findings: &mut Findings<'_>) {
    let Some(tokenizer) = &model.tokenizer else { return };
    let chat = chat_template(&recipe.data.chat).with_own(model.template.as_ref());
    let (name, system) = (recipe.model.path.to_string(), recipe.data.system_prompt.as_deref());
    let speech = Speech { model: &name, tokenizer, chat: &chat, system };
    if let Err(no_form) = modelfile(MODEL, speech) {
        findings.problem(key, format_args!("found ollama, but {no_form}"));
    }
}
