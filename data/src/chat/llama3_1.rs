//! Llama 3.1's chat format, rendered from structure: the template that Meta ships in
//! tokenizer_config.json of Llama-3.1-8B-Instruct (`chat_template`), written as Rust.
//!
//! A turn is `<|start_header_id|>role<|end_header_id|>\n\n{content, trimmed}<|eot_id|>`, and one
//! `<|begin_of_text|>` stands in front of everything. Control tokens are segments of their own, so
//! text can never turn into one, and the loss mask follows from the turn a segment belongs to.

use serde_json::{Map, Value};

use super::{Control, Piece, Preamble, Segment};
use crate::conversation::{Content, Conversation, Message, Role};
use crate::error::RowProblem;
use crate::python_text::strip;
use crate::template_json;

/// Before the definitions in the user's turn.
const GUIDANCE_FOR_USER: &str = "Given the following functions, please respond with a JSON for a \
function call with its proper arguments that best answers the given prompt.\n\n";

/// Before the definitions in the system turn; the template really has no blank behind the full stop.
const GUIDANCE_FOR_SYSTEM: &str = "You have access to the following functions. To call a function, \
please respond with JSON for a function call.";

const CALL_FORMAT: &str = "Respond in the format {\"name\": function name, \"parameters\": \
dictionary of argument name and its value}.Do not use variables.\n\n";

/// The tool that needs no mention: `Environment: ipython` says that code is run.
const CODE_INTERPRETER: &str = "code_interpreter";

/// See [`ChatTemplate::render`](super::ChatTemplate::render).
pub(super) fn render(
    preamble: &Preamble,
    conversation: &Conversation,
    generation_prompt: bool,
) -> Result<Vec<Segment>, RowProblem> {
    let Conversation { messages, tools, builtin_tools, tools_in_user_message } = conversation;
    let in_system = *tools_in_user_message == Some(false);
    let mut out = Rendering(vec![segment(Piece::Control(Control::BeginOfText), false)]);
    let mut rest = &messages[..];
    let (mut system, mut is_learnt) = (None, false);
    if let Some((Message { role: Role::System, content: Content::Text(text), learnt, .. }, after)) =
        rest.split_first()
    {
        (system, is_learnt, rest) = (Some(strip(text)), *learnt, after);
    }
    match preamble {
        Preamble::Official { date } => {
            let environment = environment(!tools.is_empty(), builtin_tools);
            let guidance = if in_system && !tools.is_empty() {
                format!("{GUIDANCE_FOR_SYSTEM}{CALL_FORMAT}{}", definitions(tools))
            } else {
                String::new()
            };
            let system = system.unwrap_or_default();
            let before = format!(
                "{environment}Cutting Knowledge Date: December 2023\nToday Date: {date}\n\n{guidance}"
            );
            out.turn(Role::System, &before, system, is_learnt);
        }
        Preamble::None if !tools.is_empty() || !builtin_tools.is_empty() => {
            return Err(RowProblem::Unsupported(
                "`tools` and `builtin_tools` need the official preamble: without it the template has \
                 no place for their definitions; set `preamble: official` or remove them"
                    .to_owned(),
            ));
        }
        Preamble::None => {
            if let Some(system) = system {
                out.turn(Role::System, "", system, is_learnt);
            }
        }
    }
    if !tools.is_empty() && !in_system {
        let Some((Message { role: Role::User, content: Content::Text(text), learnt, .. }, after)) =
            rest.split_first()
        else {
            return Err(RowProblem::Unsupported(
                "`tools` need a user turn right after the system prompt: the template puts their \
                 definitions there"
                    .to_owned(),
            ));
        };
        let definitions = definitions(tools);
        let before = format!("{GUIDANCE_FOR_USER}{CALL_FORMAT}{definitions}");
        out.turn(Role::User, &before, strip(text), *learnt);
        rest = after;
    }
    for message in rest {
        out.message(message, builtin_tools)?;
    }
    if generation_prompt {
        out.header(Role::Assistant);
        out.text("\n\n", false);
    }
    Ok(out.0)
}

/// The first lines of a system turn with tools.
fn environment(has_definitions: bool, builtin_tools: &[String]) -> String {
    if builtin_tools.is_empty() {
        return if has_definitions { "Environment: ipython\n" } else { "" }.to_owned();
    }
    let named: Vec<&str> =
        builtin_tools.iter().map(String::as_str).filter(|name| *name != CODE_INTERPRETER).collect();
    format!("Environment: ipython\nTools: {}\n\n", named.join(", "))
}

fn definitions(tools: &[Value]) -> String {
    tools.iter().map(|tool| template_json::indented(tool, 4) + "\n\n").collect()
}

/// The text behind `<|python_tag|>`: `brave_search.call(query="…")`.
fn builtin_call(name: &str, arguments: &Map<String, Value>) -> Result<String, RowProblem> {
    let mut written = Vec::with_capacity(arguments.len());
    for (argument, value) in arguments {
        let Value::String(text) = value else {
            return Err(RowProblem::Unsupported(format!(
                "the argument `{argument}` of the built-in tool `{name}` is {}: the template \
                 writes such calls as `{name}.call({argument}=\"…\")` and takes texts only",
                template_json::compact(value)
            )));
        };
        written.push(format!("{argument}=\"{text}\""));
    }
    Ok(format!("{name}.call({})", written.join(", ")))
}

struct Rendering(Vec<Segment>);

impl Rendering {
    fn message(&mut self, message: &Message, builtin_tools: &[String]) -> Result<(), RowProblem> {
        let Message { role, content, learnt, mark: _ } = message;
        match content {
            Content::Text(text) => self.turn(*role, "", strip(text), *learnt),
            // A text is "iterable" to the template, so it too is written as JSON, quotes included.
            Content::ToolResult(value) => {
                self.turn(*role, "", &template_json::compact(value), *learnt);
            }
            Content::ToolCall { name, arguments } => {
                self.header(*role);
                self.text("\n\n", false);
                if builtin_tools.contains(name) {
                    self.0.push(segment(Piece::Control(Control::PythonTag), *learnt));
                    self.text(&builtin_call(name, arguments)?, *learnt);
                } else {
                    let parameters = template_json::compact(&arguments.clone().into());
                    let call = format!("{{\"name\": \"{name}\", \"parameters\": {parameters}}}");
                    self.text(&call, *learnt);
                }
                let end = match builtin_tools {
                    [] => Control::EndOfTurn,
                    _ => Control::EndOfMessage,
                };
                self.0.push(segment(Piece::Control(end), *learnt));
            }
        }
        Ok(())
    }

    /// A whole turn, with what the template puts before its content; where it is learnt, its content and
    /// its end are targets.
    fn turn(&mut self, role: Role, before: &str, content: &str, target: bool) {
        self.header(role);
        if role == Role::Assistant || target {
            // The split expression of Llama 3 ends a piece after line breaks that a trimmed text
            // follows, so the two parts have the ids of the whole, as in a prompt that ends here.
            // What stands before a content ends in line breaks, too.
            self.text(&format!("\n\n{before}"), false);
            self.text(content, target);
        } else {
            self.text(&format!("\n\n{before}{content}"), false);
        }
        self.0.push(segment(Piece::Control(Control::EndOfTurn), target));
    }

    fn header(&mut self, role: Role) {
        self.0.push(segment(Piece::Control(Control::StartHeader), false));
        self.text(role.header(), false);
        self.0.push(segment(Piece::Control(Control::EndHeader), false));
    }

    fn text(&mut self, text: &str, target: bool) {
        if !text.is_empty() {
            self.0.push(segment(Piece::Text(text.to_owned()), target));
        }
    }
}

fn segment(piece: Piece, target: bool) -> Segment {
    Segment { piece, target }
}
