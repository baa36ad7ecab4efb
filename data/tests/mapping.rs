//! Chats of other make: rows whose columns, turns and speakers are called otherwise, and rows that say whether
//! they are learnt.
#![expect(clippy::disallowed_methods, reason = "tests write their own input files")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use graft_data::{Columns, Format, Row, RowReader, SourceFile};

fn columns(
    fields: &[(&str, &str)],
    ignored: &[&str],
    turn_fields: &[(&str, &str)],
    roles: &[(&str, &[&str])],
) -> Columns {
    let owned = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    Columns {
        fields: fields.iter().map(owned).collect(),
        ignored: ignored.iter().map(|&name| name.to_owned()).collect(),
        turn_fields: turn_fields.iter().map(owned).collect(),
        roles: roles.iter().map(|&(role, of)| (role.to_owned(), words(of))).collect(),
    }
}

fn read(text: &str, format: Format, columns: Columns) -> Result<(Vec<Row>, usize), String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(if text.starts_with('{') { "a.jsonl" } else { "a.csv" });
    std::fs::write(&path, text).unwrap();
    let sources = [SourceFile::new(&path, format).with_columns(columns)];
    let mut reader = RowReader::new(&sources);
    let rows: Result<Vec<Row>, _> = reader.by_ref().map(|row| row.map(|(row, _)| row)).collect();
    let rows = rows
        .map_err(|error| error.to_string().replace(&format!("{}/", folder.path().display()), ""))?;
    Ok((rows, reader.into_files()[0].by_themselves))
}

#[test]
fn turns_and_speakers_of_other_names_are_read_as_the_forms_own() {
    let own = Format::Messages
        .parse_row(
            r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"},
                {"role": "assistant", "content": "a", "weight": 0}, {"role": "user", "content": "q"},
                {"role": "assistant", "content": "b"}]}"#,
        )
        .unwrap();
    let theirs = r#"{"dialog": [{"speaker": "note", "utterance": "s"}, {"speaker": "customer", "utterance": "q", "mood": 3},
        {"speaker": "bot", "utterance": "a", "keep": false}, {"speaker": "user", "utterance": "q"},
        {"speaker": "agent", "utterance": "b"}]}"#
        .replace('\n', "");
    let of = |role: &str, content: &str, list: &str| {
        let (role, content, list) = (role.to_owned(), content.to_owned(), list.to_owned());
        Columns {
            fields: [(list.clone(), "dialog".to_owned())].into(),
            ignored: [format!("{list}.mood")].into(),
            turn_fields: [
                (role, "speaker".to_owned()),
                (content, "utterance".to_owned()),
                ("weight".to_owned(), "keep".to_owned()),
            ]
            .into(),
            ..columns(
                &[],
                &[],
                &[],
                &[("system", &["note"]), ("user", &["customer"]), ("assistant", &["bot", "agent"])],
            )
        }
    };
    for (format, columns) in [
        (Format::Messages, of("role", "content", "messages")),
        (Format::ShareGpt, of("from", "value", "conversations")),
    ] {
        let (rows, _) = read(&theirs, format, columns.clone()).unwrap();
        assert_eq!(rows, std::slice::from_ref(&own), "{format}");
        // The list as a text of JSON, in a table.
        let list = theirs.strip_prefix(r#"{"dialog": "#).unwrap().strip_suffix('}').unwrap();
        let table = format!("id,dialog\n1,\"{}\"\n", list.replace('"', "\"\""));
        assert_eq!(
            read(&table, format, columns).unwrap().0,
            std::slice::from_ref(&own),
            "{format}"
        );
    }
}

#[test]
fn names_that_nothing_has_and_fields_that_nothing_reads_are_refused() {
    let row = r#"{"conversations": [{"from": "customer", "value": "q"}, {"from": "gpt", "value": "a", "mood": 1}]}"#;
    let fail = |columns| read(row, Format::ShareGpt, columns).unwrap_err();
    let customers: &[(&str, &[&str])] = &[("user", &["customer"])];
    insta::assert_snapshot!(fail(columns(&[], &[], &[], &[])), @r#"a.jsonl:1: `conversations[0].from` is the unknown role "customer", expected one of: system, human, user, gpt, assistant, function_call, observation, tool; say whose it is by `roles: {user: [WORD]}` beside the source's `path`"#);
    insta::assert_snapshot!(fail(columns(&[], &[], &[], customers)), @"a.jsonl:1: `conversations[1].mood` is not supported: a turn holds `from` and `value`, and may have `weight`; name another by `turn_fields`, or leave it out by `ignore_columns: [conversations.mood]`, if nothing is to be learnt from it");
    insta::assert_snapshot!(fail(columns(&[], &["conversations.mood"], &[("value", "text")], customers)), @"a.jsonl:1: `conversations[0].value` is read from `text`, but there is a `value`, too: nothing would be learnt from it; leave it out by `ignore_columns: [conversations.value]`, or read another field from it");
    insta::assert_snapshot!(fail(columns(&[], &["conversations.mood", "conversations.tone"], &[], customers)), @"a.jsonl: `ignore_columns` names `conversations.tone`, which no row has (found: conversations, conversations.mood)");
    insta::assert_snapshot!(fail(columns(&[], &["conversations.mood"], &[("weight", "keep")], customers)), @"a.jsonl: `turn_fields` names `conversations.keep`, which no row has (found: conversations, conversations.mood)");
    insta::assert_snapshot!(fail(columns(&[], &[], &[("value", "mood"), ("weight", "from")], customers)), @"a.jsonl:1: `conversations[0].value` is read from `mood`, but there is a `value`, too: nothing would be learnt from it; leave it out by `ignore_columns: [conversations.value]`, or read another field from it");
}

#[test]
fn the_system_prompt_comes_from_one_place_whatever_the_form() {
    for (format, rest) in [
        (
            Format::Messages,
            r#""messages": [TURN{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]"#,
        ),
        (
            Format::ShareGpt,
            r#""conversations": [TURN{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]"#,
        ),
        (Format::Alpaca, r#""instruction": "q", "output": "a""#),
    ] {
        let with = |field: &str, turn: Option<&str>| {
            let turn = turn.map_or(String::new(), |text| match format {
                Format::ShareGpt => format!(r#"{{"from": "system", "value": "{text}"}}, "#),
                _ => format!(r#"{{"role": "system", "content": "{text}"}}, "#),
            });
            let row = format!("{{{field}{}}}", rest.replace("TURN", &turn));
            read(&row, format, Columns::default()).map(|(rows, _)| match &rows[0] {
                Row::Conversation(row) => (row.system().map(str::to_owned), row.messages.len()),
                other => panic!("{other:?}"),
            })
        };
        let said = (Some("s".to_owned()), 3);
        assert_eq!(with(r#""system": "s", "#, None), Ok(said.clone()), "{format}");
        assert_eq!(with(r#""system": " ", "#, None), Ok((None, 2)), "{format}");
        if format == Format::Alpaca {
            continue;
        }
        assert_eq!(with("", Some("s")), Ok(said.clone()), "{format}");
        assert_eq!(with(r#""system": "s ", "#, Some("s")), Ok(said.clone()), "{format}");
        assert_eq!(with(r#""system": "s", "#, Some("")), Ok(said.clone()), "{format}");
        let refused = with(r#""system": "s", "#, Some("t")).unwrap_err();
        assert!(refused.contains("is given twice"), "{format}: {refused}");
    }
    // A column of a table, too.
    let table = "persona,question,answer\nBe brief.,q,a\n";
    let names = [("instruction", "question"), ("output", "answer"), ("system", "persona")];
    let (rows, _) = read(table, Format::Alpaca, columns(&names, &[], &[], &[])).unwrap();
    assert!(matches!(&rows[0], Row::Conversation(row) if row.system() == Some("Be brief.")));
}

#[test]
fn a_row_that_says_so_is_left_out_and_counted_in_every_form() {
    for format in Format::ALL {
        let row = format.example();
        for (mark, expected) in [
            (r#""weight": 0"#, (1, 1)),
            (r#""train": false"#, (1, 1)),
            (r#""weight": 1.0"#, (2, 0)),
            (r#""loss": null"#, (2, 0)),
        ] {
            let text = format!("{row}\n{{{mark}, {}\n", &row[1..]);
            let (rows, masked) = read(&text, format, Columns::default()).unwrap();
            assert_eq!((rows.len(), masked), expected, "{format}: {mark}");
        }
        let text = format!("{{\"weight\": 0.5, {}\n", &row[1..]);
        let refused = read(&text, format, Columns::default()).unwrap_err();
        assert_eq!(
            refused,
            "a.jsonl:1: `weight` is neither 0 nor 1: a row is learnt whole or not at all"
        );
    }
    let table = "keep,prompt,completion\n0,q,a\ntrue,q,b\n,q,c\n";
    let names = columns(&[("weight", "keep")], &[], &[], &[]);
    let (rows, masked) = read(table, Format::Completion, names).unwrap();
    assert_eq!((rows.len(), masked), (2, 1));
    let row = r#"{"weight": 0, "messages": [{"role": "assistant", "content": "a", "train": 1}]}"#;
    insta::assert_snapshot!(read(row, Format::Messages, Columns::default()).unwrap_err(), @"a.jsonl:1: `weight` leaves the row out, and turn 1 asks to be learnt; give up one of the two");
}
