//! The footer of a Parquet file, looked at before the library reads it: that goes as deep into a schema as the
//! schema does.
//!
//! Written in Thrift's compact protocol: <https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use super::pages::PageSizes;

/// The most bytes of a footer that is read.
const MOST_BYTES: u64 = 64 << 20;
/// The most levels of a schema: a list and a struct in it are three.
const MOST_LEVELS: usize = 64;
/// The most levels of anything else in a footer.
const MOST_NESTED: usize = 32;

const MAGIC: &[u8] = b"PAR1";
/// What follows a struct's last field.
const END: u8 = 0;
const LIST: u8 = 9;
const STRUCT: u8 = 12;

/// Refuses a file whose footer is none, is too long, or has too deep a schema.
pub(super) fn check(file: &mut File) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let length = file.seek(SeekFrom::End(0)).map_err(failed)?;
    let mut tail = [0; 8];
    if length < 12 {
        return Err("it is cut short".to_owned());
    }
    file.seek(SeekFrom::End(-8)).map_err(failed)?;
    file.read_exact(&mut tail).map_err(failed)?;
    let (size, magic) = tail.split_at(4);
    if magic == b"PARE" {
        return Err("its footer is encrypted".to_owned());
    }
    if magic != MAGIC {
        return Err("it does not end in the mark of such files: it is cut short, or was not written to its end".to_owned());
    }
    let size = size.iter().rev().fold(0_u64, |size, byte| (size << 8) | u64::from(*byte));
    if size > length - 12 {
        return Err(format!("its footer has {size} bytes, the file {length}"));
    }
    if size > MOST_BYTES {
        return Err(format!("its footer has {size} bytes; {MOST_BYTES} are the most that is read"));
    }
    let mut footer = vec![0; usize::try_from(size).map_err(|error| error.to_string())?];
    file.seek(SeekFrom::Start(length - 8 - size)).map_err(failed)?;
    file.read_exact(&mut footer).map_err(failed)?;
    let levels = levels(&footer).ok_or("its footer cannot be read: it was damaged")?;
    if levels > MOST_LEVELS {
        return Err(format!(
            "its columns are nested {levels} levels deep; {MOST_LEVELS} are the most that is read"
        ));
    }
    Ok(())
}

/// How deep the schema of a footer is; `None` where it is no footer.
fn levels(footer: &[u8]) -> Option<usize> {
    let mut bytes = Bytes(footer);
    let mut id = 0;
    loop {
        match bytes.field(&mut id)? {
            END => return None,
            LIST if id == 2 => return bytes.schema(),
            kind => bytes.skip(kind, MOST_NESTED)?,
        }
    }
}

/// What the header of a page says; `None` where the bytes hold no whole header.
pub(super) fn page_sizes(header: &[u8]) -> Option<PageSizes> {
    /// The type of a page that is a dictionary.
    const DICTIONARY: i64 = 2;
    const NUMBER: u8 = 5;
    let mut bytes = Bytes(header);
    let (mut kind_of_page, mut unpacked, mut packed) = (None, None, None);
    let mut id = 0;
    loop {
        let kind = bytes.field(&mut id)?;
        let place = match (kind, id) {
            (END, _) => break,
            (NUMBER, 1) => &mut kind_of_page,
            (NUMBER, 2) => &mut unpacked,
            (NUMBER, 3) => &mut packed,
            _ => {
                bytes.skip(kind, MOST_NESTED)?;
                continue;
            }
        };
        *place = Some(unzigzag(bytes.varint()?));
    }
    Some(PageSizes {
        header: header.len() - bytes.0.len(),
        is_dictionary: kind_of_page? == DICTIONARY,
        unpacked: u64::try_from(unpacked?).ok()?,
        packed: u64::try_from(packed?).ok()?,
    })
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn pass(&mut self, count: u64) -> Option<()> {
        self.0 = self.0.get(usize::try_from(count).ok()?..)?;
        Some(())
    }

    /// The type of a struct's next field, whose number follows `id`; [`END`] behind the last one.
    fn field(&mut self, id: &mut i64) -> Option<u8> {
        let head = self.byte()?;
        if head == END {
            return Some(END);
        }
        *id = match head >> 4 {
            0 => unzigzag(self.varint()?),
            delta => *id + i64::from(delta),
        };
        Some(head & 0xf)
    }

    /// Length and type of a list.
    fn list(&mut self) -> Option<(u64, u8)> {
        let head = self.byte()?;
        let length = match head >> 4 {
            15 => self.varint()?,
            short => u64::from(short),
        };
        Some((length, head & 0xf))
    }

    fn skip(&mut self, kind: u8, nested: usize) -> Option<()> {
        let nested = nested.checked_sub(1)?;
        match kind {
            // True and false, which stand in the type of a field.
            1 | 2 => Some(()),
            3 => self.pass(1),
            4..=6 => self.varint().map(|_| ()),
            7 => self.pass(8),
            8 => {
                let length = self.varint()?;
                self.pass(length)
            }
            LIST | 10 => {
                let (length, kind) = self.list()?;
                for _ in 0..length {
                    // In a list they are a byte each.
                    self.skip(if kind < 3 { 3 } else { kind }, nested)?;
                }
                Some(())
            }
            STRUCT => {
                let mut id = 0;
                loop {
                    match self.field(&mut id)? {
                        END => return Some(()),
                        kind => self.skip(kind, nested)?,
                    }
                }
            }
            // Maps; footers have none.
            _ => None,
        }
    }

    /// How deep the list of a schema's elements is, each followed by as many as it says it has.
    fn schema(&mut self) -> Option<usize> {
        let (length, kind) = self.list()?;
        // Elements that are still to come, of every one that is not complete.
        let mut open: Vec<u64> = Vec::new();
        let mut deepest = 0;
        for _ in 0..length {
            let mut children = 0;
            let mut id = 0;
            if kind != STRUCT {
                return None;
            }
            loop {
                match self.field(&mut id)? {
                    END => break,
                    5 if id == 5 => children = u64::try_from(unzigzag(self.varint()?)).ok()?,
                    kind => self.skip(kind, MOST_NESTED)?,
                }
            }
            while open.last() == Some(&0) {
                open.pop();
            }
            if let Some(left) = open.last_mut() {
                *left -= 1;
            }
            open.push(children);
            deepest = deepest.max(open.len());
        }
        Some(deepest)
    }
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A footer of elements with so many children each.
    fn footer(children: &[u8]) -> Vec<u8> {
        // Version 1, then the list: of more than 14 elements the length follows.
        let mut bytes = vec![0x15, 2, 0x19, 0xfc, children.len() as u8];
        for &children in children {
            // A name, then the fifth field.
            bytes.extend([0x48, 1, b'a', 0x15, 2 * children, 0]);
        }
        bytes.push(0);
        bytes
    }

    #[test]
    fn a_page_is_as_large_as_its_header_says() {
        // Type 2, 300 bytes unpacked, 5 packed, and a struct that is passed over.
        let header = [0x15, 4, 0x15, 0xd8, 4, 0x15, 10, 0x4c, 0x15, 2, 0, 0, 9, 9];
        let sizes = PageSizes { header: 12, is_dictionary: true, unpacked: 300, packed: 5 };
        assert_eq!(page_sizes(&header), Some(sizes));
        for end in 0..12 {
            assert_eq!(page_sizes(&header[..end]), None, "cut to {end} bytes");
        }
    }

    #[test]
    fn a_schema_is_as_deep_as_its_elements_say() {
        assert_eq!(levels(&footer(&[1, 0])), Some(2));
        assert_eq!(levels(&footer(&[2, 1, 0, 1, 1, 0])), Some(4));
        assert_eq!(levels(&footer(&[1; 100])), Some(100));
        let whole = footer(&[2, 1, 0, 1, 1, 0]);
        for end in 0..whole.len() - 2 {
            assert_eq!(levels(&whole[..end]), None, "cut to {end} bytes");
        }
    }
}
