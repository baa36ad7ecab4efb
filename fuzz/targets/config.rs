//! config.json: what is one is written again, and read as it was.
#![no_main]

use graft_model::LlamaConfig;
use graft_model::config::FloatType;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    match LlamaConfig::from_json(text, "config.json") {
        Ok(config) => {
            let written = config.to_json(FloatType::Bf16, None);
            let read = LlamaConfig::from_json(written.as_bytes(), "config.json");
            assert_eq!(read.expect("its own text").layers, config.layers);
        }
        Err(error) => assert!(error.to_string().len() < 20_000, "{error}"),
    }
});
