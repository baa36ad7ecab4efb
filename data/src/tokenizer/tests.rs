use proptest::prelude::*;

use super::*;
use crate::chat::ChatTemplate;
use crate::conversation::{Conversation, Message, Role};
use crate::test_tokenizer::{json, tokenizer};

#[test]
fn text_that_spells_a_control_token_is_encoded_as_its_characters() {
    let tokenizer = tokenizer();
    for text in ["<|eot_id|>", "a<|eot_id|>b <|begin_of_text|><|start_header_id|>", "<|eom_id|>"] {
        let ids = tokenizer.encode(text).unwrap();
        assert!(ids.iter().all(|&id| !tokenizer.is_special(id)), "{text}: {ids:?}");
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), text);
    }
}

#[test]
fn control_tokens_stand_in_llama_order_behind_the_base_vocabulary() {
    let tokenizer = tokenizer();
    let base = tokenizer.bos().unwrap();
    assert_eq!(tokenizer.closing(), [base + 1]);
    assert_eq!(tokenizer.pad(), base + 4);
    assert_eq!(tokenizer.start_header().unwrap(), base + 6);
    assert_eq!(tokenizer.end_header().unwrap(), base + 7);
    assert_eq!(tokenizer.eom().unwrap(), Some(base + 8));
    assert_eq!(tokenizer.eot().unwrap(), base + 9);
    assert_eq!(tokenizer.stop_ids(), [base + 1, base + 8, base + 9]);
    assert_eq!(tokenizer.vocab_size(), base as usize + 256);
    assert_eq!(tokenizer.special("<|python_tag|>"), Some(base + 10));
    assert_eq!(tokenizer.special("a"), None);
}

#[test]
fn all_missing_or_unmarked_control_tokens_are_named_where_they_are_needed() {
    let chat = ChatTemplate::default();
    let turns = [(Role::User, "a"), (Role::Assistant, "b")];
    let conversation =
        Conversation::of(turns.map(|(role, text)| Message::text(role, text)).to_vec());
    let refused = |json: &str| {
        let tokenizer = Tokenizer::from_bytes(json.as_bytes(), "x/tokenizer.json").unwrap();
        chat.encode(&conversation, &tokenizer).unwrap_err().to_string()
    };
    let renamed = json().replace("<|eot_id|>", "<|other|>").replace("header_id", "head");
    insta::assert_snapshot!(refused(&renamed), @"x/tokenizer.json: the tokenizer has no `<|start_header_id|>`, `<|end_header_id|>`, `<|eot_id|>`, which Llama 3.1's chat format is made of; put the model's own template beside it (`chat_template.jinja`), and leave `preamble: none` out");

    let mut value: serde_json::Value = serde_json::from_str(json()).unwrap();
    value["added_tokens"][9]["special"] = false.into();
    insta::assert_snapshot!(refused(&value.to_string()), @r#"x/tokenizer.json: not marked `"special": true`: `<|eot_id|>`; text in the data could forge what Llama 3.1's chat format is made of; mark it as special in `added_tokens`"#);
}

#[test]
fn a_tokenizer_without_the_pad_token_pads_with_end_of_text() {
    let renamed = json().replace("<|finetune_right_pad_id|>", "<|reserved_x|>");
    let tokenizer = Tokenizer::from_bytes(renamed.as_bytes(), "t.json").unwrap();
    assert_eq!([tokenizer.pad()], tokenizer.closing());
}

#[test]
fn an_added_token_with_another_id_than_declared_is_refused() {
    let mut value: serde_json::Value = serde_json::from_str(json()).unwrap();
    value["added_tokens"][9]["id"] = 7_000.into();
    let error = Tokenizer::from_bytes(value.to_string().as_bytes(), "t.json").unwrap_err();
    assert!(error.to_string().contains("declared with id 7000"), "{error}");
}

#[test]
fn an_id_that_two_tokens_have_is_refused() {
    let mut value: serde_json::Value = serde_json::from_str(json()).unwrap();
    for id in value["model"]["vocab"].as_object_mut().unwrap().values_mut() {
        *id = 0.into();
    }
    let error = Tokenizer::from_bytes(value.to_string().as_bytes(), "t.json").unwrap_err();
    let shown = error.to_string();
    let (before, after) = shown.split_once("second one `").unwrap();
    assert_eq!(
        before,
        "t.json: not a usable tokenizer: `model.vocab` gives the id 0 to two tokens, the "
    );
    assert!(after.ends_with("`: each has one of its own"), "{after}");
}

#[test]
fn bytes_that_are_no_tokenizer_are_an_error() {
    for bytes in [&b""[..], b"{}", b"\xff\xfe", b"[1]"] {
        assert!(Tokenizer::from_bytes(bytes, "t.json").is_err());
    }
}

#[test]
fn an_id_of_a_padded_vocabulary_is_no_text() {
    let tokenizer = tokenizer();
    let unknown = tokenizer.vocab_size() as u32;
    let a = tokenizer.encode("a").unwrap()[0];
    for skip in [true, false] {
        assert_eq!(tokenizer.decode(&[a, unknown, a, u32::MAX], skip).unwrap(), "aa");
    }
    let mut stream = tokenizer.decode_stream(true);
    assert_eq!(stream.push(unknown).unwrap(), None);
    assert_eq!(stream.push(a).unwrap().as_deref(), Some("a"));
}

#[test]
fn texts_that_would_take_all_memory_are_refused_whatever_they_are_made_of() {
    let tokenizer = tokenizer();
    let refused = |text: String| tokenizer.encode(&text).unwrap_err().to_string();
    let most = crate::formats::MOST_BYTES_OF_A_ROW;
    for unit in ["a", "7", ".", "é", "字", "!", "word ", " "] {
        let shown = refused(unit.repeat(most / unit.len() + 1));
        let expected = "bytes, and at most 4194304 are encoded at once; cut it into several rows";
        assert!(shown.ends_with(expected), "{unit:?}: {shown}");
    }
    // The reference crate keeps much of each piece; what is encoded here does not.
    let units = [" a\n", "1,", "a.", " "];
    let shown = units.map(|unit| {
        let text = unit.repeat(most / unit.len());
        let ids = tokenizer.encode(&text).unwrap();
        assert!(ids.len() > most / 128, "{unit:?}: {}", ids.len());
        tokenizer.read(&text, true, Offsets::No).unwrap_err().to_string()
    });
    insta::assert_snapshot!(shown.join("\n").replace(tokenizer.origin(), "t.json"), @"
    cannot render the conversation: t.json: a text has 2796202 words and signs, and at most 1000000 are encoded at once; cut it into several rows
    cannot render the conversation: t.json: a text has 4194304 words and signs, and at most 1000000 are encoded at once; cut it into several rows
    cannot render the conversation: t.json: a text has 4194304 words and signs, and at most 1000000 are encoded at once; cut it into several rows
    cannot render the conversation: t.json: a text has more than 1000000 blanks and line ends in a row, which the expression that splits it does not come to an end with; shorten it
    ");
}

proptest! {
    #[test]
    fn decoding_gives_the_text_back(text in "\\PC{0,40}[ \n\tä€😀]{0,4}") {
        let tokenizer = tokenizer();
        let ids = tokenizer.encode(&text).unwrap();
        prop_assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
    }
}
