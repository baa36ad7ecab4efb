//! Bytes of a terminal as keys: UTF-8, control characters, and the escape sequences of xterm and its
//! like (ECMA-48, section 5.4; bracketed paste as xterm's ctlseqs has it).

use std::io;

/// What was pressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    /// A text that was pasted, line breaks included.
    Paste(String),
    Enter,
    Backspace,
    Delete,
    Left,
    Right,
    WordLeft,
    WordRight,
    Home,
    End,
    Up,
    Down,
    /// Deletes the word to the left.
    CutWord,
    CutToStart,
    CutToEnd,
    ClearScreen,
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-D; on a text that is not empty it deletes.
    EndOfInput,
    /// One that does nothing here.
    Other,
}

/// Where bytes come from.
pub(super) trait KeyBytes {
    /// The next byte; `None` at the end, and where it does not `wait`, if there is none yet.
    ///
    /// # Errors
    /// The terminal's.
    fn byte(&mut self, wait: bool) -> io::Result<Option<u8>>;
}

/// Bytes of a pasted text: far beyond what any model reads.
const LONGEST_PASTE: usize = 16 << 20;

/// The next key; `None` at the end of input.
pub(super) fn next(source: &mut impl KeyBytes) -> io::Result<Option<Key>> {
    let Some(byte) = source.byte(true)? else { return Ok(None) };
    let key = match byte {
        0x01 => Key::Home,
        0x02 => Key::Left,
        0x03 => Key::Interrupt,
        0x04 => Key::EndOfInput,
        0x05 => Key::End,
        0x06 => Key::Right,
        0x08 | 0x7f => Key::Backspace,
        b'\t' => Key::Char('\t'),
        b'\r' | b'\n' => Key::Enter,
        0x0b => Key::CutToEnd,
        0x0c => Key::ClearScreen,
        0x0e => Key::Down,
        0x10 => Key::Up,
        0x15 => Key::CutToStart,
        0x17 => Key::CutWord,
        0x1b => escape(source)?,
        0x00..0x20 => Key::Other,
        _ => character(byte, source)?.map_or(Key::Other, Key::Char),
    };
    Ok(Some(key))
}

/// The rest of a character of UTF-8; `None` for what is none.
fn character(first: u8, source: &mut impl KeyBytes) -> io::Result<Option<char>> {
    let length = match first {
        0x00..0x80 => 1,
        0xc0..0xe0 => 2,
        0xe0..0xf0 => 3,
        0xf0..0xf8 => 4,
        _ => return Ok(None),
    };
    let mut bytes = vec![first];
    while bytes.len() < length {
        match source.byte(true)? {
            Some(byte) => bytes.push(byte),
            None => return Ok(None),
        }
    }
    Ok(std::str::from_utf8(&bytes).ok().and_then(|text| text.chars().next()))
}

fn escape(source: &mut impl KeyBytes) -> io::Result<Key> {
    Ok(match source.byte(false)? {
        Some(b'[') => return sequence(source),
        // Arrows of a keypad in application mode.
        Some(b'O') => source.byte(true)?.map_or(Key::Other, |last| plain(last, "")),
        Some(b'b') => Key::WordLeft,
        Some(b'f') => Key::WordRight,
        Some(0x7f) => Key::CutWord,
        _ => Key::Other,
    })
}

/// A control sequence: parameters, and the byte that says what they are of.
fn sequence(source: &mut impl KeyBytes) -> io::Result<Key> {
    let mut parameters = String::new();
    loop {
        match source.byte(true)? {
            None => return Ok(Key::Other),
            Some(last @ 0x40..0x7f) => {
                if (last, parameters.as_str()) == (b'~', "200") {
                    return paste(source);
                }
                return Ok(plain(last, &parameters));
            }
            Some(byte) if parameters.len() < 16 => parameters.push(char::from(byte)),
            Some(_) => {}
        }
    }
}

fn plain(last: u8, parameters: &str) -> Key {
    // Ctrl or Alt and an arrow go by words.
    let by_words = parameters.ends_with(";5") || parameters.ends_with(";3");
    match (last, parameters) {
        (b'A', _) => Key::Up,
        (b'B', _) => Key::Down,
        (b'C', _) if by_words => Key::WordRight,
        (b'D', _) if by_words => Key::WordLeft,
        (b'C', _) => Key::Right,
        (b'D', _) => Key::Left,
        (b'H', _) | (b'~', "1" | "7") => Key::Home,
        (b'F', _) | (b'~', "4" | "8") => Key::End,
        (b'~', "3") => Key::Delete,
        _ => Key::Other,
    }
}

/// A pasted text up to the sequence that ends it.
fn paste(source: &mut impl KeyBytes) -> io::Result<Key> {
    const END: &[u8] = b"\x1b[201~";
    let mut bytes = Vec::new();
    while let Some(byte) = source.byte(true)? {
        bytes.push(byte);
        if bytes.ends_with(END) {
            bytes.truncate(bytes.len() - END.len());
            break;
        }
        if bytes.len() > LONGEST_PASTE {
            break;
        }
    }
    let text = String::from_utf8_lossy(&bytes).replace("\r\n", "\n").replace('\r', "\n");
    Ok(Key::Paste(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Typed<'a>(std::slice::Iter<'a, u8>);

    impl KeyBytes for Typed<'_> {
        fn byte(&mut self, _wait: bool) -> io::Result<Option<u8>> {
            Ok(self.0.next().copied())
        }
    }

    fn keys(typed: &[u8]) -> Vec<Key> {
        let mut source = Typed(typed.iter());
        std::iter::from_fn(|| next(&mut source).unwrap()).collect()
    }

    #[test]
    fn bytes_are_the_keys_that_terminals_send() {
        let expected = [Key::Char('a'), Key::Char('é'), Key::Char('漢'), Key::Char('😀')];
        assert_eq!(keys("aé漢😀".as_bytes()), expected);
        for (typed, key) in [
            ("\x1b[A", Key::Up),
            ("\x1bOB", Key::Down),
            ("\x1b[1;5C", Key::WordRight),
            ("\x1b[1;3D", Key::WordLeft),
            ("\x1bb", Key::WordLeft),
            ("\x1b[H", Key::Home),
            ("\x1b[4~", Key::End),
            ("\x1b[3~", Key::Delete),
            ("\x7f", Key::Backspace),
            ("\x03", Key::Interrupt),
            ("\x04", Key::EndOfInput),
            ("\r", Key::Enter),
            ("\x1b", Key::Other),
            ("\x1b[<35;1;1M", Key::Other),
        ] {
            assert_eq!(keys(typed.as_bytes()), [key], "{typed:?}");
        }
    }

    #[test]
    fn a_pasted_text_is_one_key_whatever_stands_in_it() {
        let typed = b"x\x1b[200~one\r\ntwo\rthree\x1b[31m\x03\x1b[201~y";
        let pasted = Key::Paste("one\ntwo\nthree\x1b[31m\x03".to_owned());
        assert_eq!(keys(typed), [Key::Char('x'), pasted, Key::Char('y')]);
    }

    #[test]
    fn bytes_that_are_no_text_do_nothing_and_end() {
        assert_eq!(keys(b"\xff\x80"), [Key::Other, Key::Other]);
        assert_eq!(keys(b"\xe6\xbc"), [Key::Other]);
        assert_eq!(keys(b"\xc3a"), [Key::Other]);
        assert_eq!(keys(b"\x1b[200~cut"), [Key::Paste("cut".to_owned())]);
    }
}
