use std::sync::OnceLock;

use proptest::prelude::*;

use super::super::Tokenizer;
use super::super::bounds::Offsets;
use crate::test_tokenizer::{json, tokenizer};

/// The built-in model's tokenizer, of some 1,500 merges.
fn built_in() -> &'static Tokenizer {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    TOKENIZER.get_or_init(|| {
        let json = include_bytes!("../../../../model/builtin/quickstart/tokenizer.json");
        Tokenizer::from_bytes(json, "quickstart/tokenizer.json").unwrap()
    })
}

/// The test tokenizer with other values in its tokenizer.json.
fn changed(change: impl FnOnce(&mut serde_json::Value)) -> Tokenizer {
    let mut value = serde_json::from_str(json()).unwrap();
    change(&mut value);
    Tokenizer::from_bytes(value.to_string().as_bytes(), "changed/tokenizer.json").unwrap()
}

/// Where ids or ranges are not those of the reference crate, what both give.
fn differs(tokenizer: &Tokenizer, text: &str) -> Option<String> {
    let byte_level = tokenizer.byte_level.as_ref().unwrap();
    let reference = tokenizer.read(text, true, Offsets::Yes).unwrap();
    let ranges = reference.get_offsets().iter().map(|&(start, end)| start..end);
    let expected: Vec<_> = reference.get_ids().iter().copied().zip(ranges).collect();
    let found = byte_level.encode_with_offsets(text);
    let ids = found.iter().map(|(id, _)| *id).collect::<Vec<_>>();
    let same = found == expected && byte_level.encode(text) == ids;
    (!same).then(|| format!("{text:?}: {found:?}, expected {expected:?}"))
}

/// Texts of what splits, merges and spells tokens, of scripts, and of anything.
fn texts() -> impl Strategy<Value = String> {
    let words = "(the|office|fee|deadline|Environment|'[sStTlLrReEvVmMdDſ]{1,3}|ing|tion|[a-z]{1,9}|[A-Z][a-z]{0,9})";
    let part = format!(
        r"({words}|[ \n\r\t]{{1,9}}|[0-9٣½]{{1,7}}|[.,;!?<|>_'’()-]{{1,5}}|<\|eot_id\|>|\p{{L}}{{1,4}}|\p{{M}}|\p{{So}}|\p{{Any}})"
    );
    proptest::collection::vec(proptest::string::string_regex(&part).unwrap(), 0..24)
        .prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn ids_and_ranges_are_those_of_the_reference_crate(text in texts()) {
        prop_assert_eq!(differs(tokenizer(), &text), None);
        prop_assert_eq!(differs(built_in(), &text), None);
    }

    #[test]
    fn long_pieces_are_merged_as_short_ones(
        unit in "[a-e ]{1,4}|the office|[é中🙂]{1,2}", count in 1_usize..90, more in "[a-z]{0,30}",
    ) {
        let text = unit.repeat(count) + &more;
        prop_assert_eq!(differs(tokenizer(), &text), None);
        prop_assert_eq!(differs(built_in(), &text.replace(' ', "")), None);
    }
}

#[test]
fn a_file_that_merges_whole_tokens_too_is_encoded_as_its_reference_does() {
    let tokenizer = changed(|value| value["model"]["ignore_merges"] = false.into());
    for text in ["The office answers questions about fees, deadlines.", " residence  certificate\n"]
    {
        assert_eq!(differs(&tokenizer, text), None);
    }
    // A token that no merge makes.
    let whole = |ignores: bool| {
        changed(|value| {
            value["model"]["ignore_merges"] = ignores.into();
            let vocabulary = value["model"]["vocab"].as_object_mut().unwrap();
            let id = vocabulary.remove("Ġdeadline").unwrap();
            vocabulary.insert("qqq".to_owned(), id);
            let merges = value["model"]["merges"].as_array_mut().unwrap();
            merges.retain(|pair| pair.as_array().unwrap().iter().all(|side| side != "Ġdeadline"));
            merges.retain(|pair| {
                let sides = pair.as_array().unwrap().iter().map(|side| side.as_str().unwrap());
                sides.collect::<String>() != "Ġdeadline"
            });
        })
    };
    for ignores in [true, false] {
        let tokenizer = whole(ignores);
        assert_eq!(differs(&tokenizer, "qqq deadline qqqq"), None);
        assert_eq!(tokenizer.encode("qqq").unwrap().len(), if ignores { 1 } else { 3 });
    }
}

#[test]
fn merges_on_lines_are_those_in_lists() {
    let lines = changed(|value| {
        for pair in value["model"]["merges"].as_array_mut().unwrap() {
            let sides: Vec<&str> =
                pair.as_array().unwrap().iter().filter_map(|side| side.as_str()).collect();
            *pair = sides.join(" ").into();
        }
        value["model"]["merges"].as_array_mut().unwrap().insert(0, "#version: 0.2".into());
    });
    let text = "The office answers questions about fees.";
    assert_eq!(differs(&lines, text), None);
    assert_eq!(lines.encode(text).unwrap(), tokenizer().encode(text).unwrap());
}

#[test]
fn other_kinds_are_left_to_the_reference_crate() {
    type Change = fn(&mut serde_json::Value);
    let kinds: [(&str, Change); 5] = [
        ("normalizer", |value| value["normalizer"] = serde_json::json!({"type": "NFC"})),
        ("expression", |value| {
            value["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\s+|\S+".into();
        }),
        ("prefix", |value| {
            value["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = true.into();
        }),
        ("second expression", |value| {
            value["pre_tokenizer"]["pretokenizers"][1]["use_regex"] = true.into();
        }),
        ("lost bytes", |value| {
            let vocabulary = value["model"]["vocab"].as_object_mut().unwrap();
            let id = vocabulary.remove("ÿ").unwrap();
            vocabulary.insert("no byte".to_owned(), id);
        }),
    ];
    assert!(tokenizer().table_bytes().is_some_and(|bytes| bytes < 1 << 20));
    for (kind, change) in kinds {
        assert_eq!(changed(change).table_bytes(), None, "{kind}");
    }
}

#[test]
fn ordinary_added_tokens_are_found_as_the_reference_crate_finds_them() {
    let tokenizer = changed(|value| {
        let id = 256 + value["model"]["vocab"].as_object().unwrap().len();
        value["added_tokens"].as_array_mut().unwrap().push(serde_json::json!({
            "id": id, "content": "<think>", "single_word": false, "lstrip": false, "rstrip": true,
            "normalized": true, "special": false,
        }));
    });
    let think = tokenizer.id("<think>").unwrap();
    for (text, count) in [("a <think>  b", 1), ("a <thin k>", 0), ("<think><think>", 2)] {
        let ids = tokenizer.encode(text).unwrap();
        assert_eq!(ids.iter().filter(|&&id| id == think).count(), count, "{text}");
        assert_eq!(ids, tokenizer.read(text, true, Offsets::No).unwrap().get_ids(), "{text}");
    }
}

#[test]
fn ten_million_characters_of_one_piece_come_to_an_end() {
    let byte_level = built_in().byte_level.as_ref().unwrap();
    for unit in [" ", "a", "é"] {
        let text = unit.repeat(10_000_000 / unit.len());
        let ids = byte_level.encode(&text);
        let bytes: usize = ids.iter().map(|&id| byte_level.vocabulary.bytes(id).len()).sum();
        assert_eq!(bytes, text.len(), "{unit:?}");
    }
}
