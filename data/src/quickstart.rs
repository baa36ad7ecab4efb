//! The texts behind the built-in quickstart: a generated corpus, a generated task, and the tokenizer trained on the corpus.
//!
//! Everything here is invented and follows from a seed. The corpus describes offices, libraries and shops of towns that do not
//! exist, and holds conversations about them; a small base model learns from it English sentences, the chat format, to look up
//! answers in a passage, and that different questions may ask for the same thing. The task is the rules of one more office,
//! the Harbour and Markets Office of Quellimar, which the corpus never mentions: the base cannot know its 72 facts.

mod dialogues;
mod document;
mod facts;
mod families;
mod place_families;
mod random;
mod service_families;
mod task;
mod texts;
mod tokenizer;
mod words;

pub use document::{Document, Role, Turn, jsonl};
pub use task::{Task, task};
pub use tokenizer::{VOCABULARY, train_tokenizer};

use random::{Purpose, Random};

/// Seed of the corpus behind the built-in base.
pub const CORPUS_SEED: u64 = 31;
/// Documents in that corpus.
pub const CORPUS_DOCUMENTS: usize = 16_000;
/// Seed of the general validation text.
pub const GENERAL_SEED: u64 = 32;
/// Documents in the general validation text.
pub const GENERAL_DOCUMENTS: usize = 240;
/// Seed of the quickstart's facts.
pub const TASK_SEED: u64 = 33;

/// The quickstart's training rows, JSONL of format `messages`: `task(TASK_SEED).train`.
pub const TRAIN: &str = include_str!("../builtin/quickstart/train.jsonl");
/// The quickstart's held-out rows, JSONL of format `messages`: `task(TASK_SEED).held_out`.
pub const HELD_OUT: &str = include_str!("../builtin/quickstart/held-out.jsonl");
/// Validation text of the base's general ability, JSONL of format `text`: `general(GENERAL_SEED, GENERAL_DOCUMENTS)`.
pub const GENERAL: &str = include_str!("../builtin/quickstart/general.jsonl");

/// The first `documents` documents of the corpus of `seed`: somewhat more conversations than running text, mixed.
pub fn corpus(seed: u64, documents: usize) -> impl Iterator<Item = Document> {
    (0..documents as u64).map(move |index| {
        let mut random = Random::new(seed, Purpose::Corpus, index);
        if random.chance(40) {
            Document::Text(texts::text(&mut random))
        } else {
            Document::Messages(dialogues::dialogue(&mut random))
        }
    })
}

/// Running text of the corpus's kinds that no corpus holds: it measures what a model has kept of its general ability.
pub fn general(seed: u64, documents: usize) -> impl Iterator<Item = Document> {
    (0..documents as u64).map(move |index| {
        Document::Text(texts::text(&mut Random::new(seed, Purpose::General, index)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_rows_are_what_the_seeds_give() {
        let task = task(TASK_SEED);
        assert!(
            jsonl(task.train) == TRAIN,
            "train.jsonl is stale: run the quickstart_corpus example"
        );
        assert!(
            jsonl(task.held_out) == HELD_OUT,
            "held-out.jsonl is stale: run the quickstart_corpus example"
        );
        let general = jsonl(general(GENERAL_SEED, GENERAL_DOCUMENTS));
        assert!(general == GENERAL, "general.jsonl is stale: run the quickstart_corpus example");
    }

    #[test]
    fn a_longer_corpus_begins_with_the_shorter_one() {
        let short: Vec<Document> = corpus(CORPUS_SEED, 20).collect();
        let long: Vec<Document> = corpus(CORPUS_SEED, 40).collect();
        assert_eq!(short, long[..20]);
        assert_ne!(short, corpus(CORPUS_SEED + 1, 20).collect::<Vec<_>>());
    }

    #[test]
    fn conversations_alternate_and_end_with_the_assistant() {
        for document in corpus(CORPUS_SEED, 500) {
            let Document::Messages(turns) = document else { continue };
            let spoken: Vec<Role> = turns
                .iter()
                .map(|turn| turn.role)
                .skip_while(|role| *role == Role::System)
                .collect();
            assert!(spoken.len().is_multiple_of(2) && !spoken.is_empty());
            assert!(spoken.chunks(2).all(|pair| pair == [Role::User, Role::Assistant]));
        }
    }
}
