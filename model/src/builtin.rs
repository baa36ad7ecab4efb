//! Models inside the program, so that a first run needs no files.

/// Files of one embedded model, in the layout of a Hugging Face folder.
pub(crate) struct Builtin {
    pub(crate) name: &'static str,
    pub(crate) files: &'static [(&'static str, &'static [u8])],
}

/// Every embedded model.
pub(crate) static BUILTINS: [Builtin; 1] = [Builtin { name: "quickstart", files: QUICKSTART }];

/// Embeds one file at an address that every number type can be read from in place.
macro_rules! embedded {
    ($model:literal, $file:literal) => {{
        #[repr(C, align(64))]
        struct Aligned<T: ?Sized>(T);
        static FILE: &Aligned<[u8]> =
            &Aligned(*include_bytes!(concat!("../builtin/", $model, "/", $file)));
        ($file, &FILE.0)
    }};
}

/// A Llama-3.1-architecture model of a few million parameters, trained by this repository's own
/// recipe on text that it generates.
static QUICKSTART: &[(&str, &[u8])] = &[
    embedded!("quickstart", "LICENSE"),
    embedded!("quickstart", "NOTICE"),
    embedded!("quickstart", "config.json"),
    embedded!("quickstart", "generation_config.json"),
    embedded!("quickstart", "model.safetensors"),
    embedded!("quickstart", "tokenizer.json"),
    embedded!("quickstart", "tokenizer_config.json"),
];
