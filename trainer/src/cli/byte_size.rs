//! Sizes as people write them: `5GB`, `200 MiB`, `1000`.

/// Bytes of a size; units of a thousand (`GB`, as transformers' `max_shard_size` has them) and of
/// 1,024 (`GiB`).
///
/// # Errors
/// Not a whole or decimal number above 0, or an unknown unit.
pub fn parse(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 9] = [
        ("", 1),
        ("b", 1),
        ("kb", 1_000),
        ("mb", 1_000_000),
        ("gb", 1_000_000_000),
        ("tb", 1_000_000_000_000),
        ("kib", 1 << 10),
        ("mib", 1 << 20),
        ("gib", 1 << 30),
    ];
    let refuse = || format!("`{text}` is not a size such as 5GB, 500MB or 2GiB");
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let unit = unit.trim().to_ascii_lowercase();
    let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(refuse)?;
    let number: f64 = number.parse().map_err(|_| refuse())?;
    let bytes = number * *unit as f64;
    if (1.0..9.0e18).contains(&bytes) { Ok(bytes as u64) } else { Err(refuse()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_of_a_thousand_or_of_1024() {
        assert_eq!(parse("5GB"), Ok(5_000_000_000));
        assert_eq!(parse("1.5 MiB"), Ok(1_572_864));
        assert_eq!(parse("1000"), Ok(1_000));
        for wrong in ["", "GB", "0", "-1GB", "5 apples", "1.2.3", "nan", "99999999999TB"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
