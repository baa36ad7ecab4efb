//! What Meta's file is read into, held against tiktoken itself and against a rewriting of its loop.

use std::fmt::Write as _;
use std::sync::OnceLock;

use proptest::prelude::*;

use super::*;

#[derive(serde::Deserialize)]
struct Fixture {
    model: String,
    rows: Vec<Vector>,
}

#[derive(serde::Deserialize)]
struct Vector {
    text: String,
    ids: Vec<u32>,
}

fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let json = include_str!("../../tests/fixtures/llama3_tiktoken.json");
        serde_json::from_str(json).unwrap()
    })
}

fn read(file: &str) -> Result<Tokenizer, Error> {
    Tokenizer::from_tiktoken(file.as_bytes(), "m/tokenizer.model")
}

fn encoded(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits =
            group.iter().enumerate().map(|(i, &b)| u32::from(b) << (16 - 8 * i)).sum::<u32>();
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= group.len() { digit.into() } else { '=' });
        }
    }
    text
}

/// The file of the 256 single bytes and then these tokens.
fn file(tokens: &[&[u8]]) -> String {
    let mut text = String::new();
    let bytes: Vec<[u8; 1]> = (0..=u8::MAX).map(|byte| [byte]).collect();
    let all = bytes.iter().map(<[u8; 1]>::as_slice).chain(tokens.iter().copied());
    for (rank, token) in all.enumerate() {
        writeln!(text, "{} {rank}", encoded(token)).unwrap();
    }
    text
}

#[test]
fn ids_are_those_of_tiktoken() {
    let Fixture { model, rows } = fixture();
    let tokenizer = read(model).unwrap();
    assert!(rows.len() > 140);
    for Vector { text, ids } in rows {
        assert_eq!(&tokenizer.encode(text).unwrap(), ids, "{text:?}");
        assert_eq!(&tokenizer.decode(ids, false).unwrap(), text);
    }
}

#[test]
fn special_tokens_stand_behind_the_ranks_and_text_does_not_make_them() {
    let tokenizer = read(&fixture().model).unwrap();
    let ranks = fixture().model.lines().count() as u32;
    assert_eq!(tokenizer.vocab_size(), ranks as usize + 256);
    assert_eq!(tokenizer.bos(), Some(ranks));
    assert_eq!(tokenizer.pad(), ranks + 4);
    assert_eq!(tokenizer.eot().unwrap(), ranks + 9);
    assert_eq!(tokenizer.special("<|reserved_special_token_247|>"), Some(ranks + 255));
    let ids = tokenizer.encode("<|eot_id|>").unwrap();
    assert!(ids.iter().all(|&id| id < ranks), "{ids:?}");
}

#[test]
fn order_of_lines_blank_lines_and_line_ends_do_not_matter() {
    let model = &fixture().model;
    let plain = read(model).unwrap();
    let mut lines: Vec<&str> = model.lines().collect();
    lines.reverse();
    let other = read(&format!("\r\n{}", lines.join("\r\n"))).unwrap();
    for Vector { text, .. } in &fixture().rows {
        assert_eq!(plain.encode(text).unwrap(), other.encode(text).unwrap(), "{text:?}");
    }
    assert_ne!(plain.sha256(), other.sha256());
}

#[test]
fn the_built_in_vocabulary_gives_the_same_ids_from_either_file() {
    let json = include_str!("../../../model/builtin/quickstart/tokenizer.json");
    let from_json = Tokenizer::from_bytes(json.as_bytes(), "tokenizer.json").unwrap();
    let alphabet = Alphabet::new();
    let tokens: Vec<Vec<u8>> = (0..from_json.bos().unwrap())
        .map(|id| alphabet.bytes(&from_json.token(id).unwrap()).unwrap())
        .collect();
    let mut model = String::new();
    for (rank, token) in tokens.iter().enumerate() {
        writeln!(model, "{} {rank}", encoded(token)).unwrap();
    }
    let from_model = read(&model).unwrap();
    assert_eq!(from_model.vocab_size(), from_json.vocab_size());
    for id in 0..from_json.vocab_size() as u32 {
        assert_eq!(from_model.token(id), from_json.token(id));
        assert_eq!(from_model.is_special(id), from_json.is_special(id));
    }
    let quickstart = [crate::quickstart::TRAIN, crate::quickstart::GENERAL];
    for text in quickstart.iter().flat_map(|text| text.lines()) {
        assert_eq!(from_model.encode(text).unwrap(), from_json.encode(text).unwrap(), "{text:?}");
    }
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_line() {
    let good = file(&[b"ab"]);
    let problem = |file: String| read(&file).unwrap_err().to_string();
    let messages = [
        String::new(),
        good.replace("YQ== 97\n", "Y*== 97\n"),
        good.replace("YQ== 97\n", "YR== 97\n"),
        good.replace("YQ== 97\n", "YQ 97\n"),
        good.replace("YQ== 97\n", "YQ== +97\n"),
        good.replace("YQ== 97\n", "YQ== 4294967296\n"),
        good.replace("YQ== 97\n", "YQ==97\n"),
        good.replace("YQ== 97\n", " 97\n"),
        good.replace("YQ== 97\n", "YQ== 98\n"),
        good.replace("YQ== 97\n", "YWI= 97\n"),
        good.replace("YQ== 97\n", "YWE= 97\n"),
        good.replace("YWI= 256\n", "YWI= 300\n"),
        good.replace("YWI= 256\n", "YWI= 97\n"),
        format!("{} 0\n", encoded(&[7; LONGEST_TOKEN + 1])),
        file(&[b"ab", b"<|eot_id|>"]),
        "\n\u{e}\n\u{5}<unk>\u{15}".to_owned(),
    ]
    .map(problem)
    .join("\n");
    insta::assert_snapshot!(messages, @r#"
    m/tokenizer.model: not a usable tokenizer: the file holds no tokens; copy it again from the release
    m/tokenizer.model:98: "Y*==" is not base64; a Llama 3 tokenizer.model is needed
    m/tokenizer.model:98: "YR==" is not base64; a Llama 3 tokenizer.model is needed
    m/tokenizer.model:98: "YQ" is not base64; a Llama 3 tokenizer.model is needed
    m/tokenizer.model:98: the rank "+97" is not a number; a Llama 3 tokenizer.model is needed
    m/tokenizer.model:98: the rank "4294967296" is not a number; a Llama 3 tokenizer.model is needed
    m/tokenizer.model:98: expected a token in base64, one blank and its rank; a Llama 3 tokenizer.model is needed
    m/tokenizer.model:98: the token has 0 bytes, expected 1 to 512; a Llama 3 tokenizer.model is needed
    m/tokenizer.model:98: rank 98 stands here, but no line has rank 97
    m/tokenizer.model:257: the token of rank 256 is that of line 98 again
    m/tokenizer.model: not a usable tokenizer: the byte 0x61 has no token of its own, so not every text could be encoded; a Llama 3 tokenizer.model is needed
    m/tokenizer.model:257: rank 300 stands here, but no line has rank 256
    m/tokenizer.model:257: rank 97 is that of line 98 again
    m/tokenizer.model:1: the token has 513 bytes, expected 1 to 512; a Llama 3 tokenizer.model is needed
    m/tokenizer.model:258: the token spells the special token `<|eot_id|>`
    m/tokenizer.model:2: expected a token in base64, one blank and its rank; this is a SentencePiece model, as Llama 2 has: Graft is for Llama 3
    "#);
    let error = Tokenizer::from_tiktoken(b"IQ== 0\nIg\xff= 1\n", "t").unwrap_err();
    insta::assert_snapshot!(error, @"t:2: the line is not UTF-8; a Llama 3 tokenizer.model is needed");
}

/// tiktoken's loop on one piece: the leftmost adjacent pair of the lowest rank is joined.
fn reference(piece: &[u8], tokens: &HashMap<Vec<u8>, Ranked>) -> Vec<u32> {
    let rank = |token: &[u8]| tokens.get(token).map(|entry| entry.rank);
    let mut cuts: Vec<usize> = (0..=piece.len()).collect();
    if rank(piece).is_some() {
        cuts = vec![0, piece.len()];
    }
    while let Some((_, at)) = (1..cuts.len() - 1)
        .filter_map(|at| Some((rank(&piece[cuts[at - 1]..cuts[at + 1]])?, at)))
        .min()
    {
        cuts.remove(at);
    }
    cuts.windows(2).map(|ends| rank(&piece[ends[0]..ends[1]]).unwrap() as u32).collect()
}

/// Tokens as training makes them: each joins two that were there before.
fn learnt(joins: &[(usize, usize)]) -> Vec<Vec<u8>> {
    let mut tokens: Vec<Vec<u8>> = vec![b"a".to_vec(), b"b".to_vec(), b"c".to_vec()];
    for &(left, right) in joins {
        let token = [&tokens[left % tokens.len()][..], &tokens[right % tokens.len()]].concat();
        if token.len() <= 12 && !tokens.contains(&token) {
            tokens.push(token);
        }
    }
    tokens.split_off(3)
}

proptest! {
    #[test]
    fn base64_is_undone(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        prop_assert_eq!(base64(encoded(&bytes).as_bytes()), Some(bytes));
    }

    #[test]
    fn only_one_spelling_of_base64_is_taken(text in "[A-Da-d0-1+/=]{0,12}") {
        if let Some(bytes) = base64(text.as_bytes()) {
            prop_assert_eq!(encoded(&bytes), text);
        }
    }

    #[test]
    fn any_learnt_vocabulary_merges_as_tiktoken_does(
        joins in prop::collection::vec((0_usize..40, 0_usize..40), 0..30),
        text in "[abc]{1,24}",
    ) {
        let tokens = learnt(&joins);
        let tokens: Vec<&[u8]> = tokens.iter().map(Vec::as_slice).collect();
        let file = file(&tokens);
        let ranks = read_ranks(file.as_bytes(), "t").unwrap();
        let expected = reference(text.as_bytes(), &ranks);
        prop_assert_eq!(read(&file).unwrap().encode(&text).unwrap(), expected, "{:?}", tokens);
    }

    #[test]
    fn a_damaged_file_never_panics(
        at in any::<prop::sample::Index>(),
        removed in 0_usize..40,
        inserted in prop::collection::vec(any::<u8>(), 0..6),
    ) {
        let mut bytes = fixture().model.clone().into_bytes();
        let at = at.index(bytes.len());
        let end = (at + removed).min(bytes.len());
        bytes.splice(at..end, inserted);
        if let Ok(tokenizer) = Tokenizer::from_tiktoken(&bytes, "t") {
            prop_assert!(tokenizer.encode("The ferry").is_ok());
        }
    }

    #[test]
    fn bytes_of_no_file_at_all_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Tokenizer::from_tiktoken(&bytes, "t").is_err());
    }
}
