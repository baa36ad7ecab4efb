#![expect(clippy::disallowed_methods, reason = "tests write their own input files")]

use super::*;
use crate::chat::{ChatTemplate, Preamble};
use crate::dataset::Dataset;
use crate::formats::{Format, Row, SourceFile};
use crate::jinja::ModelTemplate;
use crate::preview::{Preview, PreviewStyle};
use crate::sample::SampleOptions;
use crate::test_tokenizer::tokenizer;

fn whole(sample: &crate::sample::Sample) -> String {
    Preview { tokenizer: tokenizer(), masked: None }.whole(sample, PreviewStyle::Plain).unwrap()
}

/// Which turns of `[system, user, assistant, user, assistant]` are learnt, where two of them are marked.
fn learnt(roles: &[Role], turns: Turns, marks: [&str; 2]) -> Result<Vec<bool>, String> {
    let [user, assistant] = marks;
    let row = format!(
        r#"{{"messages": [{{"role": "system", "content": "s"}}, {{"role": "user", "content": "q"{user}}},
            {{"role": "assistant", "content": "a"{assistant}}}, {{"role": "user", "content": "q"}},
            {{"role": "assistant", "content": "a"}}]}}"#
    );
    let Row::Conversation(mut row) = Format::Messages.parse_row(&row).unwrap() else {
        panic!("a conversation")
    };
    let train_on = TrainOn { roles: roles.iter().copied().collect(), turns };
    train_on.apply(&mut row).map_err(|problem| problem.to_string())?;
    Ok(row.messages.iter().map(|turn| turn.learnt).collect())
}

#[test]
fn turns_are_learnt_by_role_and_place_and_rows_take_some_out() {
    use Role::{Assistant, System, User};
    let of = |roles: &[Role], turns, marks, expected: [u8; 5]| {
        assert_eq!(learnt(roles, turns, marks), Ok(expected.map(|one| one == 1).to_vec()));
    };
    let (no, yes) = (r#", "weight": 0"#, r#", "train": true"#);
    of(&[Assistant], Turns::All, ["", ""], [0, 0, 1, 0, 1]);
    of(&[Assistant], Turns::Last, ["", ""], [0, 0, 0, 0, 1]);
    of(&[User, Assistant], Turns::All, ["", ""], [0, 1, 1, 1, 1]);
    of(&[User, Assistant], Turns::Last, ["", ""], [0, 0, 0, 0, 1]);
    of(&[User], Turns::Last, ["", ""], [0, 0, 0, 1, 0]);
    of(&[System], Turns::All, ["", ""], [1, 0, 0, 0, 0]);
    of(&[Assistant], Turns::All, ["", no], [0, 0, 0, 0, 1]);
    of(&[User, Assistant], Turns::All, [yes, no], [0, 1, 0, 1, 1]);
    of(&[Assistant], Turns::Last, [no, no], [0, 0, 0, 0, 1]);
}

#[test]
fn a_row_adds_no_turn_and_needs_one_that_is_learnt() {
    use Role::{Assistant, Tool, User};
    let refused = |roles: &[Role], turns, marks| learnt(roles, turns, marks).unwrap_err();
    let yes = r#", "train": true"#;
    insta::assert_snapshot!(refused(&[Assistant], Turns::All, [yes, ""]), @"turn 2 asks to be learnt, and is not the assistant's; remove its mark, or add `user` to `data.train_on.roles`");
    insta::assert_snapshot!(refused(&[User, Assistant], Turns::Last, ["", yes]), @"turn 3 asks to be learnt, and is not the last one of the user or the assistant, which `data.train_on.turns: last` learns alone; give up one of the two");
    insta::assert_snapshot!(refused(&[Tool], Turns::All, ["", ""]), @"the conversation has no turn of the tool, so there is nothing to learn from it");
}
/// A row with what is learnt of it between ⟦ and ⟧, in the built-in format without its preamble or by a
/// template of the model's own.
fn shown(
    format: Format,
    row: &str,
    train_on: &TrainOn,
    own: Option<&str>,
) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    std::fs::write(&path, row.replace('\n', "")).unwrap();
    let chat = match own {
        Some(text) => {
            let own = ModelTemplate::from_text(text, "t.jinja", "").unwrap();
            ChatTemplate::default().with_own(Some(&own.into()))
        }
        None => ChatTemplate::built_in(Preamble::None),
    };
    let options = SampleOptions { chat, ..SampleOptions::new(1_000) };
    let source = SourceFile::new(&path, format).with_train_on(train_on.clone());
    let dataset = Dataset::load(&[source], tokenizer(), &options)
        .map_err(|error| error.to_string().replace(&path.display().to_string(), "a.jsonl"))?;
    Ok(whole(&dataset.samples.sample(0).unwrap()))
}

const CHAT: &str = r#"{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Fee? "},
    {"role": "assistant", "content": "1"}, {"role": "user", "content": "No."}, {"role": "assistant", "content": "12"}]}"#;

/// Each role's header, its content and the end of a turn; the assistant's turns may be marked.
const PLAIN: &str = "{% for m in messages %}{{ m.role }}: {{ m.content | trim }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";
const MARKED: &str = "{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' %}{% generation %}{{ m.content | trim }}<|eot_id|>{% endgeneration %}{% else %}{{ m.content | trim }}<|eot_id|>{% endif %}{% endfor %}";

#[test]
fn the_built_in_format_and_the_models_own_learn_the_same_turns() {
    use Role::{Assistant, System, User};
    let of = |roles: &[Role], turns| TrainOn { roles: roles.iter().copied().collect(), turns };
    let cases = [
        of(&[Assistant], Turns::Last),
        of(&[User], Turns::All),
        of(&[System, User, Assistant], Turns::All),
        of(&[System], Turns::Last),
    ];
    let mut all = Vec::new();
    for train_on in &cases {
        let built_in = shown(Format::Messages, CHAT, train_on, None).unwrap();
        let [plain, marked] =
            [PLAIN, MARKED].map(|own| shown(Format::Messages, CHAT, train_on, Some(own)).unwrap());
        assert_eq!(plain, marked);
        // The two formats differ in what stands around the turns alone.
        let same = built_in
            .replace("<|begin_of_text|>", "")
            .replace("<|start_header_id|>", "")
            .replace("<|end_header_id|>\n\n", ": ");
        assert_eq!(same, plain);
        all.push(plain);
    }
    insta::assert_snapshot!(all.join("\n"), @"
    system: Be brief.<|eot_id|>user: Fee?<|eot_id|>assistant: 1<|eot_id|>user: No.<|eot_id|>assistant: ⟦12<|eot_id|>⟧
    system: Be brief.<|eot_id|>user: ⟦Fee?<|eot_id|>⟧assistant: 1<|eot_id|>user: ⟦No.<|eot_id|>⟧assistant: 12<|eot_id|>
    system: ⟦Be brief.<|eot_id|>⟧user: ⟦Fee?<|eot_id|>⟧assistant: ⟦1<|eot_id|>⟧user: ⟦No.<|eot_id|>⟧assistant: ⟦12<|eot_id|>⟧
    system: ⟦Be brief.<|eot_id|>⟧user: Fee?<|eot_id|>assistant: 1<|eot_id|>user: No.<|eot_id|>assistant: 12<|eot_id|>
    ");
}

#[test]
fn what_a_template_puts_around_a_content_is_not_learnt() {
    let row = r#"{"messages": [{"role": "user", "content": "Fee?"}, {"role": "assistant", "tool_calls": [{"function":
        {"name": "fee", "arguments": {}}}]}, {"role": "tool", "content": {"eur": 12}},
        {"role": "assistant", "content": "12"}], "tools": [{"name": "fee"}]}"#;
    let train_on = TrainOn { roles: [Role::User, Role::Tool].into(), turns: Turns::All };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    std::fs::write(&path, row.replace('\n', "")).unwrap();
    let source = SourceFile::new(&path, Format::Messages).with_train_on(train_on.clone());
    let dataset = Dataset::load(&[source], tokenizer(), &SampleOptions::new(1_000)).unwrap();
    let text = whole(&dataset.samples.sample(0).unwrap());
    let learnt: Vec<&str> =
        text.split('⟦').skip(1).map(|part| part.split('⟧').next().unwrap()).collect();
    assert_eq!(learnt, ["Fee?<|eot_id|>", "{\"eur\": 12}<|eot_id|>"]);

    // The last question stands in two places.
    let twice = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|eot_id|>{% endfor %}{{ messages[0].content }}";
    let chat = r#"{"messages": [{"role": "user", "content": "Fee?"}, {"role": "assistant", "content": "12"}]}"#;
    let users = TrainOn { roles: [Role::User].into(), turns: Turns::All };
    insta::assert_snapshot!(shown(Format::Messages, chat, &users, Some(twice)).unwrap_err(), @"a.jsonl:1: t.jinja, line 1 of the chat template: which tokens of turn 1 are the user's cannot be told: what it says changes more of the rendering than one place; leave the role out of `data.train_on.roles`, or use the built-in format (`data.chat.preamble: none`)");
}

#[test]
fn answers_of_alpacas_history_are_turns() {
    let row = r#"{"instruction": "c", "output": "d", "system": "s", "history": [["a", "b"]]}"#;
    let last = TrainOn { turns: Turns::Last, ..TrainOn::default() };
    let [all, last] =
        [&TrainOn::default(), &last].map(|it| shown(Format::Alpaca, row, it, Some(PLAIN)).unwrap());
    insta::assert_snapshot!(format!("{all}\n{last}"), @"
    system: s<|eot_id|>user: a<|eot_id|>assistant: ⟦b<|eot_id|>⟧user: c<|eot_id|>assistant: ⟦d<|eot_id|>⟧
    system: s<|eot_id|>user: a<|eot_id|>assistant: b<|eot_id|>user: c<|eot_id|>assistant: ⟦d<|eot_id|>⟧
    ");
}

#[test]
fn forms_without_turns_are_learnt_as_ever() {
    let users = TrainOn { roles: [Role::User].into(), turns: Turns::Last };
    for (format, row) in [
        (Format::Completion, r#"{"prompt": "q", "completion": "a"}"#),
        (Format::Text, r#"{"text": "a"}"#),
    ] {
        let [plain, other] =
            [&TrainOn::default(), &users].map(|it| shown(format, row, it, None).unwrap());
        assert_eq!(plain, other);
    }
}
