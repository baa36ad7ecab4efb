//! Conversations of the corpus: a passage and questions on it, or questions that come back in other words.

use super::document::{Role, Turn};
use super::facts::{self, Fact};
use super::families::{HELD_OUT_OPENERS, OPENERS};
use super::random::Random;
use super::texts;
use super::words;

/// Said when the passage does not hold the answer.
const UNKNOWN: &str = "The text does not say.";

/// One conversation, 40 to 350 tokens long.
pub(super) fn dialogue(random: &mut Random) -> Vec<Turn> {
    match random.below(10) {
        0..=5 => about_a_passage(random),
        6 | 7 => asked_again(random),
        8 => told_by_the_assistant(random),
        _ => without_a_passage(random),
    }
}

/// The passage stands in a system turn or in the first user turn; the answers are found in it.
fn about_a_passage(random: &mut Random) -> Vec<Turn> {
    let count = random.between(3, 7);
    let mut facts = facts::of_an_office(random, count);
    let passage = texts::passage(random, &facts);
    random.shuffle(&mut facts);
    let asked = random.between(2, count);
    let mut turns = Vec::new();
    let mut lead = None;
    if random.chance(50) {
        turns.push(Turn::new(Role::System, passage));
    } else {
        lead = Some(passage);
    }
    for fact in &facts[..asked] {
        let question = question(random, fact);
        let content =
            lead.take().map_or_else(|| question.clone(), |lead| format!("{lead}\n\n{question}"));
        turns.push(Turn::new(Role::User, content));
        turns.push(Turn::new(Role::Assistant, fact.answer()));
    }
    if random.chance(15) {
        let stranger = &facts::of_an_office(random, 1)[0];
        if facts.iter().all(|fact| fact.subject != stranger.subject) {
            turns.push(Turn::new(Role::User, question(random, stranger)));
            turns.push(Turn::new(Role::Assistant, UNKNOWN));
        }
    }
    turns
}

/// The same facts are asked twice in different words, and the answers agree: paraphrases mean the same.
fn asked_again(random: &mut Random) -> Vec<Turn> {
    let count = random.between(2, 4);
    let facts = facts::of_an_office(random, count);
    let mut order: Vec<&Fact> = facts.iter().chain(&facts).collect();
    random.shuffle(&mut order);
    answered(random, &order)
}

/// The assistant describes the rules itself and then keeps to them.
fn told_by_the_assistant(random: &mut Random) -> Vec<Turn> {
    let mut facts = facts::of_an_office(random, 4);
    let request = match random.below(3) {
        0 => "Tell me about an office.",
        1 => "Please write the rules of an office.",
        _ => "Which rules does the office have?",
    };
    let mut turns = vec![
        Turn::new(Role::User, request),
        Turn::new(Role::Assistant, texts::passage(random, &facts)),
    ];
    random.shuffle(&mut facts);
    turns.extend(answered(random, &facts.iter().take(3).collect::<Vec<_>>()));
    turns
}

/// One to three questions without a passage, as the quickstart asks them.
fn without_a_passage(random: &mut Random) -> Vec<Turn> {
    let count = random.between(1, 3);
    let facts = facts::of_an_office(random, count);
    let mut turns = Vec::new();
    if random.chance(30) {
        turns.push(Turn::new(
            Role::System,
            format!("You answer for the {}.", words::office(random)),
        ));
    }
    turns.extend(answered(random, &facts.iter().collect::<Vec<_>>()));
    turns
}

fn answered(random: &mut Random, facts: &[&Fact]) -> Vec<Turn> {
    let mut turns = Vec::new();
    for fact in facts {
        turns.push(Turn::new(Role::User, question(random, fact)));
        turns.push(Turn::new(Role::Assistant, fact.answer()));
    }
    turns
}

fn question(random: &mut Random, fact: &Fact) -> String {
    let question = fact.question(random);
    if random.chance(75) {
        return question;
    }
    let opener = random.below(OPENERS.len() + HELD_OUT_OPENERS.len());
    let opener = OPENERS.get(opener).unwrap_or_else(|| &HELD_OUT_OPENERS[opener - OPENERS.len()]);
    format!("{opener} {question}")
}
