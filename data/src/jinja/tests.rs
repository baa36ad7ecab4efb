use super::*;
use crate::conversation::{Message, Role};
use crate::formats::{Format, Row};
use crate::test_tokenizer::tokenizer;

const DATE: &str = "26 Jul 2024";

fn conversation() -> Conversation {
    let turns = [(Role::User, "a"), (Role::Assistant, "b")];
    Conversation::of(turns.map(|(role, text)| Message::text(role, text)).to_vec())
}

fn refused(template: &str) -> String {
    let template = ModelTemplate::from_text(template, "m/chat_template.jinja", "<s>").unwrap();
    template.encode(&conversation(), DATE, Losses::Allow, tokenizer()).unwrap_err().to_string()
}

#[test]
fn a_refusal_names_file_line_and_what_the_template_said() {
    insta::assert_snapshot!(refused("a\n{{ raise_exception('only ' ~ 1 ~ ' turn!') }}"), @"cannot render the conversation: m/chat_template.jinja, line 2 of the chat template: the template says: only 1 turn!");
    insta::assert_snapshot!(refused("\n\n{{ messages[0].content.encode('utf-8') }}"), @"cannot render the conversation: m/chat_template.jinja, line 3 of the chat template: unknown method: the method `encode` is not known here");
    insta::assert_snapshot!(refused("{{ strftime_now('%Q') }}"), @r#"cannot render the conversation: m/chat_template.jinja, line 1 of the chat template: invalid operation: strftime_now("%Q"): only parts of a date are known here"#);
    insta::assert_snapshot!(refused("{{ messages | tojson(indent='x') }}"), @"cannot render the conversation: m/chat_template.jinja, line 1 of the chat template: invalid operation: tojson: `indent` must be a number of blanks");
}

#[test]
fn a_template_that_cannot_be_parsed_names_file_and_line() {
    let error = ModelTemplate::from_text("a\n{% if %}", "m/tokenizer_config.json", "").unwrap_err();
    insta::assert_snapshot!(error, @"m/tokenizer_config.json: line 2 of the chat template: syntax error: unexpected end of block");
    let load = |config: &str| {
        let file = NamedFile { bytes: config.as_bytes(), origin: "m/tokenizer_config.json" };
        let files = TemplateFiles { tokenizer_config: Some(file), ..TemplateFiles::default() };
        ModelTemplate::from_files(files).unwrap_err().to_string()
    };
    insta::assert_snapshot!(load(r#"{"chat_template": 1}"#), @"m/tokenizer_config.json: line 1 of the chat template: `chat_template` is neither a text nor a list of templates");
    insta::assert_snapshot!(load(r#"{"chat_template": [{"name": "rag", "template": ""}]}"#), @"m/tokenizer_config.json: line 1 of the chat template: `chat_template` has no template `default` (found: rag)");
}

#[test]
fn the_date_is_the_recipes_and_the_bytes_are_the_same_again() {
    let text = "{{ date_string }}|{{ strftime_now('%Y-%m-%d') }}";
    let template = ModelTemplate::from_text(text, "t", "").unwrap();
    let text = |date| {
        let ids = template.prompt(&conversation(), date, Losses::Allow, tokenizer()).unwrap();
        tokenizer().decode(&ids, false).unwrap()
    };
    assert_eq!(text(DATE), "26 Jul 2024|2024-07-26");
    assert_eq!(text("01 Feb 2030"), "01 Feb 2030|2030-02-01");
}

#[test]
fn line_ends_and_generation_tags_are_prepared_without_moving_a_line() {
    let (text, marks) = mask::prepare("a\r\n{%- generation -%}b{% endgeneration %}\rc {% if x %}");
    assert!(marks);
    assert_eq!(text.lines().count(), 3);
    assert!(text.contains("{%- call graft_generation() -%}b{% endcall %}"), "{text}");
    assert!(!mask::prepare("{% set generation = 1 %}").1);
}

#[test]
fn methods_answer_as_pythons_do() {
    // Rendered by Jinja2 3.1 on Python 3.
    for (expression, answer) in [
        (r#""hELLO wORLD".capitalize()"#, "Hello world"),
        (r#""aXbXc".count("X")"#, "2"),
        (r#""abc".count("")"#, "4"),
        (r#""éab".find("b")"#, "2"),
        (r#""abab".rfind("b")"#, "3"),
        (r#""abc".find("z")"#, "-1"),
        (r#""abc".startswith("ab")"#, "True"),
        (r#""abc".startswith(("z", "ab"))"#, "True"),
        (r#""abc".endswith(("z", "y"))"#, "False"),
        (r#""abc".endswith("")"#, "True"),
        (r#""12".isdigit()"#, "True"),
        (r#""".isdigit()"#, "False"),
        (r#""a1".isalnum()"#, "True"),
        (r#""a 1".isalnum()"#, "False"),
        (r#""éa".isalpha()"#, "True"),
        (r#""Straße".upper()"#, "STRASSE"),
        (r#""ÀB".lower()"#, "àb"),
        (r#""they're 3rd".title()"#, "They'Re 3Rd"),
        (r#"" \x1c\n".isspace()"#, "True"),
        (r#""\x1c a \u2028".strip()"#, "a"),
        (r#""xxaxx".strip("x")"#, "a"),
        (r#""xxaxx".lstrip("x")"#, "axx"),
        (r#"" a  b ".split()"#, "['a', 'b']"),
        (r#""a,b,c".split(",", 1)"#, "['a', 'b,c']"),
        (r#""a,b,c".rsplit(",", 1)"#, "['a,b', 'c']"),
        (r#""a\r\nb\x0bc\n".splitlines()"#, "['a', 'b', 'c']"),
        (r#""a\nb".splitlines(true)"#, r"['a\n', 'b']"),
        (r#""abc".removeprefix("a")"#, "bc"),
        (r#""abc".removesuffix("bc")"#, "a"),
        (r#""aaa".replace("a", "b", 2)"#, "bba"),
        (r#"", ".join(["a", "b"])"#, "a, b"),
        (r#"{"a": 1}.get("a")"#, "1"),
        (r#"{"a": 1}.get("b")"#, "None"),
        (r#"{"a": 1}.get("b", 2)"#, "2"),
        (r#"{"a": 1}.keys() | list"#, "['a']"),
        ("[1, 2, 1].count(1)", "2"),
        ("[1, 2].index(2)", "1"),
    ] {
        // Control tokens aside, a template's text is its ids'.
        let template =
            ModelTemplate::from_text(&format!("{{{{ {expression} }}}}"), "t", "").unwrap();
        let ids = template.prompt(&conversation(), DATE, Losses::Allow, tokenizer()).unwrap();
        assert_eq!(tokenizer().decode(&ids, false).unwrap(), answer, "{expression}");
    }
    insta::assert_snapshot!(refused("{{ 'abc'.startswith(3) }}"), @"cannot render the conversation: m/chat_template.jinja, line 1 of the chat template: invalid operation: startswith: expected a text or a tuple of texts");
    insta::assert_snapshot!(refused("{{ 'abc'.format(3) }}"), @"cannot render the conversation: m/chat_template.jinja, line 1 of the chat template: unknown method: the method `format` is not known here");
    insta::assert_snapshot!(refused("{{ 'abc'.upper(3) }}"), @"cannot render the conversation: m/chat_template.jinja, line 1 of the chat template: too many arguments");
}

#[test]
fn numbers_of_tools_come_out_as_they_were_written() {
    const NUMBERS: &str =
        r#"{"a": 1e5, "b": [1.10, -0], "c": 18446744073709551616, "d": 1.0, "e": 7}"#;
    let row = format!(
        r#"{{"messages": [{{"role": "user", "content": "q"}}, {{"role": "assistant", "tool_calls": [{{"function":
        {{"name": "f", "arguments": {NUMBERS}}}}}]}}, {{"role": "tool", "content": {NUMBERS}}}], "tools": [{{"x":
        {NUMBERS}}}]}}"#
    );
    // The OpenAI API sends arguments as a text.
    let as_text = row.replacen(NUMBERS, &format!("{NUMBERS:?}"), 1);
    let template = "{%- set a = messages[1].tool_calls[0].function.arguments %}{{ a | tojson }}\n{{ a.a }} {{ a.a is number }} \
                    {{ a.b }} {{ a.c }} {{ a.c + 1 }}\n{{ messages[2].content | tojson }}\n{{ tools[0].x | tojson }}";
    let template = ModelTemplate::from_text(template, "t", "").unwrap();
    for row in [row, as_text] {
        let Ok(Row::Conversation(conversation)) = Format::Messages.parse_row(&row) else {
            panic!("{row} is no conversation");
        };
        let ids = template.prompt(&conversation, DATE, Losses::Allow, tokenizer()).unwrap();
        let text = tokenizer().decode(&ids, false).unwrap();
        let values = "1e5 True [1.10, -0] 18446744073709551616 18446744073709551617";
        assert_eq!(text, format!("{NUMBERS}\n{values}\n{NUMBERS}\n{NUMBERS}"));
        let built_in = crate::chat::ChatTemplate::default().render(&conversation, false).unwrap();
        let text = crate::chat::segments_text(&built_in);
        assert_eq!(text.matches(NUMBERS).count(), 2, "{text}");
    }
}
