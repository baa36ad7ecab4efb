//! Addresses of the Internet Protocol, but for those that are no machine's own: loopback, unspecified,
//! broadcast.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

/// The longest address of the sixth version as text.
const LONGEST: usize = 45;

pub(super) fn find(text: &str, found: &mut Vec<Range<usize>>) {
    let bytes = text.as_bytes();
    let is_part = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b'.' | b':');
    let mut at = 0;
    while at < bytes.len() {
        if !is_part(&bytes[at]) {
            at += 1;
            continue;
        }
        let length = bytes[at..].iter().position(|byte| !is_part(byte)).unwrap_or(bytes.len() - at);
        let run = at..at + length;
        at = run.end;
        if (4..=LONGEST + 2).contains(&length)
            && super::is_edge(text, run.start)
            && super::is_edge(text, run.end)
        {
            found.extend(address(&text[run.clone()]).map(|end| run.start..run.start + end));
        }
    }
}

/// How long the address is that a run begins with; behind it stand the sentence's full stop or colon, or a port.
fn address(run: &str) -> Option<usize> {
    let trimmed = run.trim_end_matches(['.', ':']);
    let without_port = trimmed.split_once(':').map_or(trimmed, |(address, _)| address);
    if let Ok(address) = without_port.parse::<Ipv4Addr>() {
        let own = !(address.is_loopback() || address.is_unspecified() || address.is_broadcast());
        return own.then_some(without_port.len());
    }
    [run, trimmed].into_iter().find_map(|run| {
        let address = run.parse::<Ipv6Addr>().ok()?;
        // `a::b` is more often a name in a program.
        let is_long = run.split(':').any(|group| group.len() >= 3)
            && run.contains(|c: char| c.is_ascii_digit());
        let own = !(address.is_loopback() || address.is_unspecified());
        (own && is_long).then_some(run.len())
    })
}
