//! What a file is that holds no rows: told by its first bytes, with the way to the rows.

/// Another kind of file, and the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Foreign {
    what: String,
    way_out: &'static str,
}

impl std::fmt::Display for Foreign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "it is {}; {}", self.what, self.way_out)
    }
}

const PACKED: &str = "it was packed twice; unpack it once first";
const UNPACK: &str = "unpack it first";
const FROM_TABLE: &str = "write its rows as JSON lines first, with pandas for example: \
     `pandas.read_parquet(FILE).to_json(\"rows.jsonl\", orient=\"records\", lines=True)`, or \
     `read_feather`, `read_excel`, … in its place";
const WEIGHTS: &str = "a model's file holds no rows; name the file of rows";
const EXTRACT: &str = "extract its text first";

/// Where the bytes stand, what they are, what the file is, and the way out.
const MAGIC: [(usize, &[u8], &str, &str); 32] = [
    (0, b"\x1f\x8b", "compressed by gzip", PACKED),
    (0, b"\x28\xb5\x2f\xfd", "compressed by Zstandard", PACKED),
    (0, b"BZh", "compressed by bzip2", PACKED),
    (0, b"\xfd7zXZ\0", "compressed by xz", PACKED),
    (0, b"\x04\x22\x4d\x18", "compressed by LZ4", UNPACK),
    (0, b"\xff\x06\0\0sNaPpY", "compressed by Snappy", UNPACK),
    (0, b"PK\x03\x04", "a zip archive, or a document or weights kept in one", UNPACK),
    (0, b"PK\x05\x06", "an empty zip archive", UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (0, b"Rar!\x1a\x07", "a RAR archive", UNPACK),
    (257, b"ustar", "a tar archive", "unpack it first: `tar xf FILE`"),
    (0, b"Obj\x01", "an Avro file", FROM_TABLE),
    (0, b"ORC", "an ORC file", FROM_TABLE),
    (0, b"SQLite format 3\0", "an SQLite database", FROM_TABLE),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", FROM_TABLE),
    (0, b"\xd0\xcf\x11\xe0", "a document of an older office program", EXTRACT),
    (0, b"\x93NUMPY", "a NumPy array", FROM_TABLE),
    (0, b"%PDF-", "a PDF document", "extract its text first: `pdftotext FILE`"),
    (0, b"{\\rtf", "an RTF document", EXTRACT),
    (0, b"\x89PNG", "a PNG picture", EXTRACT),
    (0, b"\xff\xd8\xff", "a JPEG picture", EXTRACT),
    (0, b"GIF8", "a GIF picture", EXTRACT),
    (0, b"RIFF", "a sound or a film", EXTRACT),
    (4, b"ftyp", "a film", EXTRACT),
    (0, b"GGUF", "a GGUF file of weights", WEIGHTS),
    (8, b"{\"", "a safetensors file", WEIGHTS),
    (0, b"\x80\x02", "a Python pickle", WEIGHTS),
    (0, b"\x80\x03", "a Python pickle", WEIGHTS),
    (0, b"\x80\x04", "a Python pickle", WEIGHTS),
    (0, b"\x80\x05", "a Python pickle", WEIGHTS),
    (0, b"\x7fELF", "a program", "name the file of rows"),
    (
        0,
        b"version https://git-lfs",
        "a Git LFS pointer that stands for the file",
        "run `git lfs pull` in its folder",
    ),
];

/// Files that stand for rows, but hold them in another way; a document of plain text may look so.
const OF_ROWS: [(&str, &str, &str); 3] = [
    (
        "<!doctype html",
        "an HTML page, perhaps an error page that was saved in the file's place",
        "fetch the file again",
    ),
    (
        "<html",
        "an HTML page, perhaps an error page that was saved in the file's place",
        "fetch the file again",
    ),
    ("<?xml", "an XML file", "write its rows as JSON lines first"),
];

const TO_UTF_8: &str =
    "convert it first: `iconv -f UTF-16 -t UTF-8 FILE > OUT`, or save it as UTF-8";
const TO_UTF_8_FROM_32: &str =
    "convert it first: `iconv -f UTF-32 -t UTF-8 FILE > OUT`, or save it as UTF-8";
/// What the file is if it is neither JSON nor text; `head` are its first bytes, as many as are there.
pub(crate) fn foreign(head: &[u8]) -> Option<Foreign> {
    let found = |what: &str, way_out| Some(Foreign { what: what.to_owned(), way_out });
    if let Some((what, way_out)) = wide_encoding(head) {
        return found(what, way_out);
    }
    let is_text = is_text(head);
    let magic = MAGIC.iter().find(|(at, bytes, ..)| {
        // A text may begin with "ORC" or "RIFF".
        let could_be = !is_text || bytes.starts_with(b"%PDF") || bytes.starts_with(b"version ");
        could_be && head.get(*at..).is_some_and(|rest| rest.starts_with(bytes))
    });
    if let Some((_, _, what, way_out)) = magic {
        return found(what, way_out);
    }
    if head.iter().take(64).filter(|&&byte| byte == 0).count() > 8 {
        let why = "it was not written to its end, or is of another kind";
        return found("full of bytes of zero", why);
    }
    None
}

/// Whether the first bytes are UTF-8 without control characters.
pub(super) fn is_text(head: &[u8]) -> bool {
    let start = &head[..head.len().min(512)];
    let valid = match std::str::from_utf8(start) {
        Ok(text) => text,
        // What was cut off in the middle of a character is no fault.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&start[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    valid.chars().all(|c| !c.is_control() || c.is_whitespace())
}

/// A page or a tree of marks that stands in the place of rows; a document of plain text may look so.
pub(crate) fn page(head: &[u8]) -> Option<Foreign> {
    // What was cut off in the middle of a character is no part of the beginning.
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default(),
    };
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let start: String = text.chars().take(16).collect::<String>().to_lowercase();
    let (_, what, way_out) = OF_ROWS.iter().find(|(begin, ..)| start.starts_with(begin))?;
    Some(Foreign { what: (*what).to_owned(), way_out })
}

/// UTF-16 and UTF-32, with and without the mark that says so.
fn wide_encoding(head: &[u8]) -> Option<(&'static str, &'static str)> {
    const UTF_16: (&str, &str) = ("in UTF-16", TO_UTF_8);
    const UTF_32: (&str, &str) = ("in UTF-32", TO_UTF_8_FROM_32);
    if head.starts_with(b"\xff\xfe\0\0") || head.starts_with(b"\0\0\xfe\xff") {
        return Some(UTF_32);
    }
    if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") {
        return Some(UTF_16);
    }
    // Rows begin with ASCII: its zeros stand at the same place of every unit.
    let start = &head[..head.len().min(64)];
    let zeros = |unit: usize, place: usize, zero: bool| {
        start.len() >= 2 * unit && start.chunks_exact(unit).all(|chunk| (chunk[place] == 0) == zero)
    };
    if (zeros(4, 3, true) && zeros(4, 2, true) && zeros(4, 1, true) && zeros(4, 0, false))
        || (zeros(4, 0, true) && zeros(4, 1, true) && zeros(4, 2, true) && zeros(4, 3, false))
    {
        return Some(UTF_32);
    }
    if (zeros(2, 1, true) && zeros(2, 0, false)) || (zeros(2, 0, true) && zeros(2, 1, false)) {
        return Some(UTF_16);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(head: &[u8]) -> String {
        let foreign = foreign(head).or_else(|| page(head));
        foreign.map_or("nothing".to_owned(), |foreign| foreign.to_string())
    }

    #[test]
    fn every_kind_of_file_is_called_by_its_name() {
        for (at, bytes, what, _) in MAGIC {
            let mut file = vec![0xfe; at];
            file.extend_from_slice(bytes);
            file.extend_from_slice(b"\x01\xfe rest");
            let said = said(&file);
            assert!(said.contains(what), "{what}: {said}");
        }
    }

    #[test]
    fn encodings_of_two_and_four_bytes_are_told_with_and_without_their_mark() {
        let row = "{\"text\": \"größer\"}\n";
        let sixteen =
            |order: fn(u16) -> [u8; 2]| -> Vec<u8> { row.encode_utf16().flat_map(order).collect() };
        let thirty_two = |order: fn(u32) -> [u8; 4]| -> Vec<u8> {
            row.chars().flat_map(|c| order(c as u32)).collect()
        };
        for bytes in [sixteen(u16::to_le_bytes), sixteen(u16::to_be_bytes)] {
            assert!(said(&bytes).starts_with("it is in UTF-16; convert"), "{bytes:?}");
        }
        for bytes in [thirty_two(u32::to_le_bytes), thirty_two(u32::to_be_bytes)] {
            assert!(said(&bytes).starts_with("it is in UTF-32"), "{bytes:?}");
        }
        for (mark, name) in [
            (&b"\xff\xfe"[..], "UTF-16"),
            (b"\xfe\xff", "UTF-16"),
            (b"\xff\xfe\0\0", "UTF-32"),
            (b"\0\0\xfe\xff", "UTF-32"),
        ] {
            assert!(said(&[mark, b"{\0"].concat()).contains(name), "{mark:?}");
        }
    }

    #[test]
    fn pages_and_tables_are_told_from_rows() {
        insta::assert_snapshot!(said(b"\n<!DOCTYPE html>\n<html><head>"), @"it is an HTML page, perhaps an error page that was saved in the file's place; fetch the file again");
        insta::assert_snapshot!(said(&[0; 4096]), @"it is full of bytes of zero; it was not written to its end, or is of another kind");
        for rows in [
            "{\"text\": \"a, b\"}\n",
            "[\n  {\"text\": 1}]",
            "text",
            "{\"a\", \"b\"}",
            "He came, he saw; and then (so they say!), he left.",
            "",
        ] {
            assert_eq!(said(rows.as_bytes()), "nothing", "{rows}");
        }
        for text in ["ORCs, they say, are shy", "RIFF raff", "GIF8 is no format", "BZh"] {
            assert_eq!(foreign(text.as_bytes()), None, "{text}");
        }
    }
}
