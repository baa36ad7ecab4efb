#![expect(clippy::disallowed_methods, reason = "tests write their own input files")]

use super::*;
use crate::chat::{ChatTemplate, Preamble};
use crate::formats::Format;
use crate::jinja::ModelTemplate;
use crate::preview::{Preview, PreviewStyle};
use crate::sample::IGNORE;
use crate::test_tokenizer::tokenizer;

fn load(format: Format, lines: &[&str], options: &SampleOptions) -> Result<Dataset, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    std::fs::write(&path, lines.join("\n")).unwrap();
    let prefix = format!("{}/", folder.path().display());
    Dataset::load(&[SourceFile::new(path, format)], tokenizer(), options)
        .map_err(|error| error.to_string().replace(&prefix, ""))
}

fn options(max_seq_len: usize, overlong: Overlong) -> SampleOptions {
    SampleOptions { overlong, ..SampleOptions::new(max_seq_len) }
}

/// Rows of text of these (even) lengths in tokens: a digit and a space are a token each.
fn text_rows(lengths: &[usize]) -> Vec<String> {
    let digits = |tokens: usize| "1 ".repeat(tokens / 2);
    lengths.iter().map(|&n| format!(r#"{{"text": "{}"}}"#, digits(n - 2))).collect()
}

fn shown(sample: &Sample) -> String {
    Preview { tokenizer: tokenizer(), masked: None }.whole(sample, PreviewStyle::Plain).unwrap()
}

const CHAT: &str = r#"{"messages": [{"role": "user", "content": "Fee?"}, {"role": "assistant", "content": "12 <|eot_id|>\u001b[0m"}]}"#;

#[test]
fn each_format_has_the_ids_and_targets_of_its_contract() {
    let tokenizer = tokenizer();
    let encode = |text: &str| tokenizer.encode(text).unwrap();
    let (bos, eos) = (tokenizer.opening()[0], tokenizer.closing()[0]);
    let options = SampleOptions::new(500);

    let row = r#"{"prompt": "The fee is", "completion": " 12 euros."}"#;
    let sample = &load(Format::Completion, &[row], &options).unwrap().samples.at(0);
    let (prompt, completion) = (encode("The fee is"), encode(" 12 euros."));
    assert_eq!(sample.tokens, [&[bos], &prompt[..], &completion, &[eos]].concat());
    let masked = 1 + prompt.len();
    assert!(sample.labels[..masked].iter().all(|&label| label == IGNORE));
    let ids: Vec<i32> = sample.tokens.iter().map(|&id| id as i32).collect();
    assert_eq!(sample.labels[masked..], ids[masked..]);

    let sample = &load(Format::Text, &[r#"{"text": "The fee"}"#], &options).unwrap().samples.at(0);
    assert_eq!(sample.tokens, [&[bos], &encode("The fee")[..], &[eos]].concat());
    assert_eq!(sample.targets(), sample.tokens.len() - 1);

    let bare = SampleOptions { chat: ChatTemplate::built_in(Preamble::None), ..options };
    let sample = &load(Format::Messages, &[CHAT], &bare).unwrap().samples.at(0);
    insta::assert_snapshot!(shown(sample), @r"
    <|begin_of_text|><|start_header_id|>user<|end_header_id|>

    Fee?<|eot_id|><|start_header_id|>assistant<|end_header_id|>

    ⟦12 \<|eot_id|>\u{1b}[0m<|eot_id|>⟧
    ");
    let row = r#"{"instruction": "Add.", "input": "1 2", "output": "3"}"#;
    let sample = &load(Format::Alpaca, &[row], &bare).unwrap().samples.at(0);
    insta::assert_snapshot!(shown(sample), @r"
    <|begin_of_text|><|start_header_id|>user<|end_header_id|>

    Add.
    1 2<|eot_id|><|start_header_id|>assistant<|end_header_id|>

    ⟦3<|eot_id|>⟧
    ");
}

#[test]
fn colours_wrap_targets_and_control_tokens() {
    let bare =
        SampleOptions { chat: ChatTemplate::built_in(Preamble::None), ..SampleOptions::new(100) };
    let row = r#"{"messages": [{"role": "assistant", "content": "12"}]}"#;
    let sample = &load(Format::Messages, &[row], &bare).unwrap().samples.at(0);
    let text = Preview { tokenizer: tokenizer(), masked: None }
        .whole(sample, PreviewStyle::Colour)
        .unwrap();
    insta::assert_snapshot!(text.replace('\x1b', "^"), @r"
    ^[2m<|begin_of_text|>^[0m^[2m<|start_header_id|>^[0massistant^[2m<|end_header_id|>^[0m

    ^[32m12^[0m^[2;32m<|eot_id|>^[0m
    ");
}

#[test]
fn train_on_inputs_makes_everything_but_the_first_token_a_target() {
    let all = SampleOptions { train_on_inputs: true, ..SampleOptions::new(500) };
    let sample = &load(Format::Messages, &[CHAT], &all).unwrap().samples.at(0);
    assert_eq!(sample.labels[0], IGNORE);
    assert_eq!(sample.targets(), sample.tokens.len() - 1);
}

#[test]
fn a_turn_that_is_not_to_be_learnt_is_given_and_not_a_target() {
    let bare =
        SampleOptions { chat: ChatTemplate::built_in(Preamble::None), ..SampleOptions::new(500) };
    let row = r#"{"messages": [{"role": "user", "content": "Fee?"}, {"role": "assistant", "content": "1", "weight": 0},
        {"role": "user", "content": "No."}, {"role": "assistant", "content": "12"}]}"#.replace('\n', "");
    let sample = &load(Format::Messages, &[&row], &bare).unwrap().samples.at(0);
    insta::assert_snapshot!(shown(sample), @r"
    <|begin_of_text|><|start_header_id|>user<|end_header_id|>

    Fee?<|eot_id|><|start_header_id|>assistant<|end_header_id|>

    1<|eot_id|><|start_header_id|>user<|end_header_id|>

    No.<|eot_id|><|start_header_id|>assistant<|end_header_id|>

    ⟦12<|eot_id|>⟧
    ");
    let own = ModelTemplate::from_text(MARKED, "t.jinja", "").unwrap();
    let plain = MARKED.replace("{% generation %}", "").replace("{% endgeneration %}", "");
    let plain = ModelTemplate::from_text(&plain, "t.jinja", "").unwrap();
    for own in [own, plain] {
        let chat = ChatTemplate::default().with_own(Some(&own.into()));
        let sample = &load(Format::Messages, &[&row], &SampleOptions { chat, ..bare.clone() });
        let sample = &sample.as_ref().unwrap().samples.at(0);
        assert_eq!(
            shown(sample),
            "user: Fee?<|eot_id|>assistant: 1<|eot_id|>user: No.<|eot_id|>assistant: ⟦12<|eot_id|>⟧"
        );
    }
    let all = SampleOptions { train_on_inputs: true, ..bare };
    insta::assert_snapshot!(load(Format::Messages, &[&row], &all).unwrap_err(), @"a.jsonl:1: a turn is not to be learnt (`weight: 0`), but `train_on_inputs` learns every token; give up one of the two");
    let nothing = r#"{"messages": [{"role": "assistant", "content": "1", "weight": 0}]}"#;
    let dropped = SampleOptions { allow_empty_targets: true, train_on_inputs: false, ..all };
    let statistics = load(Format::Messages, &[nothing, &row], &dropped).unwrap().statistics;
    assert_eq!((statistics.rows, statistics.dropped_without_targets), (2, 1));
}

/// Every turn as its role and text; the assistant's marked as what the model writes.
const MARKED: &str = "{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|eot_id|>{% endgeneration %}{% else %}{{ m.content }}<|eot_id|>{% endif %}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";

#[test]
fn rows_with_an_empty_answer_are_dropped_and_counted_where_that_is_allowed() {
    let empty = CHAT.replace("12 <|eot_id|>\\u001b[0m", "");
    let options = SampleOptions { allow_empty_targets: true, ..SampleOptions::new(500) };
    let dataset = load(Format::Messages, &[CHAT, &empty, CHAT], &options).unwrap();
    let statistics = &dataset.statistics;
    assert_eq!((statistics.rows, statistics.samples, statistics.dropped_empty), (3, 2, 1));
    assert_eq!(statistics.files[0].rows, 3);
    insta::assert_snapshot!(load(Format::Messages, &[&empty, &empty], &options).unwrap_err(), @"all labels are masked: none of the 2 rows has a target token, so there is no loss to train on");
    insta::assert_snapshot!(load(Format::Messages, &[CHAT, &empty], &SampleOptions::new(500)).unwrap_err(), @"a.jsonl:2: the assistant's answer in turn 2 is empty: the model would learn to say nothing; remove the row, or allow such rows to be dropped (`data.allow_empty_targets: true`)");
}

#[test]
fn a_system_prompt_is_given_to_conversations_without_one() {
    let options =
        SampleOptions { system_prompt: Some("Be brief.".into()), ..SampleOptions::new(500) };
    let own = r#"{"messages": [{"role": "system", "content": "Own."}, {"role": "assistant", "content": "a"}]}"#;
    let dataset = load(Format::Messages, &[CHAT, own], &options).unwrap();
    assert!(shown(&dataset.samples.at(0)).contains("\n\nBe brief.<|eot_id|>"));
    assert!(shown(&dataset.samples.at(1)).contains("\n\nOwn.<|eot_id|>"));
}

#[test]
fn rows_that_are_too_long_are_reported_with_all_lengths() {
    let rows = text_rows(&[12, 30, 72, 152, 22]);
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let error = load(Format::Text, &rows, &options(64, Overlong::Error)).unwrap_err();
    insta::assert_snapshot!(error, @r"
    a.jsonl:3: the row has 72 tokens, but max_seq_len is 64; 2 of 5 rows are too long, the longest has 152 (a.jsonl:4)
           tokens      rows
             1–64         3 ██████████████████████████████
           65–128         1 ██████████
          129–256         1 ██████████
    raise `max_seq_len`, or choose what happens to them: `overlong: drop`, `truncate_left`, `truncate_right` or `split`
    ");
}

#[test]
fn every_policy_does_what_its_name_says() {
    let rows = text_rows(&[12, 30]);
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let get = |policy| load(Format::Text, &rows, &options(20, policy)).unwrap();
    let whole = load(Format::Text, &rows, &options(30, Overlong::Error)).unwrap().samples;
    let long = &whole.at(1);
    assert_eq!(long.tokens.len(), 30);

    let dropped = get(Overlong::Drop);
    assert_eq!((dropped.samples.len(), dropped.statistics.dropped_overlong), (1, 1));
    assert_eq!(dropped.statistics.lengths.max, 30);

    let right = get(Overlong::TruncateRight);
    assert_eq!(right.samples.at(1).tokens, long.tokens[..20]);
    assert_eq!(right.samples.at(1).labels, long.labels[..20]);
    assert_eq!(right.statistics.truncated, 1);

    let left = get(Overlong::TruncateLeft);
    assert_eq!(left.samples.at(1).tokens[0], tokenizer().bos().unwrap());
    assert_eq!(left.samples.at(1).tokens[1..], long.tokens[11..]);
    assert_eq!(left.samples.at(1).labels[..2], [IGNORE; 2]);
    assert_eq!(left.samples.at(1).labels[2..], long.labels[12..]);

    let split = get(Overlong::Split);
    assert_eq!((split.samples.len(), split.statistics.split), (3, 1));
    assert_eq!(
        [&split.samples.at(1).tokens[..], &split.samples.at(2).tokens].concat(),
        long.tokens
    );
    let mut labels = long.labels.clone();
    // Nothing stands before the first token of a part that could predict it.
    labels[20] = IGNORE;
    assert_eq!([&split.samples.at(1).labels[..], &split.samples.at(2).labels].concat(), labels);
}

#[test]
fn rows_and_datasets_with_nothing_to_learn_are_errors() {
    let right = options(16, Overlong::TruncateRight);
    let error = load(Format::Messages, &[CHAT], &right).unwrap_err();
    insta::assert_snapshot!(error, @"a.jsonl:1: no target token is left in this row (16 tokens, after cutting it to `max_seq_len`): nothing would be learnt from it; fix the row, raise `max_seq_len`, or allow such rows to be dropped");

    let allowed = SampleOptions { allow_empty_targets: true, ..right };
    insta::assert_snapshot!(load(Format::Messages, &[CHAT], &allowed).unwrap_err(), @"all labels are masked: none of the 1 rows has a target token, so there is no loss to train on");
    let short = r#"{"messages": [{"role": "assistant", "content": "a"}]}"#;
    let bare = SampleOptions { chat: ChatTemplate::built_in(Preamble::None), ..allowed };
    let long_question = CHAT.replace("Fee?", &"1 ".repeat(20));
    let dataset = load(Format::Messages, &[short, &long_question], &bare).unwrap();
    assert_eq!((dataset.samples.len(), dataset.statistics.dropped_without_targets), (1, 1));

    let rows = text_rows(&[12]);
    let drop = options(8, Overlong::Drop);
    insta::assert_snapshot!(load(Format::Text, &[&rows[0]], &drop).unwrap_err(), @"the dataset is empty: all 1 rows are longer than max_seq_len 8 and were dropped; raise it");
    insta::assert_snapshot!(load(Format::Text, &[&rows[0]], &options(1, Overlong::Drop)).unwrap_err(), @"max_seq_len is 1, but a row needs at least 2 tokens to hold one prediction");
    insta::assert_snapshot!(load(Format::Messages, &[short, r#"{"messages": [{"role": "assistant", "content": "a"}], "tools": [{}]}"#], &SampleOptions::new(99)).unwrap_err(), @"a.jsonl:2: `tools` need a user turn right after the system prompt: the template puts their definitions there");
}

#[test]
fn statistics_count_what_is_trained_on() {
    let rows = text_rows(&[12, 30, 22]);
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let dataset = load(Format::Text, &rows, &options(20, Overlong::TruncateRight)).unwrap();
    let statistics = &dataset.statistics;
    assert_eq!((statistics.rows, statistics.samples), (3, 3));
    assert_eq!(statistics.tokens, dataset.lengths().iter().sum::<usize>());
    assert_eq!(
        statistics.targets,
        dataset.samples.iter().map(|sample| sample.unwrap().targets()).sum::<usize>()
    );
    assert_eq!((statistics.files[0].rows, statistics.files[0].tokens), (3, statistics.tokens));
    let text = statistics.to_string();
    let folder = statistics.files[0].path.parent().unwrap().display().to_string() + "/";
    let text = text.replace(&folder, "").replacen(&" ".repeat(folder.len()), "", 1);
    insta::assert_snapshot!(text, @r"
    rows 3, samples 3
    tokens 52, targets 49 (94.2 %)
    length: mean 21.3, min 12, p50 22, p90 30, p99 30, max 30
    rows truncated: 2
    file         rows      tokens     targets   learnt
    a.jsonl         3          52          49   94.2 %
           tokens      rows
             1–64         3 ██████████████████████████████
    ");
}

#[test]
fn reading_in_parts_equals_reading_at_once_on_any_number_of_threads() {
    let lengths: Vec<usize> = (0..ROWS_AT_ONCE + 50).map(|i| 4 + 2 * (i % 7)).collect();
    let rows = text_rows(&lengths);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    std::fs::write(&path, rows.join("\n")).unwrap();
    let sources = [SourceFile::new(path, Format::Text)];
    let options = SampleOptions::new(100);
    let whole = Dataset::load(&sources, tokenizer(), &options).unwrap();
    let crate::formats::ReadRows { rows: read, files } =
        crate::formats::read_rows(&sources).unwrap();
    let alone = read.iter().map(|(row, origin)| encode_row(row, *origin, tokenizer(), &options));
    let alone: Vec<Sample> = alone.filter_map(Result::ok).collect();
    assert_eq!(alone, whole.samples.iter().collect::<Result<Vec<_>, _>>().unwrap());
    assert_eq!(files[0].digest, whole.files[0]);
    assert_eq!(whole.rows.len(), read.len());
    assert_eq!(whole.lengths(), lengths);
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(one.install(|| Dataset::load(&sources, tokenizer(), &options)).unwrap(), whole);
}
