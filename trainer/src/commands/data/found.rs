//! What was found in rows, as a terminal shows it.

use std::fmt::Write as _;

use graft_data::hygiene::{Finding, What};

use crate::cli::page::{counted, grouped};

/// What was found, a line each; things that were looked for in vain share one.
pub(super) fn text(findings: &[Finding], notes: &[String]) -> String {
    let mut text = String::new();
    let (found, vain): (Vec<&Finding>, Vec<&Finding>) =
        findings.iter().partition(|finding| finding.rows > 0);
    if !found.is_empty() {
        let lines = found.iter().map(|finding| line(finding)).collect::<Vec<_>>();
        let width =
            |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
        let widths = [width(0), width(1), width(2)];
        text.push_str("found in the rows:\n");
        for ([what, count, action, first], finding) in lines.iter().zip(&found) {
            let _ = writeln!(
                text,
                "  {what:<0$}  {count:>1$}  {action:<2$}  {first}",
                widths[0], widths[1], widths[2]
            );
            for remark in &finding.remarks {
                let _ = writeln!(text, "    {remark}");
            }
        }
    }
    if !vain.is_empty() {
        let kinds: Vec<&str> = vain.iter().map(|finding| finding.what.as_str()).collect();
        let _ = writeln!(text, "found none: {}", kinds.join("; "));
    }
    for note in notes {
        let _ = writeln!(text, "{note}");
    }
    text
}

fn line(finding: &Finding) -> [String; 4] {
    let Finding { what, action, rows, values, places, .. } = finding;
    let rows_said = counted(*rows as u64, "row");
    let count = match values {
        Some(values) if values != rows => format!("{} in {rows_said}", grouped(*values as u64)),
        _ => rows_said,
    };
    let first = places.first().map_or_else(String::new, |place| match &place.what {
        What::Like { other, likeness: Some(likeness), .. } if *likeness < 1.0 => {
            format!("{} and {other}, {:.0} % alike", place.row, 100.0 * likeness)
        }
        What::Like { other, .. } => format!("{} and {other}", place.row),
        What::Value { mask } => format!("{}, {mask}", place.row),
    });
    [what.clone(), count, action.name().to_owned(), first]
}
