//! A GGUF file: its header, its numbers, and what it says of model and tokenizer.
#![no_main]

use graft_gguf::blocks::decode;
use graft_gguf::{File, hugging_face, tokenizer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(file) = File::read(&input.to_vec().into()) else { return };
    for tensor in file.tensors() {
        let mut values = vec![0.0; tensor.shape.iter().product()];
        decode(tensor.kind, &tensor.bytes, &mut values);
    }
    let _ = hugging_face::config(&file);
    let _ = hugging_face::tokenizer_config(&file);
    let _ = hugging_face::generation_config(&file);
    let _ = tokenizer::tokenizer_json(file.metadata());
});
