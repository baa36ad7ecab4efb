//! The text of a line, where its cursor stands, and the lines before it.

use super::keys::Key;

/// Lines that are remembered.
const REMEMBERED: usize = 1_000;

/// A line that is written, and those that were.
#[derive(Debug, Default)]
pub(super) struct Text {
    line: Vec<char>,
    /// Characters before the cursor.
    at: usize,
    before: Vec<String>,
    /// Which of `before` is shown; as many as there are for the line that is written.
    place: usize,
    /// The line that is written while another one is shown.
    draft: Vec<char>,
}

impl Text {
    /// Begins an empty line.
    pub(super) fn begin(&mut self) {
        self.line.clear();
        self.draft.clear();
        (self.at, self.place) = (0, self.before.len());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// The line, and the characters before its cursor.
    pub(super) fn shown(&self) -> (String, usize) {
        (self.line.iter().collect(), self.at)
    }

    /// The finished line, which is remembered.
    pub(super) fn take(&mut self) -> String {
        let line: String = self.line.iter().collect();
        if !line.trim().is_empty() && self.before.last() != Some(&line) {
            self.before.push(line.clone());
            if self.before.len() > REMEMBERED {
                self.before.remove(0);
            }
        }
        line
    }

    /// Does what a key asks of the text.
    pub(super) fn press(&mut self, key: Key) {
        match key {
            Key::Char(character) => self.insert(character),
            Key::Paste(text) => {
                let pasted: Vec<char> = text.chars().collect();
                let end = self.at + pasted.len();
                self.line.splice(self.at..self.at, pasted);
                self.at = end;
            }
            Key::Backspace => self.cut(self.at.saturating_sub(1), self.at),
            Key::Delete | Key::EndOfInput => self.cut(self.at, (self.at + 1).min(self.line.len())),
            Key::Left => self.at = self.at.saturating_sub(1),
            Key::Right => self.at = (self.at + 1).min(self.line.len()),
            Key::WordLeft => self.at = self.word_left(),
            Key::WordRight => self.at = self.word_right(),
            Key::Home => self.at = 0,
            Key::End => self.at = self.line.len(),
            Key::Up => self.show(self.place.checked_sub(1)),
            Key::Down => self.show(Some(self.place + 1).filter(|&next| next <= self.before.len())),
            Key::CutWord => self.cut(self.word_left(), self.at),
            Key::CutToStart => self.cut(0, self.at),
            Key::CutToEnd => self.cut(self.at, self.line.len()),
            Key::Enter | Key::ClearScreen | Key::Interrupt | Key::Other => {}
        }
    }

    fn insert(&mut self, character: char) {
        self.line.insert(self.at, character);
        self.at += 1;
    }

    fn cut(&mut self, from: usize, to: usize) {
        self.line.drain(from..to);
        self.at = from;
    }

    fn word_left(&self) -> usize {
        let mut at = self.at;
        while at > 0 && !self.line[at - 1].is_alphanumeric() {
            at -= 1;
        }
        while at > 0 && self.line[at - 1].is_alphanumeric() {
            at -= 1;
        }
        at
    }

    fn word_right(&self) -> usize {
        let mut at = self.at;
        while at < self.line.len() && !self.line[at].is_alphanumeric() {
            at += 1;
        }
        while at < self.line.len() && self.line[at].is_alphanumeric() {
            at += 1;
        }
        at
    }

    fn show(&mut self, place: Option<usize>) {
        let Some(place) = place else { return };
        if self.place == self.before.len() {
            self.draft = std::mem::take(&mut self.line);
        }
        self.line = match self.before.get(place) {
            Some(line) => line.chars().collect(),
            None => std::mem::take(&mut self.draft),
        };
        (self.place, self.at) = (place, self.line.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &mut Text, line: &str) {
        line.chars().for_each(|character| text.press(Key::Char(character)));
    }

    /// The line with a bar where the cursor stands.
    fn shown(text: &Text) -> String {
        let (line, at) = text.shown();
        let (before, behind): (Vec<_>, Vec<_>) =
            line.chars().enumerate().partition(|(place, _)| *place < at);
        let join = |part: Vec<(usize, char)>| part.into_iter().map(|(_, c)| c).collect::<String>();
        format!("{}|{}", join(before), join(behind))
    }

    #[test]
    fn keys_edit_the_line() {
        let mut text = Text::default();
        typed(&mut text, "When is thé archive");
        let mut steps = Vec::new();
        for key in [
            Key::WordLeft,
            Key::WordLeft,
            Key::Right,
            Key::Delete,
            Key::Paste("E\ny".to_owned()),
            Key::Backspace,
            Key::CutWord,
            Key::End,
            Key::CutWord,
            Key::Left,
            Key::CutToEnd,
            Key::Home,
            Key::Backspace,
            Key::Left,
            Key::WordRight,
            Key::CutToStart,
            Key::EndOfInput,
            Key::Right,
            Key::Right,
            Key::Right,
            Key::Right,
            Key::Delete,
        ] {
            let name = format!("{key:?}");
            text.press(key);
            steps.push(format!("{name}: {}", shown(&text).replace('\n', "↵").replace(' ', "·")));
        }
        insta::assert_snapshot!(steps.join("\n"), @r#"
        WordLeft: When·is·thé·|archive
        WordLeft: When·is·|thé·archive
        Right: When·is·t|hé·archive
        Delete: When·is·t|é·archive
        Paste("E\ny"): When·is·tE↵y|é·archive
        Backspace: When·is·tE↵|é·archive
        CutWord: When·is·|é·archive
        End: When·is·é·archive|
        CutWord: When·is·é·|
        Left: When·is·é|·
        CutToEnd: When·is·é|
        Home: |When·is·é
        Backspace: |When·is·é
        Left: |When·is·é
        WordRight: When|·is·é
        CutToStart: |·is·é
        EndOfInput: |is·é
        Right: i|s·é
        Right: is|·é
        Right: is·|é
        Right: is·é|
        Delete: is·é|
        "#);
    }

    #[test]
    fn lines_before_come_back_and_the_draft_waits() {
        let mut text = Text::default();
        for line in ["one", "one", " ", "two"] {
            text.begin();
            typed(&mut text, line);
            assert_eq!(text.take(), line);
        }
        text.begin();
        typed(&mut text, "dra");
        let mut seen = Vec::new();
        for key in [Key::Down, Key::Up, Key::Up, Key::Up, Key::Down, Key::Down, Key::Down] {
            text.press(key);
            seen.push(text.shown().0);
        }
        assert_eq!(seen, ["dra", "two", "one", "one", "two", "dra", "dra"]);
    }
}
