//! The pages of a Parquet file, looked at before the library unpacks them: a header says how large its page
//! becomes, and some kilobytes can become gigabytes.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use parquet::file::metadata::ParquetMetaData;

use super::footer::page_sizes;
use crate::shown::shown;

/// The most bytes that a page may have, unpacked.
const MOST_BYTES: u64 = 256 << 20;
/// The most bytes that a dictionary may have: writers begin none beyond some megabytes.
const MOST_BYTES_OF_A_DICTIONARY: u64 = 64 << 20;
/// The most bytes of a page's header.
const MOST_BYTES_OF_A_HEADER: usize = 1 << 20;
/// Bytes of a header that are read at first.
const FIRST: usize = 256;

/// What a page says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PageSizes {
    /// Bytes of the header.
    pub(super) header: usize,
    /// Whether it is a dictionary.
    pub(super) is_dictionary: bool,
    /// Bytes that the page becomes.
    pub(super) unpacked: u64,
    /// Bytes of it in the file.
    pub(super) packed: u64,
}

/// What the dictionaries of a file may become.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dictionaries {
    /// Bytes of the largest.
    pub(super) largest: u64,
    /// Bytes that the values of a list would have, if all of them were one that is as long as the dictionary.
    pub(super) in_lists: u64,
}

/// Refuses a file with a page that becomes too large; otherwise its dictionaries.
pub(super) fn check(file: &File, metadata: &ParquetMetaData) -> Result<Dictionaries, String> {
    let mut reader = BufReader::new(file);
    let length = reader.seek(SeekFrom::End(0)).map_err(|error| error.to_string())?;
    let (mut at, mut all) = (length, Dictionaries::default());
    // Of no rows there need not be pages.
    let groups = metadata.row_groups().iter().enumerate();
    for (group, row_group) in groups.filter(|(_, group)| group.num_rows() != 0) {
        for column in row_group.columns() {
            let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
            let start = start.min(column.data_page_offset());
            let (Ok(start), Ok(size)) =
                (u64::try_from(start), u64::try_from(column.compressed_size()))
            else {
                return Err("its footer has a column of less than no bytes".to_owned());
            };
            let end = start.saturating_add(size);
            if end > length {
                return Err(format!("a column of it ends at byte {end}, the file at {length}"));
            }
            let name = shown(&column.column_path().string());
            let place = |at: u64| {
                format!("the page at byte {at}, of column `{name}` in row group {}", group + 1)
            };
            let mut next = start;
            while next < end {
                move_to(&mut reader, at, next)?;
                let Some(page) = header(&mut reader, end - next)? else {
                    return Err(format!("{} has no header that can be read", place(next)));
                };
                let most = if page.is_dictionary { MOST_BYTES_OF_A_DICTIONARY } else { MOST_BYTES };
                if page.unpacked > most {
                    let (place, bytes) = (place(next), page.unpacked);
                    return Err(format!(
                        "{place}, becomes {bytes} bytes; {most} are the most that is read"
                    ));
                }
                if page.is_dictionary {
                    all.largest = all.largest.max(page.unpacked);
                }
                if page.is_dictionary && column.column_descr().max_rep_level() > 0 {
                    let values = u64::try_from(column.num_values()).unwrap_or(u64::MAX);
                    all.in_lists = all.in_lists.max(page.unpacked.saturating_mul(values));
                }
                at = next + page.header as u64;
                next = at.saturating_add(page.packed);
                // The reader stands behind the header.
            }
        }
    }
    Ok(all)
}

/// From `at` to `next`, within what is read already where that can be.
fn move_to(reader: &mut BufReader<&File>, at: u64, next: u64) -> Result<(), String> {
    let moved = match i64::try_from(i128::from(next) - i128::from(at)) {
        Ok(distance) => reader.seek_relative(distance),
        Err(_) => reader.seek(SeekFrom::Start(next)).map(|_| ()),
    };
    moved.map_err(|error| error.to_string())
}

/// The header that begins here, within so many bytes; the reader then stands behind it.
fn header(reader: &mut BufReader<&File>, within: u64) -> Result<Option<PageSizes>, String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut bytes = Vec::new();
    let mut most = FIRST;
    loop {
        let wanted = (most - bytes.len()) as u64;
        let count = reader
            .by_ref()
            .take(wanted.min(within.saturating_sub(bytes.len() as u64)))
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        if let Some(page) = page_sizes(&bytes) {
            let behind = bytes.len() - page.header;
            reader.seek_relative(-(behind as i64)).map_err(failed)?;
            return Ok(Some(page));
        }
        if count == 0 || most >= MOST_BYTES_OF_A_HEADER {
            return Ok(None);
        }
        most *= 8;
    }
}
