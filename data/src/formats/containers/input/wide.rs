//! Texts in UTF-16, known by their mark of byte order, as UTF-8.

use std::io::{self, Read};

use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_16BE, UTF_16LE};

/// An encoding of two bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wide(&'static Encoding);

impl Wide {
    /// That of a text that begins so; `None` without its mark, and where the mark is that of UTF-32.
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        match head {
            [0xff, 0xfe, 0, 0, ..] => None,
            [0xff, 0xfe, ..] => Some(Self(UTF_16LE)),
            [0xfe, 0xff, ..] => Some(Self(UTF_16BE)),
            _ => None,
        }
    }

    pub(super) fn in_utf8(self, text: Box<dyn Read + Send>) -> impl Read + Send {
        Decoded {
            text,
            decoder: self.0.new_decoder_with_bom_removal(),
            read: vec![0; super::CAPACITY],
            left: 0..0,
            offset: 0,
            is_ended: false,
            is_done: false,
        }
    }
}

struct Decoded {
    text: Box<dyn Read + Send>,
    decoder: Decoder,
    read: Vec<u8>,
    /// What of `read` is to be decoded.
    left: std::ops::Range<usize>,
    /// Bytes of the text that were decoded.
    offset: u64,
    /// Nothing more comes to be decoded …
    is_ended: bool,
    /// … and the decoder was told so.
    is_done: bool,
}

impl Read for Decoded {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        // A character needs room.
        assert!(into.len() >= 8, "texts are read in large pieces");
        loop {
            if self.is_done {
                return Ok(0);
            }
            if self.left.is_empty() && !self.is_ended {
                let count = self.text.read(&mut self.read)?;
                self.is_ended = count == 0;
                self.left = 0..count;
            }
            let from = &self.read[self.left.clone()];
            let (result, taken, written) =
                self.decoder.decode_to_utf8_without_replacement(from, into, self.is_ended);
            self.left.start += taken;
            self.offset += taken as u64;
            if let DecoderResult::Malformed(length, behind) = result {
                let at = self.offset - u64::from(length) - u64::from(behind);
                let why = format!(
                    "it is in UTF-16, but not whole: half a character stands at offset {at}; save it as UTF-8"
                );
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            self.is_done = self.is_ended && result == DecoderResult::InputEmpty;
            if written > 0 {
                return Ok(written);
            }
        }
    }
}
