//! Inputs that nobody meant: each is a function of a number, made from a small corpus by cutting,
//! doubling, moving, crossing and overwriting, the ways in which files break and in which people
//! break them.

/// How many inputs a run tries: `GRAFT_MUTATIONS`, or this many.
pub(crate) fn inputs(default: u64) -> u64 {
    let asked = std::env::var("GRAFT_MUTATIONS").ok();
    asked.map_or(default, |text| text.parse().expect("GRAFT_MUTATIONS is a number"))
}

/// The number of the first input: `GRAFT_MUTATIONS_FROM`, so that parts can run side by side.
pub(crate) fn first() -> u64 {
    let asked = std::env::var("GRAFT_MUTATIONS_FROM").ok();
    asked.map_or(0, |text| text.parse().expect("GRAFT_MUTATIONS_FROM is a number"))
}

/// SplitMix64 (Steele, Lea and Flood 2014).
pub(crate) struct Draw(u64);

impl Draw {
    /// The numbers of input `number`.
    pub(crate) fn new(number: u64) -> Self {
        Self(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    /// Below `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }

    /// One of them.
    pub(crate) fn one<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// A stretch of `length` bytes.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        start..start + self.below((length - start).min(64) + 1)
    }
}

/// Bytes that mean something to some reader.
const WORDS: [&[u8]; 36] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b",",
    b":",
    b"\n",
    b"\r\n",
    b"\0",
    b"\t",
    b" ",
    b"null",
    b"true",
    b"0",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xc3",
    b"\x1b[2J",
    b"\xe2\x80\xae",
    b"\\ud800",
    b"\\u0000",
    b"<|eot_id|>",
    b"{{",
    b"{%",
    b"\"role\":",
    b"\"content\":",
    b"\"a\":1,\"a\":2,",
    b"[[[[[[[[",
    b"{\"a\":{\"a\":",
    b"99999999999999999999",
    b"'",
];

/// One input: a seed of the corpus, or two, after up to eight changes.
pub(crate) fn mutate(corpus: &[Vec<u8>], draw: &mut Draw) -> Vec<u8> {
    let mut bytes = draw.one(corpus).clone();
    for _ in 0..draw.below(9) {
        let range = draw.range(bytes.len());
        match draw.below(9) {
            0 => bytes.truncate(range.start),
            1 => drop(bytes.drain(range)),
            2 => {
                let copies = 1 + draw.below(3);
                let part = bytes[range.clone()].repeat(copies);
                bytes.splice(range.start..range.start, part);
            }
            3 => {
                let part: Vec<u8> = bytes.drain(range).collect();
                let at = draw.below(bytes.len() + 1);
                bytes.splice(at..at, part);
            }
            4 => {
                let other = draw.one(corpus);
                let from = draw.range(other.len());
                bytes.splice(range, other[from].iter().copied());
            }
            5 => {
                let word = *draw.one(&WORDS);
                bytes.splice(range.start..range.start, word.iter().copied());
            }
            6 => {
                let word = *draw.one(&WORDS);
                bytes.splice(range, word.iter().copied());
            }
            7 => {
                if let Some(byte) = bytes.get_mut(range.start) {
                    *byte ^= 1 << draw.below(8);
                }
            }
            _ => {
                if let Some(byte) = bytes.get_mut(range.start) {
                    *byte = draw.below(256) as u8;
                }
            }
        }
        bytes.truncate(1 << 14);
    }
    bytes
}

/// The files of a folder, in the order of their names.
pub(crate) fn corpus(folder: &std::path::Path) -> Vec<Vec<u8>> {
    let files = std::fs::read_dir(folder).expect("the corpus is committed");
    let mut paths: Vec<_> = files.map(|file| file.expect("a readable folder").path()).collect();
    paths.sort();
    let read = |path| std::fs::read(path).expect("a readable file");
    let corpus: Vec<Vec<u8>> = paths.iter().map(read).collect();
    assert!(!corpus.is_empty(), "{} is empty", folder.display());
    corpus
}
