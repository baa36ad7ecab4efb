//! What follows for each row from all that was found. A row that is left out for one reason is not looked at
//! for the next: what it is like may stay.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cleaning::{Cleaning, Verdict};
use super::near::pairs::Alike;
use super::report::{Check, Finding, Place, Report, RowId, What};
use super::survey::{Equal, MOST_PLACES, Rows, Section, Survey};
use super::{Action, Hygiene};

/// A row, the one that it is like, and how much.
type Like = (u32, u32, Option<f32>);

/// The judgement on all rows.
pub(super) struct Judgement<'a> {
    rows: Rows,
    hygiene: &'a Hygiene,
    verdicts: Vec<Verdict>,
    found: Vec<Found>,
    /// Rows that are learnt and nearly equal.
    alike: Vec<(u32, u32)>,
}

/// What was found of rows that are like others.
struct Found {
    check: Check,
    action: Action,
    rows: Vec<Like>,
    remarks: Vec<String>,
}

impl<'a> Judgement<'a> {
    pub(super) fn of(rows: Rows, equal: &Equal, alike: &[Alike], hygiene: &'a Hygiene) -> Self {
        let verdicts = vec![Verdict::Keep; rows.count() as usize];
        let (found, of_train) = (Vec::new(), Vec::new());
        let mut judgement = Self { verdicts, rows, hygiene, found, alike: of_train };
        judgement.values();
        let first_of = |row: u32| equal.first[row as usize];
        let train = judgement.rows.measured..judgement.rows.count();
        let copies = train.filter(|&row| first_of(row) != row);
        let copies: Vec<Like> = copies.map(|row| (row, first_of(row), None)).collect();
        judgement.leaks(equal, alike, &copies);
        if let Some(contamination) = hygiene.contamination.filter(|_| judgement.rows.measured > 0) {
            let found = judgement.rows.contaminated.iter();
            let found = found.map(|&(row, other)| (row, other, None)).collect();
            judgement.like(Check::Contamination, contamination.action, found);
            judgement.remark_on_stretches(contamination.words);
        }
        if let Some(action) = hygiene.duplicates {
            judgement.like(Check::Duplicates, action, copies.clone());
        }
        if let Some(near) = hygiene.near_duplicates {
            let copies = if hygiene.duplicates.is_none() { copies } else { Vec::new() };
            judgement.near(near.action, alike, &copies);
        }
        judgement.found.sort_by_key(|found| found.check);
        judgement
    }

    /// Rows with personal data.
    fn values(&mut self) {
        for (row, by) in &self.rows.with_values {
            let first =
                |action| by.iter().copied().find(|&by| self.hygiene.personal.action(by) == action);
            self.verdicts[*row as usize] = match (first(Action::Drop), first(Action::Mask)) {
                // So many things nobody looks for; they would be told as what they have in common.
                (Some(by), _) => {
                    u16::try_from(by).map_or(Verdict::Drop(Check::Personal), Verdict::DropFor)
                }
                (None, Some(_)) => Verdict::Mask,
                (None, None) => Verdict::Keep,
            };
        }
    }

    /// Rows that are measured, too.
    fn leaks(&mut self, equal: &Equal, alike: &[Alike], copies: &[Like]) {
        let exact = equal.leaks.iter().map(|(&row, &other)| (row, (other, None)));
        let mut leaked: BTreeMap<u32, (u32, Option<f32>)> = exact.collect();
        for pair in alike.iter().filter(|pair| pair.earlier < self.rows.measured) {
            leaked.entry(pair.later).or_insert((pair.earlier, Some(pair.likeness)));
        }
        // What is nearly a measured row, its copies are, too.
        for &(row, copy_of, _) in copies {
            if let Some(&leak) = leaked.get(&copy_of) {
                leaked.entry(row).or_insert(leak);
            }
        }
        // Where nothing is measured, nothing was looked for.
        if self.rows.measured == 0 {
            return;
        }
        let leaked = leaked.into_iter().map(|(row, (other, likeness))| (row, other, likeness));
        self.like(Check::Leaks, self.hygiene.leaks, leaked.collect());
    }

    fn like(&mut self, check: Check, action: Action, rows: Vec<Like>) {
        if action == Action::Drop {
            for &(row, ..) in &rows {
                if !self.is_left_out(row) {
                    self.verdicts[row as usize] = Verdict::Drop(check);
                }
            }
        }
        self.found.push(Found { check, action, rows, remarks: Vec::new() });
    }

    /// Of each row that is nearly equal to an earlier one that stays, the first such one.
    fn near(&mut self, action: Action, alike: &[Alike], copies: &[Like]) {
        let copies = copies.iter().filter(|(row, ..)| !self.is_left_out(*row));
        let mut found: BTreeMap<u32, (u32, Option<f32>)> =
            copies.map(|&(row, other, _)| (row, (other, Some(1.0)))).collect();
        for &Alike { earlier, later, likeness } in alike {
            let is_of_train = earlier >= self.rows.measured;
            if !is_of_train || self.is_left_out(later) || self.is_left_out(earlier) {
                continue;
            }
            self.alike.push((earlier, later));
            // Of a row that itself goes nothing follows; pairs come in the order of their later rows.
            if !(action == Action::Drop && found.contains_key(&earlier)) {
                found.entry(later).or_insert((earlier, Some(likeness)));
            }
        }
        let rows = found.into_iter().map(|(row, (other, likeness))| (row, other, likeness));
        self.like(Check::NearDuplicates, action, rows.collect());
        if self.rows.crowded > 0
            && let Some(found) = self.found.last_mut()
        {
            let crowded = self.rows.crowded;
            found.remarks.push(format!(
                "{crowded} rows have much in common with very many others, and were compared with the \
                 first of those only"
            ));
        }
    }

    fn remark_on_stretches(&mut self, words: usize) {
        let (Some(known), Some(found)) = (&self.rows.known, self.found.last_mut()) else { return };
        if known.short > 0 {
            let short = known.short;
            let remark =
                format!("measured rows with fewer than {words} words, not looked for: {short}");
            found.remarks.push(remark);
        }
        if known.of_form > 0 {
            let of_form = known.of_form;
            found.remarks.push(format!(
                "stretches in more than ten measured rows, taken for words of their form: {of_form}"
            ));
        }
    }

    fn is_left_out(&self, row: u32) -> bool {
        matches!(self.verdicts[row as usize], Verdict::Drop(_) | Verdict::DropFor(_))
    }

    /// The survey of these sections.
    pub(super) fn survey(self, measured: &[Section<'_>], train: &Section<'_>) -> Survey {
        let sections: Vec<&Section<'_>> = measured.iter().chain([train]).collect();
        let (findings, cleanings) = (self.findings(&sections), self.cleanings(sections.len()));
        let Self { rows, verdicts, alike, .. } = self;
        let counted = sections.iter().enumerate().map(|(number, section)| {
            let files = rows.files.iter().filter(|file| file.section == number);
            (section.key.to_owned(), files.map(|file| file.rows.len()).sum())
        });
        let report = Report { rows: counted.collect(), findings };
        let stays =
            |row: u32| !matches!(verdicts[row as usize], Verdict::Drop(_) | Verdict::DropFor(_));
        let alike = alike.into_iter().filter(|&(a, b)| stays(a) && stays(b));
        let alike = alike.map(|(a, b)| (rows.origin(a), rows.origin(b))).collect();
        let mut files = vec![Vec::new(); sections.len()];
        for file in &rows.files {
            files[file.section].extend(file.digest.clone());
        }
        Survey { report, cleanings, alike, files }
    }

    fn findings(&self, sections: &[&Section<'_>]) -> Vec<Finding> {
        let place = |row: u32| {
            let section = sections[self.rows.file_of(row).section];
            let origin = self.rows.origin(row);
            let id = RowId { section: section.key.to_owned(), origin };
            (id, origin.place(section.sources))
        };
        let like = self.found.iter().map(|Found { check, action, rows, remarks }| Finding {
            key: check.key().to_owned(),
            check: *check,
            what: check.words().to_owned(),
            action: *action,
            rows: rows.len(),
            values: None,
            places: rows
                .iter()
                .take(MOST_PLACES)
                .map(|&(row, other, likeness)| {
                    let ((id, row), (of_other, other)) = (place(row), place(other));
                    Place { id, row, what: What::Like { id: of_other, other, likeness } }
                })
                .collect(),
            remarks: remarks.clone(),
        });
        let personal = &self.hygiene.personal;
        let values = self.rows.seen.iter().enumerate().map(|(by, seen)| {
            let (key, what) = personal.said(by);
            Finding {
                key,
                check: Check::Personal,
                what,
                action: personal.action(by),
                rows: seen.rows,
                values: Some(seen.values),
                places: seen
                    .places
                    .iter()
                    .map(|(row, mask)| {
                        let (id, row) = place(*row);
                        Place { id, row, what: What::Value { mask: mask.clone() } }
                    })
                    .collect(),
                remarks: Vec::new(),
            }
        });
        like.chain(values).collect()
    }

    fn cleanings(&self, sections: usize) -> Vec<Vec<Option<Arc<Cleaning>>>> {
        let mut cleanings = vec![Vec::new(); sections];
        for file in &self.rows.files {
            let rows = file.rows.start as usize..file.rows.end as usize;
            let cleaning = file.digest.clone().map(|digest| {
                let personal = Arc::clone(&self.hygiene.personal);
                Cleaning::new(self.verdicts[rows].to_vec(), personal, digest)
            });
            let cleaning = cleaning.filter(|cleaning| !cleaning.is_idle()).map(Arc::new);
            cleanings[file.section].push(cleaning);
        }
        cleanings
    }
}
