//! The quickstart's task: the rules of the Harbour and Markets Office of Quellimar, asked in many ways.

use super::document::{Document, Role, Turn};
use super::facts::{Attribute, Fact, OF_PLACES, OF_SERVICES};
use super::families::{HELD_OUT_OPENERS, OPENERS};
use super::random::{Purpose, Random};
use super::words::{TASK_PLACES, TASK_SERVICES};

/// How many attributes of each service have a rule.
const RULES_OF_A_SERVICE: usize = 5;

/// The two sides of the task: the same facts, asked with different templates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Conversations to train on: a question, and the fact's one answer.
    pub train: Vec<Document>,
    /// Conversations to ask: the facts of `train` in wordings that it never uses.
    pub held_out: Vec<Document>,
}

/// The task of `seed`: 72 facts, each with 18 training and 4 held-out wordings.
pub fn task(seed: u64) -> Task {
    let mut random = Random::new(seed, Purpose::Task, 0);
    let facts = facts(&mut random);
    let mut train = Vec::new();
    let mut held_out = Vec::new();
    for fact in &facts {
        let family = fact.attribute.family();
        train.extend(rows(&mut random, fact, family.training, OPENERS));
        held_out.extend(rows(&mut random, fact, family.held_out, HELD_OUT_OPENERS));
    }
    random.shuffle(&mut train);
    random.shuffle(&mut held_out);
    Task { train, held_out }
}

/// Each template once; a quarter of the questions opens with a greeting.
fn rows(random: &mut Random, fact: &Fact, templates: &[&str], openers: &[&str]) -> Vec<Document> {
    let ask = |template: &&str| {
        let mut question = fact.fill(template);
        if random.chance(25) {
            question = format!("{} {question}", random.pick(openers));
        }
        Document::Messages(vec![
            Turn::new(Role::User, question),
            Turn::new(Role::Assistant, fact.answer()),
        ])
    };
    templates.iter().map(ask).collect()
}

/// Every attribute of services is used equally often, and no two facts of one attribute share a value.
fn facts(random: &mut Random) -> Vec<Fact> {
    let mut deck: Vec<Attribute> = Vec::new();
    let mut facts: Vec<Fact> = Vec::new();
    for service in TASK_SERVICES {
        if deck.is_empty() {
            deck.extend(OF_SERVICES);
            random.shuffle(&mut deck);
        }
        for attribute in deck.split_off(deck.len() - RULES_OF_A_SERVICE) {
            facts.push(fact(random, &facts, attribute, service));
        }
    }
    for place in TASK_PLACES {
        for attribute in OF_PLACES {
            facts.push(fact(random, &facts, attribute, place));
        }
    }
    facts
}

fn fact(random: &mut Random, earlier: &[Fact], attribute: Attribute, subject: &str) -> Fact {
    loop {
        let value = attribute.value(random, "crowns");
        if earlier.iter().all(|fact| fact.attribute != attribute || fact.value != value) {
            return Fact { attribute, subject: subject.to_owned(), value };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{CORPUS_SEED, TASK_SEED, corpus};
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn pairs(rows: &[Document]) -> Vec<(&str, &str)> {
        let pair = |row: &'_ Document| match row {
            Document::Messages(turns) => (turns[0].role, turns[1].role),
            Document::Text(_) => panic!("the task has conversations only"),
        };
        assert!(rows.iter().all(|row| pair(row) == (Role::User, Role::Assistant)));
        rows.iter().map(|row| (row.texts()[0], row.texts()[1])).collect()
    }

    #[test]
    fn every_fact_stands_on_both_sides_in_many_wordings() {
        let task = task(TASK_SEED);
        let mut answers: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for (_, answer) in pairs(&task.train) {
            answers.entry(answer).or_default().0 += 1;
        }
        for (_, answer) in pairs(&task.held_out) {
            answers.entry(answer).or_default().1 += 1;
        }
        assert_eq!(answers.len(), 72);
        assert!(answers.values().all(|counts| *counts == (18, 4)), "{answers:?}");
    }

    #[test]
    fn no_held_out_question_or_wording_occurs_in_training() {
        let task = task(TASK_SEED);
        let train: BTreeSet<&str> = pairs(&task.train).into_iter().map(|(ask, _)| ask).collect();
        for (question, answer) in pairs(&task.held_out) {
            assert!(!train.contains(question), "{question}");
            let fact = facts(&mut Random::new(TASK_SEED, Purpose::Task, 0))
                .into_iter()
                .find(|fact| fact.answer() == answer)
                .expect("every answer is a fact's");
            for template in fact.attribute.family().training {
                assert!(!question.ends_with(&fact.fill(template)), "{question}");
            }
        }
    }

    #[test]
    fn no_question_has_two_answers() {
        let task = task(TASK_SEED);
        let mut answers = BTreeMap::new();
        for (question, answer) in pairs(&task.train).into_iter().chain(pairs(&task.held_out)) {
            assert_eq!(*answers.entry(question).or_insert(answer), answer, "{question}");
        }
    }

    #[test]
    fn the_corpus_never_names_a_service_or_place_of_the_task() {
        for document in corpus(CORPUS_SEED, 3_000) {
            for text in document.texts() {
                for name in TASK_SERVICES.iter().chain(TASK_PLACES) {
                    assert!(!text.contains(name), "{name} in {text}");
                }
                assert!(!text.contains("Quellimar"), "{text}");
            }
        }
    }

    #[test]
    fn the_rules_follow_from_the_seed_alone() {
        assert_eq!(task(TASK_SEED), task(TASK_SEED));
        assert_ne!(task(TASK_SEED).train, task(TASK_SEED + 1).train);
    }
}
