//! tokenizer.json: read, and used on some texts.
#![no_main]

#[path = "../caught.rs"]
mod caught;

use graft_data::Tokenizer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: caught::let_them(), |json: &[u8]| {
    let Ok(tokenizer) = Tokenizer::from_bytes(json, "tokenizer.json") else { return };
    for text in ["The  fee\n\n12 é😀", "<|im_end|></s>", " ", &"aA 0\t".repeat(40)] {
        if let Ok(ids) = tokenizer.encode(text) {
            let _ = tokenizer.decode(&ids, true);
        }
    }
});
