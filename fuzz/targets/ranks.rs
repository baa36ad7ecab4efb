//! tokenizer.model as tiktoken writes it: ranks of 256 bytes, and what an input adds to them.
#![no_main]

#[path = "../caught.rs"]
mod caught;

use graft_data::Tokenizer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: caught::let_them(), |bytes: &[u8]| {
    if let Ok(tokenizer) = Tokenizer::from_tiktoken(bytes, "tokenizer.model") {
        let ids = tokenizer.encode("the <|eot_id|>").expect("every byte has a rank");
        let _ = tokenizer.decode(&ids, false);
    }
});
