//! Templates and tokenizers are programs from strangers: whatever stands in them, reading and using
//! them comes to an end, with an answer or an error that names the file.
//!
//! `GRAFT_MUTATIONS` says how many mutated inputs a reader gets (some thousands by default). Mutation is
//! seeded, so a failure comes again; the corpus is what other tests call sound, and what once was not.
#![expect(clippy::unwrap_used, reason = "a fixture that cannot be read fails the test")]

mod folders;

use folders::{chatml, makes, sentencepiece};
use graft_data::{
    Conversation, CounterRng, Losses, Message, ModelTemplate, Purpose, Role, Tokenizer,
};

const DATE: &str = "26 Jul 2024";

fn conversation() -> Conversation {
    let turns = [(Role::System, "s"), (Role::User, "a b"), (Role::Assistant, "c")];
    Conversation::of(turns.map(|(role, text)| Message::text(role, text)).to_vec())
}

/// What becomes of a template, in words.
fn outcome(text: &str, tokenizer: &Tokenizer) -> String {
    match ModelTemplate::from_text(text, "m/chat_template.jinja", "<s>") {
        Err(error) => error.to_string(),
        Ok(template) => match template.encode(&conversation(), DATE, Losses::Allow, tokenizer) {
            Err(error) => error.to_string(),
            Ok((ids, _)) => format!("{} tokens", ids.len()),
        },
    }
}

/// Each asks for more than there is: time, memory, stack.
fn greedy() -> Vec<(&'static str, String)> {
    let double = "{% set s = s ~ s %}".repeat(60);
    let lists = "{% set l = l + l %}".repeat(60);
    let nested = "{% for a in range(99999) %}".repeat(6);
    vec![
        ("a long sum", format!("{{{{ {}1 }}}}", "1+".repeat(5_500))),
        ("a sum of a hundred", format!("{{{{ {}1 }}}}", "1+".repeat(100))),
        ("not not", format!("{{{{ {}1 }}}}", "not ".repeat(1_900))),
        ("filters", format!("{{{{ 1{} }}}}", "|string".repeat(900))),
        ("brackets", format!("{{{{ {}1{} }}}}", "[".repeat(900), "]".repeat(900))),
        ("elif", format!("{{% if a %}}{}{{% endif %}}", "{% elif a %}".repeat(9_000))),
        ("ifs", format!("{}{}", "{% if 1 %}".repeat(9_000), "{% endif %}".repeat(9_000))),
        ("a tag that is none", "{%}".to_owned()),
        ("a tag that is none, later", "a{{ b }}{%}%}".to_owned()),
        ("doubled texts", format!("{{% set s = 'abcdefgh' %}}{double}{{{{ s }}}}")),
        ("doubled lists", format!("{{% set l = [1, 2] %}}{lists}{{{{ l }}}}")),
        ("repeated", "{{ 'ab' * 99999999 }}{{ [1] * 99999999 }}".to_owned()),
        ("repeated constants", format!("{{{{ {}'a' }}}}", "('a' * 90000000) ~ ".repeat(60))),
        ("loops", format!("{nested}{{{{ a }}}}{}", "{% endfor %}".repeat(6))),
        ("loops of nothing", format!("{nested}{}", "{% endfor %}".repeat(6))),
        ("much text", format!("{{% for a in range(99999) %}}{}{{% endfor %}}", "long ".repeat(9_999))),
        (
            "kept text",
            "{% set n = namespace(s='abcd') %}{% for a in range(99) %}{% set t %}{{ n.s }}{{ n.s }}{% endset %}{% set n.s = t %}{% endfor %}{{ n.s }}".to_owned(),
        ),
        (
            "lists in lists",
            "{% set n = namespace(l=[]) %}{% for a in range(99999) %}{% set n.l = [n.l] %}{% endfor %}{{ n.l }}".to_owned(),
        ),
        ("a namespace in itself", "{% set n = namespace() %}{% set n.n = [n] %}{{ n }}".to_owned()),
        ("macros", "{% macro m(x) %}{{ m(x) }}{{ m(x) }}{% endmacro %}{{ m(1) }}".to_owned()),
        (
            "a loop in itself",
            "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}".to_owned(),
        ),
        ("replace", "{% set s = 'aaaaaaaa' * 100000 %}{{ s.replace('a', s) }}".to_owned()),
        ("replace, a filter", "{% set s = 'aaaaaaaa' * 100000 %}{{ s|replace('a', s) }}".to_owned()),
        ("join", "{% set s = 'aaaaaaaa' * 100000 %}{{ s.join(range(99999)) }}".to_owned()),
        ("map", "{% set s = 'aaaaaaaa' * 100000 %}{{ ([s] * 9999)|map('upper')|list }}".to_owned()),
        ("indent", "{{ 'a'|indent(9999999999, true) }}".to_owned()),
        ("json", "{{ messages|tojson(indent=999999999) }}".to_owned()),
        ("format", "{{ '%999999999d'|format(1) }}".to_owned()),
        ("batch", "{{ [1]|batch(999999999, 'x')|list }}".to_owned()),
        ("batch, as a float", "{{ [1]|batch(9999999000000000.0)|list }}".to_owned()),
        ("power", "{{ 9 ** 9 ** 9 }}".to_owned()),
        (
            "comparisons",
            "{% set s = 'aaaaaaaa' * 1000000 %}{% for a in range(99999) %}{% for b in range(99999) %}{% if s == s ~ 'a' %}{% endif %}{% endfor %}{% endfor %}".to_owned(),
        ),
    ]
}

#[test]
fn greedy_templates_are_refused_by_name() {
    let (tokenizer, _) = chatml().open();
    let line = |(name, text): (&str, String)| {
        let outcome = outcome(&text, &tokenizer);
        let short = outcome
            .replace("cannot render the conversation: ", "")
            .replace("m/chat_template.jinja", "T")
            .replace("line 1 of the chat template: ", "")
            .replace("the template asks for too much: ", "too much: ");
        format!("{name} → {short}")
    };
    let shown: Vec<String> = greedy().into_iter().map(line).collect();
    insta::assert_snapshot!(shown.join("\n"), @r##"
    a long sum → T: syntax error: the tag of line 1 has more than 2000 parts
    a sum of a hundred → 3 tokens
    not not → T: syntax error: template exceeds maximum recursion limits
    filters → T: syntax error: template exceeds maximum recursion limits
    brackets → T: syntax error: template exceeds maximum recursion limits
    elif → T: syntax error: it has more than 100000 parts or 200 times `elif`
    ifs → T: syntax error: template exceeds maximum recursion limits
    a tag that is none → T: syntax error: unknown `}`, expected statement
    a tag that is none, later → T: syntax error: unknown `}`, expected statement
    doubled texts → T, too much: it makes a value that is larger than any conversation
    doubled lists → T, too much: it makes a value that is larger than any conversation
    repeated → T, too much: it makes a value that is larger than any conversation
    repeated constants → T, too much: it makes a value that is larger than any conversation
    loops → T, too much: it writes far more than the conversation has
    loops of nothing → T, too much: it does not come to an end within the work that a template is given
    much text → T, too much: it writes far more than the conversation has
    kept text → T, too much: it writes far more than the conversation has
    lists in lists → T, too much: it puts lists into lists, more than 160 deep
    a namespace in itself → T, too much: it puts a namespace into a namespace
    macros → T, invalid operation: recursion limit exceeded
    a loop in itself → T, invalid operation: recursion limit exceeded
    replace → T, too much: it makes a value that is larger than any conversation
    replace, a filter → T, too much: it makes a value that is larger than any conversation
    join → T, too much: it does not come to an end within the work that a template is given
    map → T, too much: it makes a value that is larger than any conversation
    indent → T, too much: it asks for 9999999999, and at most 1000 is given
    json → T, too much: it asks for 999999999, and at most 1000 is given
    format → T, too much: its format asks for a width that no text has
    batch → T, too much: it asks for 999999999, and at most 1000 is given
    batch, as a float → T, too much: it asks for 9999999000000000.0, and at most 1000 is given
    power → T, invalid operation: unable to calculate 387420489 ** 9
    comparisons → T, too much: it does not come to an end within the work that a template is given
    "##);
}

/// What templates of releases use, in one: the guard must change nothing of it.
#[test]
fn what_releases_use_is_rendered_as_before() {
    let (tokenizer, _) = chatml().open();
    let rendered = |text: &str| {
        let template = ModelTemplate::from_text(text, "t", "<s>").unwrap();
        let ids = template.prompt(&conversation(), DATE, Losses::Allow, &tokenizer).unwrap();
        tokenizer.decode(&ids, false).unwrap()
    };
    let table = [
        "{% set ns = namespace(found=false, n=0) %}{% for m in messages %}{% if m.role == 'user' and not ns.found %}{% set ns.found = true %}{% endif %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}{{ ns.found }}",
        "{%- if messages[0]['role'] == 'system' -%}{% set s = messages[0]['content'] %}{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}{{ s ~ '|' ~ rest|length }}",
        "{% for m in messages[::-1] %}{{ loop.index0 }}{{ m.role[:1] }}{{ ',' if not loop.last }}{% endfor %}",
        "{% macro turn(m, end='.') %}<{{ m.role }}>{{ m.content|trim }}{{ end }}{% endmacro %}{% for m in messages %}{{ turn(m) }}{% endfor %}",
        "{% macro wrap() %}[{{ caller('x') }}]{% endmacro %}{% call(a) wrap() %}{{ a }}y{% endcall %}",
        "{{ messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|join('+') }}",
        "{{ {'a': 1, 'b': [1, 2.5, none, true]}|tojson }}{{ {'a': 1} }}{{ (1, 2) }}",
        "{% for k, v in {'x': 1, 'y': 2}.items() %}{{ k }}={{ v }};{% endfor %}",
        "{% if tools is not defined or tools is none %}no{% elif tools %}some{% else %}none{% endif %}",
        "{{ '%s-%d'|format('a', 3) }}{{ 7 // 2 }}{{ 7 % 4 }}{{ 2 ** 3 }}{{ -3 + 1 - 2 }}{{ 3 * 2 / 4 }}",
        "{% filter upper %}a{{ 'b' }}{% endfilter %}{% set x %}c{{ 1 }}{% endset %}{{ x }}",
        "{% with a = 1, b = 'q\"\\\\\n' %}{{ a }}{{ b }}{% endwith %}{{ 'a' in 'abc' }}{{ 1 < 2 < 3 }}",
        "{% for i in range(9) if i is odd %}{% if i == 5 %}{% continue %}{% endif %}{{ i }}{% else %}e{% endfor %}",
        "{% for a in [1, [2, [3]]] recursive %}{{ loop(a) if a is sequence and a is not string else a }}{% endfor %}",
        "a\n  {% if true %}\n  b\n  {%- endif %}\n{# c #}\nd {{- ' e' }}\n",
    ];
    let shown: Vec<String> = table.iter().map(|text| rendered(text)).collect();
    insta::assert_snapshot!(shown.join("\n"), @r##"
    3True
    s|2
    0a,1u,2s
    <system>s.<user>a b.<assistant>c.
    [xy]
    a b
    {"a": 1, "b": [1, 2.5, null, true]}{'a': 1}[1, 2]
    x=1;y=2;
    no
    a-3338-41.5
    ABc1
    1q"\
    TrueTrue
    137
    123
    a
      bd e
    "##);
}

/// Turns of a user and answers, as many in all.
fn many_turns(count: usize, text: &str) -> Conversation {
    let role = |index| if index % 2 == 0 { Role::User } else { Role::Assistant };
    Conversation::of((0..count).map(|index| Message::text(role(index), text)).collect())
}

#[test]
fn long_conversations_are_read_in_a_moment_or_refused_by_what_they_would_take() {
    let (tokenizer, _) = chatml().open();
    let turn = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n";
    let by_prefixes = format!("{{% for m in messages %}}{turn}{{% endfor %}}");
    let marks = format!(
        "{{% for m in messages %}}{{% if m.role == 'user' %}}{turn}{{% else %}}{{% generation %}}{turn}\
         {{% endgeneration %}}{{% endif %}}{{% endfor %}}"
    );
    let [quoting, quoting_marks] =
        [&by_prefixes, &marks].map(|text| text.replace("m.content", "m.content|tojson"));
    let encode = |template: &str, conversation: &Conversation, losses| {
        let template = ModelTemplate::from_text(template, "T", "").unwrap();
        match template.encode(conversation, DATE, losses, &tokenizer) {
            Ok((ids, targets)) => {
                format!("{} tokens, {} targets", ids.len(), targets.iter().filter(|t| **t).count())
            }
            Err(error) => error.to_string(),
        }
    };
    let (short, long) = (many_turns(100, "a"), many_turns(8_000, "a"));
    let shown = [
        encode(&marks, &long, Losses::Refuse),
        encode(&by_prefixes, &short, Losses::Refuse),
        encode(&by_prefixes, &long, Losses::Allow),
        encode(&quoting, &many_turns(100, "a\"b"), Losses::Refuse),
        encode(&quoting_marks, &many_turns(4_000, "a\"b"), Losses::Refuse),
    ];
    insta::assert_snapshot!(shown.join("\n"), @"
    84000 tokens, 52000 targets
    1050 tokens, 600 targets
    cannot render the conversation: T, line 1 of the chat template: 8000 turns with 148000 bytes, and telling which tokens are the assistant's takes two renderings for each of its turns, unless the template says it with `{% generation %}`; cut the conversation into several rows
    1550 tokens, 850 targets
    cannot render the conversation: T, line 1 of the chat template: 4000 turns with 82000 bytes, and finding out what the template leaves out takes a rendering for each text that it writes in another way, unless that is allowed (`data.chat.losses: allow`); cut the conversation into several rows
    ");
}

#[test]
fn an_error_stands_on_the_line_of_its_tag() {
    let (tokenizer, _) = chatml().open();
    let text =
        "a\n{% for m in messages %}\n\n{{ m.content }}\n{{ raise_exception('no') }}\n{% endfor %}";
    assert!(outcome(text, &tokenizer).contains("line 5 of the chat template"));
}

/// How many inputs a reader gets.
fn inputs(default: u64) -> u64 {
    std::env::var("GRAFT_MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// Cuts, doubles, moves and changes of an input.
fn mutated(seed: u64, corpus: &[Vec<u8>]) -> Vec<u8> {
    let random = CounterRng::new(seed, Purpose::Generation, 0, 0);
    let draw = |at: u64, below: usize| (random.uniform_f64_at(at) * below.max(1) as f64) as usize;
    let mut bytes = corpus[draw(0, corpus.len())].clone();
    for step in 0..=draw(1, 4) as u64 {
        let at = 10 * (step + 1);
        let start = draw(at, bytes.len());
        let end = (start + 1 + draw(at + 1, 24)).min(bytes.len());
        match draw(at + 2, 6) {
            0 => drop(bytes.drain(start..end)),
            1 => {
                let part = bytes[start..end].to_vec();
                let times = 1 + draw(at + 3, 40);
                bytes.splice(start..start, part.repeat(times));
            }
            2 => {
                let other = &corpus[draw(at + 3, corpus.len())];
                let from = draw(at + 4, other.len());
                let to = (from + draw(at + 5, 80)).min(other.len());
                bytes.splice(start..end, other[from..to].to_vec());
            }
            3 => {
                const TOKENS: [&str; 12] = [
                    "{{",
                    "}}",
                    "{%",
                    "%}",
                    "99999999999",
                    "-1",
                    "null",
                    "\"",
                    "[",
                    "}",
                    "\u{fdd0}",
                    "\\u0000",
                ];
                let token = TOKENS[draw(at + 3, TOKENS.len())];
                bytes.splice(start..start, token.bytes());
            }
            _ => {
                if let Some(byte) = bytes.get_mut(start) {
                    *byte = draw(at + 3, 256) as u8;
                }
            }
        }
    }
    bytes
}

#[test]
fn mutated_templates_come_to_an_end() {
    let (tokenizer, _) = chatml().open();
    let mut corpus: Vec<Vec<u8>> = greedy()
        .into_iter()
        .map(|(_, text)| text.into_bytes())
        .filter(|t| t.len() < 1_000)
        .collect();
    for make in makes() {
        corpus.push(make.config["chat_template"].as_str().unwrap().as_bytes().to_vec());
    }
    let mut rendered = 0;
    for seed in 0..inputs(1_000) {
        let text = String::from_utf8_lossy(&mutated(seed, &corpus)).into_owned();
        rendered += u64::from(outcome(&text, &tokenizer).ends_with("tokens"));
    }
    assert!(rendered > inputs(1_000) / 50, "{rendered} rendered: the mutations hit nothing");
}

#[test]
fn mutated_tokenizers_come_to_an_end() {
    let corpus =
        [chatml().tokenizer, sentencepiece(false).tokenizer, sentencepiece(true).tokenizer];
    let corpus: Vec<Vec<u8>> = corpus.iter().map(|json| json.to_string().into_bytes()).collect();
    let mut read = 0;
    for seed in 0..inputs(600) {
        let Ok(tokenizer) = Tokenizer::from_bytes(&mutated(seed, &corpus), "t") else { continue };
        read += 1;
        for text in ["The  fee\n\n12 é😀", "<|im_end|></s>", " "] {
            if let Ok(ids) = tokenizer.encode(text) {
                drop(tokenizer.decode(&ids, true));
            }
        }
    }
    assert!(read > inputs(600) / 50, "{read} were read: the mutations leave nothing whole");
}

#[test]
fn mutated_ranks_come_to_an_end() {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |bits: usize| char::from(DIGITS[bits & 63]);
    let line = |byte: usize| format!("{}{}== {byte}", digit(byte >> 2), digit(byte << 4));
    let lines: Vec<String> = (0..256).map(line).collect();
    let mut file = lines.join("\n") + "\n";
    file.push_str("dGg= 256\n");
    let corpus = [file.into_bytes()];
    for seed in 0..inputs(600) {
        if let Ok(tokenizer) = Tokenizer::from_tiktoken(&mutated(seed, &corpus), "t") {
            assert!(tokenizer.encode("the <|eot_id|>").is_ok());
        }
    }
}
