//! A plain text that is one row, `{"text": …}`.

use serde_json::{Map, Value};

use super::foreign::foreign;
use super::input::{FileDigest, Input};
use super::{Container, Record, Records};
use crate::error::Error;
use crate::formats::MOST_BYTES_OF_A_ROW;

pub(super) static CONTAINER: Container = Container {
    endings: &["txt", "md"],
    of_text: true,
    begins: |_| false,
    foreign,
    open: |input| Ok(Box::new(PlainText { input, is_read: false })),
};

#[derive(Debug)]
struct PlainText {
    input: Input,
    is_read: bool,
}

impl Records for PlainText {
    fn next(&mut self) -> Result<Option<Record>, Error> {
        if std::mem::replace(&mut self.is_read, true) {
            return Ok(None);
        }
        let text = read(&mut self.input)?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        let value = Value::Object(Map::from_iter([("text".to_owned(), Value::String(text))]));
        let bytes = self.input.offset() as usize;
        Ok(Some(Record { value, line: 1, item: None, bytes, of_texts: false }))
    }

    fn digest(self: Box<Self>) -> Result<FileDigest, Error> {
        self.input.digest()
    }
}

/// The text without its mark of byte order.
fn read(input: &mut Input) -> Result<String, Error> {
    let (limit, mark) = (MOST_BYTES_OF_A_ROW, "\u{feff}".as_bytes());
    let Some(mut bytes) = input.read_to_end(limit)? else {
        return Err(Error::LongDocument { path: input.path.clone(), limit });
    };
    let mark = if bytes.starts_with(mark) { mark.len() } else { 0 };
    bytes.drain(..mark);
    let zeros = bytes.iter().rev().take_while(|&&byte| byte == 0).count();
    if zeros > 0 {
        let what = format!(
            "its last {zeros} bytes are zero, from byte {} on: it was not written to its end; cut them off",
            mark + bytes.len() - zeros
        );
        return Err(Error::NotRows { path: input.path.clone(), what });
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid].split(|&byte| byte == b'\n').count();
        Error::NotUtf8 { path: input.path.clone(), line, offset: (valid + mark) as u64 }
    })
}
