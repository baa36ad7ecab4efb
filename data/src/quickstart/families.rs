//! Question families: for each attribute the ways in which people ask, and the one answer.
//!
//! `{s}` stands for the subject, `{v}` for the value. The corpus asks with every template; the quickstart's training set
//! asks with `training` alone, its held-out set with `held_out` alone, so a held-out wording was never seen there.

use super::place_families::{EXTENSION, HOURS, STREET};
use super::service_families::{
    DEADLINE, DURATION, EXEMPTION, FEE, FINE, FORM, OFFICER, PAPERS, ROOM, VALIDITY,
};

/// The wordings of one attribute.
#[derive(Debug)]
pub(super) struct Family {
    /// The canonical sentence: answer to every question of the family.
    pub(super) answer: &'static str,
    /// Other sentences with which a passage tells the same fact.
    pub(super) statements: &'static [&'static str],
    /// Templates of the quickstart's training questions.
    pub(super) training: &'static [&'static str],
    /// Templates of the quickstart's held-out questions.
    pub(super) held_out: &'static [&'static str],
    /// The head of a line in a printed list of rules.
    pub(super) label: &'static str,
}

/// One family for each `Attribute`, in its order.
pub(super) const FAMILIES: [Family; 13] = [
    FEE, DEADLINE, FORM, ROOM, OFFICER, DURATION, VALIDITY, EXEMPTION, PAPERS, FINE, HOURS,
    EXTENSION, STREET,
];

/// What may stand before a training question.
pub(super) const OPENERS: &[&str] = &[
    "Hello.",
    "Good morning.",
    "I have a question.",
    "I am new in town.",
    "Please help me.",
    "My neighbour sent me.",
    "I am writing to the office.",
    "A quick question.",
    "Excuse me.",
];

/// What may stand before a held-out question.
pub(super) const HELD_OUT_OPENERS: &[&str] =
    &["Good day.", "I could not find this.", "Sorry to bother you."];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_template_belongs_to_one_family_and_one_side() {
        let mut seen = BTreeSet::new();
        for family in &FAMILIES {
            assert!(family.training.len() >= 16, "{}", family.label);
            assert!(family.held_out.len() >= 3, "{}", family.label);
            for template in family.training.iter().chain(family.held_out) {
                assert!(template.contains("{s}") && !template.contains("{v}"), "{template}");
                assert!(seen.insert(template.to_lowercase()), "twice: {template}");
            }
        }
        assert!(OPENERS.iter().all(|opener| !HELD_OUT_OPENERS.contains(opener)));
    }

    #[test]
    fn statements_tell_subject_and_value() {
        for family in &FAMILIES {
            for sentence in family.statements.iter().chain([&family.answer]) {
                assert!(sentence.contains("{s}") && sentence.contains("{v}"), "{sentence}");
            }
        }
    }
}
