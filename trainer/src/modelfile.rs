//! A Modelfile of Ollama's beside a GGUF file: its chat template in Go's template language, found from what the model's own
//! template makes of conversations and held against that, with its stop tokens and the system prompt of its training.
//!
//! Follows `docs/modelfile.mdx`, `parser/parser.go` and `template/template.go` of Ollama: text between three quotation marks is
//! taken as it stands, but for characters that cannot be printed; `.Messages` are the turns with the system's among
//! them, `.System` what the system says; and llama.cpp puts the token in front that begins texts.

use std::fmt::Write as _;

use graft_data::{ChatTemplate, Conversation, Message, Role, Tokenizer};

/// What stands in for what is said, while the template is looked at: no template says it.
const SYSTEM: &str = "Qsystemq7";
const FIRST: &str = "Quserq7";
const ANSWER: &str = "Qanswerq7";
const SECOND: &str = "Qagainq7";

/// Why there is no Modelfile of a model.
#[derive(Debug, thiserror::Error)]
#[error(
    "{what} of `{model}` has no form in Ollama's Modelfile: {why}. Write one by hand, beside the file that `graft export` makes \
     without `--for`"
)]
pub struct NoForm {
    what: &'static str,
    model: String,
    why: String,
}

/// How a model is talked with.
#[derive(Clone, Copy, Debug)]
pub struct Speech<'a> {
    /// What errors call the model.
    pub model: &'a str,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// How conversations were rendered in training, with the model's own template where it has one.
    pub chat: &'a ChatTemplate,
    /// The system prompt of the training.
    pub system: Option<&'a str>,
}

/// The Modelfile of a GGUF file of this name beside it.
///
/// # Errors
/// The chat template, a stop token or the system prompt has no form there.
pub fn modelfile(gguf: &str, speech: Speech<'_>) -> Result<String, NoForm> {
    let Speech { model, tokenizer, chat, system } = speech;
    let no_form = |what| move |why| NoForm { what, model: model.to_owned(), why };
    let is_chat = chat.own.is_some() || tokenizer.special("<|start_header_id|>").is_some();
    let template = if is_chat {
        go_template(chat, tokenizer).map_err(no_form("the chat template"))?
    } else {
        "{{ .Prompt }}".to_owned()
    };
    let template = quoted(&template).map_err(no_form("the chat template"))?;
    let mut text =
        format!("# ollama create NAME -f Modelfile\nFROM ./{gguf}\nTEMPLATE {template}\n");
    let stops = tokenizer.stop_ids().into_iter().filter_map(|id| tokenizer.token(id));
    for stop in stops {
        let stop = quoted(&stop).map_err(no_form("a stop token"))?;
        let _ = writeln!(text, "PARAMETER stop {stop}");
    }
    if let Some(system) = system {
        let system =
            quoted(system).map_err(no_form("the system prompt of the adapter's training"))?;
        let _ = writeln!(text, "SYSTEM {system}");
    }
    Ok(text)
}

/// A text as a Modelfile takes it.
fn quoted(text: &str) -> Result<String, String> {
    if text.contains("\"\"\"") || text.starts_with('"') || text.ends_with('"') {
        return Err(format!("{text:?} has quotation marks where they would end it"));
    }
    let is_dropped = |c: &char| {
        let is_plain_space = matches!(c, ' ' | '\n' | '\r' | '\t');
        let is_format = matches!(*c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{feff}');
        !is_plain_space && (c.is_control() || c.is_whitespace() || is_format)
    };
    if let Some(dropped) = text.chars().find(is_dropped) {
        let code = u32::from(dropped);
        return Err(format!("it has the character U+{code:04X}, which Ollama leaves out"));
    }
    Ok(format!("\"\"\"{text}\"\"\""))
}

/// What a template puts around turns.
#[derive(Debug, PartialEq, Eq)]
struct Pieces {
    /// In front of a conversation without a system turn.
    without_system: String,
    /// Before and behind what each role says: system, user, assistant.
    around: [[String; 2]; 3],
    /// Before an answer that is yet to be written.
    generation: String,
}

/// The template in Go's language.
fn go_template(chat: &ChatTemplate, tokenizer: &Tokenizer) -> Result<String, String> {
    let pieces = Pieces::of(chat, tokenizer)?;
    let Pieces { without_system, around: [system, user, assistant], generation } = &pieces;
    let all = [without_system, generation].into_iter().chain(system).chain(user).chain(assistant);
    if all.into_iter().any(|piece| piece.contains("{{") || piece.contains("}}")) {
        return Err("it writes double braces, with which Go's templates begin".to_owned());
    }
    let [system, user, assistant] = [system, user, assistant]
        .map(|[before, behind]| format!("{before}{{{{ .Content }}}}{behind}"));
    let front = match without_system.as_str() {
        "" => String::new(),
        text => format!("{{{{ if not .System }}}}{text}{{{{ end }}}}"),
    };
    Ok(format!(
        "{front}{{{{ range .Messages }}}}{{{{ if eq .Role \"system\" }}}}{system}{{{{ else if eq .Role \"user\" }}}}{user}{{{{ \
         else if eq .Role \"assistant\" }}}}{assistant}{{{{ end }}}}{{{{ end }}}}{generation}"
    ))
}

type Turn = (Role, &'static str);

impl Pieces {
    /// Found from what the template makes of short conversations, and held against what it makes of longer ones.
    fn of(chat: &ChatTemplate, tokenizer: &Tokenizer) -> Result<Self, String> {
        let rendered = |turns: &[Turn], is_open: bool| render(chat, tokenizer, turns, is_open);
        let (user, answer) = ((Role::User, FIRST), (Role::Assistant, ANSWER));
        let second = (Role::User, SECOND);
        let closed = rendered(&[user], false)?;
        let open = rendered(&[user], true)?;
        let answered = rendered(&[user, answer], false)?;
        let again = rendered(&[user, answer, second], true)?;
        let with_system = rendered(&[(Role::System, SYSTEM), user], true)?;
        let cut = |text: &str, at: &str| {
            let found =
                text.split_once(at).map(|(before, behind)| (before.to_owned(), behind.to_owned()));
            found.ok_or_else(|| "it does not say what a turn says as it is".to_owned())
        };
        let without = |text: &str, start: &str| {
            let rest = text.strip_prefix(start).map(str::to_owned);
            rest.ok_or_else(|| "what it writes behind a turn depends on what follows".to_owned())
        };
        let before = |text: &str, end: &str| {
            let rest = text.strip_suffix(end).map(str::to_owned);
            rest.ok_or_else(|| {
                "what it writes before a turn depends on what comes first".to_owned()
            })
        };
        let (front, behind_user) = cut(&closed, FIRST)?;
        let (_, user_and_generation) = cut(&open, FIRST)?;
        let generation = without(&user_and_generation, &behind_user)?;
        let (_, behind_answer) = cut(&answered, ANSWER)?;
        let (_, rest) = cut(&again, FIRST)?;
        let (between, rest) = cut(&rest, ANSWER)?;
        let (to_second, _) = cut(&rest, SECOND)?;
        let before_answer = without(&between, &behind_user)?;
        let before_user = without(&to_second, &behind_answer)?;
        let (before_system, rest) = cut(&with_system, SYSTEM)?;
        let (to_user, _) = cut(&rest, FIRST)?;
        let behind_system = before(&to_user, &before_user)?;
        let pieces = Self {
            without_system: before(&front, &before_user)?,
            around: [
                [before_system, behind_system],
                [before_user, behind_user],
                [before_answer, behind_answer],
            ],
            generation,
        };
        let system = (Role::System, SYSTEM);
        let (more, third) = ((Role::Assistant, "Qmoreq7"), (Role::User, "Qthirdq7"));
        for turns in [
            &[user][..],
            &[system, user],
            &[user, answer, second],
            &[system, user, answer, second, more, third],
        ] {
            if pieces.applied(turns) != rendered(turns, true)? {
                return Err(
                    "what it writes around a turn depends on the turns before it".to_owned()
                );
            }
        }
        Ok(pieces)
    }

    /// What Ollama makes of a conversation by these pieces.
    fn applied(&self, turns: &[Turn]) -> String {
        let has_system = turns.iter().any(|(role, _)| *role == Role::System);
        let mut text = if has_system { String::new() } else { self.without_system.clone() };
        for (role, said) in turns {
            let [before, behind] = &self.around[match role {
                Role::System => 0,
                Role::User | Role::Tool => 1,
                Role::Assistant => 2,
            }];
            text += before;
            text += said;
            text += behind;
        }
        text + &self.generation
    }
}

/// What the model is given of a conversation, without the tokens that begin every text.
fn render(
    chat: &ChatTemplate,
    tokenizer: &Tokenizer,
    turns: &[Turn],
    is_open: bool,
) -> Result<String, String> {
    let turns = turns.iter().map(|(role, said)| Message::text(*role, *said));
    let conversation = Conversation::of(turns.collect());
    let ids = if is_open {
        chat.prompt(&conversation, tokenizer)
    } else {
        chat.encode(&conversation, tokenizer).map(|(ids, _)| ids)
    };
    let ids = ids.map_err(|error| error.to_string())?;
    let ids = ids.strip_prefix(tokenizer.opening()).unwrap_or(&ids);
    tokenizer.decode(ids, false).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use graft_data::Preamble;

    use super::*;
    use crate::plan::ModelFiles;

    #[test]
    fn llama_s_template_is_found_with_its_date_and_the_system_prompt() {
        let files = ModelFiles::open("builtin:quickstart").unwrap();
        let date = "1 Jan 2030".to_owned();
        let chat = ChatTemplate::built_in(Preamble::Official { date });
        let system = Some("Answer \"briefly\", please.");
        let speech = Speech { model: "m", tokenizer: &files.tokenizer, chat: &chat, system };
        let text = modelfile("model.gguf", speech).unwrap();
        insta::assert_snapshot!(text, @r#"
        # ollama create NAME -f Modelfile
        FROM ./model.gguf
        TEMPLATE """{{ if not .System }}<|start_header_id|>system<|end_header_id|>

        Cutting Knowledge Date: December 2023
        Today Date: 1 Jan 2030

        <|eot_id|>{{ end }}{{ range .Messages }}{{ if eq .Role "system" }}<|start_header_id|>system<|end_header_id|>

        Cutting Knowledge Date: December 2023
        Today Date: 1 Jan 2030

        {{ .Content }}<|eot_id|>{{ else if eq .Role "user" }}<|start_header_id|>user<|end_header_id|>

        {{ .Content }}<|eot_id|>{{ else if eq .Role "assistant" }}<|start_header_id|>assistant<|end_header_id|>

        {{ .Content }}<|eot_id|>{{ end }}{{ end }}<|start_header_id|>assistant<|end_header_id|>

        """
        PARAMETER stop """<|end_of_text|>"""
        PARAMETER stop """<|eom_id|>"""
        PARAMETER stop """<|eot_id|>"""
        SYSTEM """Answer "briefly", please."""
        "#);
        let plain = ChatTemplate::built_in(Preamble::None);
        let pieces = Pieces::of(&plain, &files.tokenizer).unwrap();
        assert_eq!(pieces.without_system, "");
        assert_eq!(pieces.around[0][0], "<|start_header_id|>system<|end_header_id|>\n\n");
    }

    #[test]
    fn what_ollama_would_not_say_as_it_is_is_refused() {
        let files = ModelFiles::open("builtin:quickstart").unwrap();
        let refused = |prompt: &str| {
            let (tokenizer, chat) = (&files.tokenizer, &ChatTemplate::default());
            let speech = Speech { model: "m", tokenizer, chat, system: Some(prompt) };
            modelfile("model.gguf", speech).unwrap_err().to_string()
        };
        let shown = [refused("Say \"\"\"this\"\"\"."), refused("\"Yes\""), refused("One\u{a0}two")];
        insta::assert_snapshot!(shown.join("\n"), @r#"
        the system prompt of the adapter's training of `m` has no form in Ollama's Modelfile: "Say \"\"\"this\"\"\"." has quotation marks where they would end it. Write one by hand, beside the file that `graft export` makes without `--for`
        the system prompt of the adapter's training of `m` has no form in Ollama's Modelfile: "\"Yes\"" has quotation marks where they would end it. Write one by hand, beside the file that `graft export` makes without `--for`
        the system prompt of the adapter's training of `m` has no form in Ollama's Modelfile: it has the character U+00A0, which Ollama leaves out. Write one by hand, beside the file that `graft export` makes without `--for`
        "#);
    }
}
