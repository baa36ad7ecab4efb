//! What a PDF unpacks to, before anybody unpacks it: the library that reads it has no bound of its own.

use std::io::Read;

use flate2::read::{DeflateDecoder, ZlibDecoder};
use hayro_syntax::object::{Name, Object};
use hayro_syntax::{Filter, Pdf};

use crate::budget::Budget;
use crate::error::Why;
use crate::kind::Kind;

/// To how many bytes each way of packing may unpack one.
const LZW: u64 = 1_500;
const DEFLATE: u64 = 1_032;
const RUN_LENGTH: u64 = 64;

/// Packed data within packed data further than this is packed for nothing.
const DEEPEST: usize = 4;

/// Unpacks every stretch that follows `stream` and can be, each under the budget; and all that hold objects together,
/// as these are kept.
pub(super) fn check_packed(bytes: &[u8], budget: &Budget) -> Result<(), Why> {
    /// How far before its stream a dictionary begins, at most as a rule.
    const DICTIONARY: usize = 512;
    for at in memchr::memmem::find_iter(bytes, b"stream") {
        let behind = &bytes[at + b"stream".len()..];
        let begins = behind.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        // Of `endstream` nothing follows that could be unpacked.
        if begins == 0 || bytes[..at].ends_with(b"end") {
            continue;
        }
        let size = unpacked(&behind[begins..], budget, 0)?;
        let dictionary = &bytes[at.saturating_sub(DICTIONARY)..at];
        if memchr::memmem::find(dictionary, b"/ObjStm").is_some() {
            budget.unpack(size)?;
        }
    }
    Ok(())
}

/// The size of what packed data unpacks to, in the largest of its steps.
fn unpacked(packed: &[u8], budget: &Budget, depth: usize) -> Result<u64, Why> {
    budget.time()?;
    let mut plain = Vec::new();
    // What goes wrong in the middle went well before.
    let most = budget.limits.unpacked + 1;
    let _ = ZlibDecoder::new(packed).take(most).read_to_end(&mut plain);
    if plain.is_empty() {
        let _ = DeflateDecoder::new(packed).take(most).read_to_end(&mut plain);
    }
    let size = plain.len() as u64;
    budget.one_stream(size)?;
    // Packed again: data of another kind looks like it by chance, and then ends at once.
    let is_packed = plain.len() >= 2
        && plain[0] & 0x0f == 8
        && u16::from_be_bytes([plain[0], plain[1]]).is_multiple_of(31);
    if is_packed && depth < DEEPEST {
        return Ok(size.max(unpacked(&plain, budget, depth + 1)?));
    }
    Ok(size)
}

/// Looks at the streams that the file's own scan could not judge: those packed several times, or by other means.
pub(super) fn check_streams(pdf: &Pdf, budget: &Budget) -> Result<(), Why> {
    for object in pdf.objects() {
        budget.time()?;
        let Object::Stream(stream) = object else { continue };
        let filters = stream.filters();
        // Pictures are not looked at.
        let is_picture = filters.iter().any(|filter| {
            matches!(
                filter,
                Filter::DctDecode
                    | Filter::JpxDecode
                    | Filter::CcittFaxDecode
                    | Filter::Jbig2Decode
            )
        });
        let is_image =
            stream.dict().get::<Name<'_>>("Subtype").is_some_and(|name| &*name == b"Image");
        if is_picture || is_image || filters.is_empty() {
            continue;
        }
        let ratio = filters.iter().fold(1_u64, |ratio, filter| {
            ratio.saturating_mul(match filter {
                Filter::LzwDecode => LZW,
                Filter::FlateDecode => DEFLATE,
                Filter::RunLengthDecode => RUN_LENGTH,
                _ => 1,
            })
        });
        // The scan has seen what is packed in the way that all do, unless the file is encrypted.
        if filters.len() == 1 && ratio == DEFLATE {
            let raw = stream.raw_data();
            if matches!(raw, std::borrow::Cow::Owned(_)) {
                unpacked(&raw, budget, 0)?;
            }
            continue;
        }
        let most = ratio.saturating_mul(stream.raw_data().len() as u64);
        if most > budget.limits.unpacked.saturating_mul(4) {
            let limit = budget.limits.unpacked;
            return Err(Why::Limit {
                kind: Kind::Pdf,
                what: "bytes that one stream may unpack to",
                found: format!("up to {most}"),
                limit: limit.saturating_mul(4),
            });
        }
    }
    Ok(())
}
