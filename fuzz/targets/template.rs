//! Chat templates: programs from strangers.
#![no_main]

#[path = "../caught.rs"]
mod caught;

use std::sync::LazyLock;

use graft_data::{Conversation, Losses, Message, ModelTemplate, Role, Tokenizer};
use libfuzzer_sys::fuzz_target;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    let json = include_bytes!("../seeds/tokenizer/chatml.json");
    Tokenizer::from_bytes(json, "tokenizer.json").expect("a sound tokenizer")
});

fuzz_target!(init: caught::let_them(), |text: &str| {
    let Ok(template) = ModelTemplate::from_text(text, "chat_template.jinja", "<s>") else { return };
    let turns = [(Role::System, "s"), (Role::User, "a b"), (Role::Assistant, "c")];
    let conversation =
        Conversation::of(turns.map(|(role, text)| Message::text(role, text)).to_vec());
    for losses in [Losses::Allow, Losses::Refuse] {
        let _ = template.encode(&conversation, "26 Jul 2024", losses, &TOKENIZER);
    }
    let _ = template.prompt(&conversation, "26 Jul 2024", Losses::Allow, &TOKENIZER);
});
