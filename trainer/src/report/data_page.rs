//! The page of `graft data`: what is trained on, in numbers, what was found in it, and some of its rows.

use std::fmt::Write;

use graft_data::hygiene::{Finding, What};
use graft_data::{FileStatistics, Histogram, PreviewParts, Statistics, Stretch};

use super::STYLE;
use super::html::{escape, grouped, short_count};

/// All that the page shows. Texts are shown as they are: whoever makes them masks what nobody is to see.
pub struct DataPage<'a> {
    /// Of which recipe or file.
    pub title: &'a str,
    /// Numbers about the rows.
    pub statistics: &'a Statistics,
    /// What was found; empty where nothing was looked for.
    pub findings: &'a [Finding],
    /// What is to be known beside.
    pub notes: &'a [String],
    /// Rows that are like others.
    pub pairs: Vec<Pair>,
    /// Rows as the model learns them.
    pub samples: Vec<Shown>,
}

/// Two rows that are alike.
pub struct Pair {
    /// What they are found as.
    pub what: String,
    /// The share that both have, where it was asked.
    pub likeness: Option<f32>,
    /// Place and text of each, the one that goes first.
    pub rows: [(String, String); 2],
}

/// A row as the model learns it.
pub struct Shown {
    /// Where it stands, and how long it is.
    pub title: String,
    /// Its beginning, what is left out between, and its end.
    pub parts: PreviewParts,
}

const OWN_STYLE: &str = include_str!("data_page.css");

impl DataPage<'_> {
    /// The page, UTF-8. It loads nothing.
    pub fn render(&self) -> String {
        let title = escape(self.title);
        let mut page = format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{title} · data</title>\n<style>\n{STYLE}{OWN_STYLE}</style></head>\n<body><main>\n\
             <header><p class=\"over\">Data</p><h1>{title}</h1></header>\n"
        );
        self.facts(&mut page);
        self.notes(&mut page);
        histogram(&self.statistics.lengths.histogram, &mut page);
        sources(&self.statistics.files, &mut page);
        findings(self.findings, &mut page);
        pairs(&self.pairs, &mut page);
        samples(&self.samples, &mut page);
        page.push_str(
            "<footer>Written by Graft. This page loads nothing.</footer>\n</main></body></html>\n",
        );
        page
    }

    fn facts(&self, page: &mut String) {
        let Statistics { rows, samples, tokens, targets, lengths, .. } = self.statistics;
        let share = 100.0 * *targets as f64 / (*tokens).max(1) as f64;
        let count = |number: usize| short_count(number as u64);
        let facts = [
            ("Rows", count(*rows), format!("{} samples", count(*samples))),
            ("Tokens", count(*tokens), format!("{share:.1} % are learnt")),
            ("Median row", count(lengths.p50), "tokens".to_owned()),
            ("Longest row", count(lengths.max), "tokens".to_owned()),
        ];
        page.push_str("<dl class=\"facts\">");
        for (name, value, note) in facts {
            let (value, note) = (escape(&value), escape(&note));
            let _ = write!(page, "<div><dt>{name}</dt><dd>{value}<small>{note}</small></dd></div>");
        }
        page.push_str("</dl>\n");
    }

    fn notes(&self, page: &mut String) {
        let otherwise = self.statistics.counts().otherwise;
        let counts =
            otherwise.iter().map(|(what, count)| format!("{what}: {}", grouped(*count as u64)));
        let notes: Vec<String> = counts.chain(self.notes.iter().cloned()).collect();
        if notes.is_empty() {
            return;
        }
        page.push_str("<ul class=\"notes\">");
        for note in notes {
            let _ = write!(page, "<li>{}</li>", escape(&note));
        }
        page.push_str("</ul>\n");
    }
}

fn histogram(Histogram { ranges }: &Histogram, page: &mut String) {
    let most = ranges.iter().map(|&(_, rows)| rows).max().unwrap_or(0).max(1);
    let first = ranges.iter().position(|&(_, rows)| rows > 0).unwrap_or(0);
    page.push_str("<h2>How long the rows are</h2>\n<table class=\"bars\"><thead><tr><th class=\"n\">Tokens</th><th class=\"n\">Rows</th><th></th></tr></thead><tbody>");
    for (index, &(high, rows)) in ranges.iter().enumerate().skip(first) {
        let low = if index == 0 { 1 } else { ranges[index - 1].0 + 1 };
        let width = 100.0 * rows as f64 / most as f64;
        let _ = write!(
            page,
            "<tr><td class=\"n\">{}–{}</td><td class=\"n\">{}</td><td><i style=\"width:{width:.1}%\"></i></td></tr>",
            grouped(low as u64),
            grouped(high as u64),
            grouped(rows as u64)
        );
    }
    page.push_str("</tbody></table>\n");
}

fn sources(files: &[FileStatistics], page: &mut String) {
    page.push_str("<h2>By source</h2>\n<div class=\"wide\"><table><thead><tr><th>File</th><th class=\"n\">Rows</th><th class=\"n\">Tokens</th><th class=\"n\">Learnt</th><th class=\"n\">Tokens a row</th></tr></thead><tbody>");
    for FileStatistics { path, rows, tokens, targets, remarks, .. } in files {
        let remarks = remarks
            .iter()
            .fold(String::new(), |all, remark| all + "<br><small>" + &escape(remark) + "</small>");
        let share = 100.0 * *targets as f64 / (*tokens).max(1) as f64;
        let mean = *tokens as f64 / (*rows).max(1) as f64;
        let _ = write!(
            page,
            "<tr><td>{}{remarks}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{share:.1} %</td><td class=\"n\">{mean:.0}</td></tr>",
            escape(&path.display().to_string()),
            grouped(*rows as u64),
            grouped(*tokens as u64),
        );
    }
    page.push_str("</tbody></table></div>\n");
}

fn findings(findings: &[Finding], page: &mut String) {
    if findings.is_empty() {
        return;
    }
    page.push_str("<h2>What was found in the rows</h2>\n<div class=\"wide\"><table class=\"found\"><thead><tr><th>What</th><th class=\"n\">Rows</th><th>Key</th><th>Action</th><th>The first</th></tr></thead><tbody>");
    for finding in findings {
        let Finding { key, what, action, rows, values, places, remarks, .. } = finding;
        let class = if *rows == 0 { " class=\"quiet\"" } else { "" };
        let values = values.filter(|values| values != rows);
        let values = values.map_or_else(String::new, |values| {
            format!("<small>{} values</small>", grouped(values as u64))
        });
        let remarks = remarks.iter().map(|remark| escape(remark)).collect::<Vec<_>>();
        let remarks = if remarks.is_empty() {
            String::new()
        } else {
            format!("<small>{}</small>", remarks.join("<br>"))
        };
        let first = places.first().map_or_else(String::new, |place| match &place.what {
            What::Like { other, .. } => format!("{} and {other}", place.row),
            What::Value { mask } => format!("{}: {mask}", place.row),
        });
        let _ = write!(
            page,
            "<tr{class}><td>{}{remarks}</td><td class=\"n\">{}{values}</td><td class=\"code\">{}</td><td class=\"word\">{}</td><td>{}</td></tr>",
            escape(&capital(what)),
            grouped(*rows as u64),
            escape(key.strip_prefix("data.hygiene.").unwrap_or(key)),
            action.name(),
            escape(&first),
        );
    }
    page.push_str("</tbody></table></div>\n");
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + characters.as_str()
}

fn pairs(pairs: &[Pair], page: &mut String) {
    if pairs.is_empty() {
        return;
    }
    page.push_str("<h2>Rows that are alike</h2>\n<p class=\"lead\">What only one of the two says is marked.</p>\n");
    for Pair { what, likeness, rows: [one, other] } in pairs {
        let likeness =
            likeness.map_or_else(String::new, |it| format!(" · {:.0} % alike", 100.0 * it));
        let [one_text, other_text] = marked([&one.1, &other.1]);
        let _ = writeln!(
            page,
            "<section class=\"pair\"><h3>{}{likeness}</h3><div><figure><figcaption>{}</figcaption>{one_text}</figure>\
             <figure><figcaption>{}</figcaption>{other_text}</figure></div></section>",
            escape(&capital(what)),
            escape(&one.0),
            escape(&other.0),
        );
    }
}

/// Two texts as HTML, with the words marked that stand in one of them alone.
fn marked(texts: [&str; 2]) -> [String; 2] {
    let words = texts.map(|text| text.split_inclusive(char::is_whitespace).collect::<Vec<_>>());
    let both = in_both(&words[0], &words[1]);
    let html = |side: usize| {
        let mut html = String::new();
        let mut is_open = false;
        for (word, is_common) in words[side].iter().zip(&both[side]) {
            if *is_common == is_open {
                html.push_str(if is_open { "</mark>" } else { "<mark>" });
                is_open = !is_open;
            }
            html.push_str(&escape(word));
        }
        html.push_str(if is_open { "</mark>" } else { "" });
        html
    };
    [html(0), html(1)]
}

/// For each word of two texts whether it is of a longest sequence that both have; beyond a bound of what
/// begins and ends alike.
fn in_both(one: &[&str], other: &[&str]) -> [Vec<bool>; 2] {
    /// Words of each that are compared all with all.
    const MOST: usize = 1_000;
    let same = |(a, b): &(&&str, &&str)| a.trim_end() == b.trim_end();
    let head = one.iter().zip(other).take_while(same).count();
    let (rest, of_other) = (&one[head..], &other[head..]);
    let tail = rest.iter().rev().zip(of_other.iter().rev()).take_while(same).count();
    let mut both = [vec![true; one.len()], vec![true; other.len()]];
    let middle = [&rest[..rest.len() - tail], &of_other[..of_other.len() - tail]];
    for (side, words) in middle.iter().enumerate() {
        both[side][head..head + words.len()].fill(false);
    }
    let [a, b] = middle;
    if a.len() > MOST || b.len() > MOST {
        return both;
    }
    // The longest common sequence of what is left from each pair of places on.
    let width = b.len() + 1;
    let mut longest = vec![0_u32; (a.len() + 1) * width];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            longest[i * width + j] = if a[i].trim_end() == b[j].trim_end() {
                longest[(i + 1) * width + j + 1] + 1
            } else {
                longest[(i + 1) * width + j].max(longest[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < a.len() && j < b.len() {
        if a[i].trim_end() == b[j].trim_end() {
            both[0][head + i] = true;
            both[1][head + j] = true;
            (i, j) = (i + 1, j + 1);
        } else if longest[(i + 1) * width + j] >= longest[i * width + j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    both
}

fn samples(samples: &[Shown], page: &mut String) {
    if samples.is_empty() {
        return;
    }
    page.push_str(
        "<h2>Rows as the model sees them</h2>\n<p class=\"lead\"><span class=\"t\">What is learnt</span>, \
         what is given, and <span class=\"c\">control tokens</span>.</p>\n",
    );
    for Shown { title, parts: PreviewParts { head, between, tail } } in samples {
        let _ = write!(page, "<figure class=\"row\"><figcaption>{}</figcaption>", escape(title));
        stretches(head, page);
        if let Some(between) = between {
            let _ = write!(page, "<p class=\"between\">{}</p>", escape(between));
        }
        stretches(tail, page);
        page.push_str("</figure>\n");
    }
}

fn stretches(stretches: &[Stretch], page: &mut String) {
    for Stretch { text, target, control } in stretches {
        let text = escape(text);
        let class = match (target, control) {
            (true, true) => "t c",
            (true, false) => "t",
            (false, true) => "c",
            (false, false) => {
                page.push_str(&text);
                continue;
            }
        };
        let _ = write!(page, "<span class=\"{class}\">{text}</span>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_one_says_is_marked_and_markup_is_shown() {
        let [one, other] = marked([
            "The <b>fee</b> is 12 crowns today.",
            "The <b>fee</b> is 15 crowns now today.",
        ]);
        insta::assert_snapshot!(one, @"The &lt;b&gt;fee&lt;/b&gt; is <mark>12 </mark>crowns today.");
        insta::assert_snapshot!(other, @"The &lt;b&gt;fee&lt;/b&gt; is <mark>15 </mark>crowns <mark>now </mark>today.");
        let [one, other] = marked(["same words", "same words"]);
        assert_eq!((one.as_str(), &one), ("same words", &other));
    }
}
