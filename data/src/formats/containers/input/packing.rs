//! Files that are packed by gzip, Zstandard, xz or bzip2: known by their first bytes, unpacked as they are
//! read.

use std::io::{self, BufReader, Read};

use bzip2::read::MultiBzDecoder;
use flate2::read::MultiGzDecoder;
use lzma_rust2::XzReader;

use super::raw::Raw;

/// A way to pack a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::formats::containers) enum Packing {
    Gzip,
    Zstandard,
    Xz,
    Bzip2,
}

/// By which first bytes each is known, and how names of such files end.
const ALL: [(Packing, &[u8], &[&str]); 4] = [
    (Packing::Gzip, b"\x1f\x8b", &["gz", "gzip"]),
    (Packing::Zstandard, b"\x28\xb5\x2f\xfd", &["zst", "zstd"]),
    (Packing::Xz, b"\xfd7zXZ\0", &["xz"]),
    (Packing::Bzip2, b"BZh", &["bz2"]),
];

/// The most memory that the window of a packed file may take: what the tools' own highest levels need.
const WINDOW: u32 = 128 << 20;

impl Packing {
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        let is_of = |magic: &[u8]| head.starts_with(magic);
        // A frame that holds nothing, which some writers of Zstandard put first.
        if head.len() > 4 && head[0] & 0xf0 == 0x50 && head[1..4] == *b"\x2a\x4d\x18" {
            return Some(Self::Zstandard);
        }
        let (packing, ..) = ALL.iter().find(|(_, magic, _)| is_of(magic))?;
        // A text may begin so: the level and the block's mark follow.
        let is_text = *packing == Self::Bzip2
            && !(head.len() >= 10
                && head[3].is_ascii_digit()
                && (head[4..10] == *b"1AY&SY" || head[4..10] == *b"\x17\x72\x45\x38\x50\x90"));
        (!is_text).then_some(*packing)
    }

    /// Whether names of packed files end so.
    pub(in crate::formats::containers) fn is_ending(ending: &str) -> bool {
        ALL.iter().any(|(.., endings)| endings.contains(&ending))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstandard => "Zstandard",
            Self::Xz => "xz",
            Self::Bzip2 => "bzip2",
        }
    }

    /// What is in `packed`, which is made of `raw`.
    pub(super) fn unpacked(
        self,
        packed: impl Read + Send + 'static,
        raw: Raw,
    ) -> io::Result<Box<dyn Read + Send>> {
        let packed = BufReader::with_capacity(super::CAPACITY, packed);
        let text: Box<dyn Read + Send> = match self {
            Self::Gzip => Box::new(MultiGzDecoder::new(packed)),
            Self::Zstandard => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
                decoder.window_log_max(WINDOW.ilog2())?;
                Box::new(decoder)
            }
            Self::Xz => Box::new(XzReader::new_mem_limit(packed, true, WINDOW >> 10)),
            Self::Bzip2 => Box::new(MultiBzDecoder::new(packed)),
        };
        Ok(Box::new(Unpacked { packing: self, text, raw, bytes: 0 }))
    }
}

/// What comes out of a packed file; its errors say that it is packed.
struct Unpacked {
    packing: Packing,
    text: Box<dyn Read + Send>,
    raw: Raw,
    bytes: u64,
}

/// A file that unpacks to more than this is held to [`RATIO`].
const SMALL: u64 = 1 << 30;
/// The most that rows can be packed: text comes to about a tenth, gzip packs nothing beyond a thousandth.
const RATIO: u64 = 200;

impl Read for Unpacked {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let name = self.packing.name();
        let read = self.text.read(into).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            kind => {
                let way_out = if error.to_string().contains("too much memory")
                    || error.to_string().contains("memory too big")
                {
                    "The window that it was packed with is larger than 128 MiB: pack it anew without `--long`"
                } else {
                    "Is it whole? Fetch or pack it again"
                };
                let why = format!("it is packed by {name}, and cannot be unpacked: {error}. {way_out}");
                io::Error::new(kind, why)
            }
        })?;
        self.bytes += read as u64;
        if self.bytes > SMALL && self.bytes / RATIO > self.raw.count() {
            let why = format!(
                "it is packed by {name}, and unpacks to more than {RATIO} times its size: no file of rows does. \
                 If it is one, unpack it first"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(read)
    }
}
