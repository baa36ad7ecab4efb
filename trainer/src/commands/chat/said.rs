//! What a line of a conversation asks for.

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Nothing: it is empty.
    Nothing,
    /// An answer to this text.
    Text(String),
    /// The list of commands.
    Help,
    /// The end.
    Quit,
    /// A new conversation.
    Clear,
    /// The system prompt in use.
    ShowSystem,
    /// Another system prompt, an empty one for none.
    System(String),
    /// A command that there is not.
    Unknown(String),
}

/// The commands, for people.
pub(super) const HELP: &str = "\
/clear          forget the conversation and start over
/system TEXT    start over with this system prompt; /system \"\" for none, /system alone shows it
/help           this list
/quit           end, as Ctrl-D does
//TEXT          say /TEXT to the model
Ctrl-C          end the answer that is being written";

impl Said {
    /// Reads a line.
    pub(super) fn of(line: &str) -> Self {
        let trimmed = line.trim();
        if trimmed.is_empty() {
            return Self::Nothing;
        }
        if trimmed.starts_with("//") {
            return Self::Text(line.replacen("//", "/", 1));
        }
        if !trimmed.starts_with('/') {
            return Self::Text(line.to_owned());
        }
        let (command, rest) = trimmed.split_once(char::is_whitespace).unwrap_or((trimmed, ""));
        match (command, rest.trim()) {
            ("/help", "") => Self::Help,
            ("/quit" | "/exit", "") => Self::Quit,
            ("/clear", "") => Self::Clear,
            ("/system", "") => Self::ShowSystem,
            ("/system", "\"\"") => Self::System(String::new()),
            ("/system", text) => Self::System(text.to_owned()),
            _ => Self::Unknown(trimmed.chars().take(60).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_command_a_text_or_nothing() {
        for (line, said) in [
            ("  ", Said::Nothing),
            ("/help", Said::Help),
            (" /quit ", Said::Quit),
            ("/exit", Said::Quit),
            ("/clear", Said::Clear),
            ("/system", Said::ShowSystem),
            ("/system  Be brief. ", Said::System("Be brief.".to_owned())),
            ("/system \"\"", Said::System(String::new())),
            ("/clear all", Said::Unknown("/clear all".to_owned())),
            ("/etc/passwd?", Said::Unknown("/etc/passwd?".to_owned())),
            ("//etc/passwd?", Said::Text("/etc/passwd?".to_owned())),
            (" 1/2?", Said::Text(" 1/2?".to_owned())),
        ] {
            assert_eq!(Said::of(line), said, "{line}");
        }
    }
}
