//! The files beside tokenizer.json: what ends an answer, which template there is. The first byte says which.
#![no_main]

#[path = "../caught.rs"]
mod caught;

use graft_data::{ModelTemplate, NamedFile, TemplateFiles, Tokenizer, TokenizerFiles};
use libfuzzer_sys::{Corpus, fuzz_target};

const SOUND: &[u8] = include_bytes!("../seeds/tokenizer/chatml.json");

fuzz_target!(init: caught::let_them(), |input: &[u8]| -> Corpus {
    let [which, bytes @ ..] = input else { return Corpus::Reject };
    let file = Some(NamedFile { bytes, origin: "file.json" });
    let files = match which % 3 {
        0 => TokenizerFiles { tokenizer_config: file, ..TokenizerFiles::default() },
        1 => TokenizerFiles { special_tokens_map: file, ..TokenizerFiles::default() },
        _ => TokenizerFiles { generation_config: file, ..TokenizerFiles::default() },
    };
    let template = ModelTemplate::from_files(TemplateFiles {
        tokenizer_config: file.filter(|_| which % 3 == 0),
        ..TemplateFiles::default()
    });
    let tokenizer = Tokenizer::from_bytes(SOUND, "tokenizer.json").expect("a sound tokenizer");
    if let (Ok(tokenizer), Ok(Some(template))) = (tokenizer.with_files(files), template) {
        let _ = tokenizer.with_template(&template).encode("a");
    }
    Corpus::Keep
});
