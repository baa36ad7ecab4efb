//! What a run takes before it begins: memory and disk, line by line, in bytes with their arithmetic.
//!
//! Every line is one function of [`Asked`] in `terms`, named after what it counts, so that a change of
//! the engine changes one of them. What is held from the start to the end is added to the largest of the
//! moments that follow each other: reading the data, scoring, answering, a step, a checkpoint, writing and
//! comparing a merged model. Between them the allocator gives back what is free, see `crate::memory`.

mod asked;
mod available;
mod disk;
mod remedies;
mod terms;

use std::fmt::Write as _;

use graft_recipes::Checkpointing;
use serde::Serialize;

pub use asked::{Asked, Merging, Scoring, Stored};
pub use available::Available;

use crate::plan::{LoadedData, Plan};
use crate::quantity;

/// Where the bytes of a line are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Medium {
    /// Private memory of the process.
    Anonymous,
    /// Memory of the GPU that computes.
    Device,
    /// Pages of mapped files, which the system may take back and read again.
    Mapped,
    /// The run folder.
    Disk,
}

/// A line of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// What it counts.
    pub name: &'static str,
    /// How the bytes come about.
    pub arithmetic: String,
    /// The bytes.
    pub bytes: u64,
    /// Where they are.
    pub place: Medium,
}

impl Entry {
    fn new(name: &'static str, place: Medium, bytes: usize, arithmetic: String) -> Self {
        Self { name, arithmetic, bytes: bytes as u64, place }
    }
}

/// A time in a run, with what it takes beside what is always held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Moment {
    /// When it is.
    pub name: &'static str,
    /// What it takes.
    pub lines: Vec<Entry>,
}

impl Moment {
    fn takes(&self, places: &[Medium]) -> u64 {
        total(&self.lines, places)
    }
}

fn total(lines: &[Entry], places: &[Medium]) -> u64 {
    let counted = lines.iter().filter(|line| places.contains(&line.place));
    counted.fold(0, |sum, line| sum.saturating_add(line.bytes))
}

/// All lines of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ledger {
    /// The lines that are added up.
    pub lines: Vec<Entry>,
    /// The moments of which another one takes more private memory: theirs is not added.
    pub others: Vec<Moment>,
    /// With the pages of mapped files, at the largest moment.
    resident: u64,
}

/// Why a run cannot begin, with the arithmetic and what would fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the run takes {} of {what}, and {} is available{}:\n{table}{ways}",
    quantity::bytes(*.needed), quantity::bytes(*.available), at
)]
pub struct TooLarge {
    /// Memory, device memory or disk.
    pub what: &'static str,
    /// Bytes that the run takes.
    pub needed: u64,
    /// Bytes that there are.
    pub available: u64,
    at: String,
    table: String,
    ways: String,
}

impl Ledger {
    /// What a plan with this data takes.
    pub fn of(plan: &Plan, data: &LoadedData) -> Result<Self, graft_data::Error> {
        Ok(Self::for_run(&Asked::by(plan, data)?))
    }

    /// Settles what a recipe leaves open: how much is kept between the passes, and whether projections
    /// wait on the host while a device computes.
    pub fn settle(asked: &mut Asked, available: &Available) {
        Self::settle_checkpointing(asked, available);
        let Some(there) = available.device else { return };
        if Self::for_run(asked).device() > there {
            let streaming = Asked { streams: asked.stored.is_some(), ..asked.clone() };
            if Self::for_run(&streaming).device() <= there {
                *asked = streaming;
            }
        }
    }

    /// Settles `checkpointing: auto`: selective if what the run takes then is at most half of the memory
    /// that is available, else block. Runs of either give the same bits.
    fn settle_checkpointing(asked: &mut Asked, available: &Available) {
        if asked.checkpointing != Checkpointing::Auto {
            return;
        }
        asked.checkpointing = Checkpointing::Selective;
        let taken = Self::for_run(asked);
        let crowds = |taken, there: Option<u64>| there.is_some_and(|there| taken > there / 2);
        if crowds(taken.anonymous(), available.memory) || crowds(taken.device(), available.device) {
            asked.checkpointing = Checkpointing::Block;
        }
    }

    /// What a run of these sizes takes.
    pub fn for_run(asked: &Asked) -> Self {
        const OWN: [Medium; 1] = [Medium::Anonymous];
        const RESIDENT: [Medium; 2] = [Medium::Anonymous, Medium::Mapped];
        let mut lines = terms::mapped(asked);
        lines.extend(terms::held(asked));
        let mut moments = terms::coming_and_going(asked);
        for moment in &mut moments {
            moment.lines.retain(|line| line.bytes > 0);
            let gaps = terms::gaps(&moment.lines);
            moment.lines.extend(Some(gaps).filter(|gaps| gaps.bytes > 0));
        }
        let most = moments.iter().map(|moment| moment.takes(&RESIDENT)).max().unwrap_or(0);
        let resident = total(&lines, &RESIDENT).saturating_add(most);
        let on_device = moments.iter().max_by_key(|moment| moment.takes(&[Medium::Device]));
        let on_device = on_device.map(|moment| moment.lines.clone()).unwrap_or_default();
        lines.extend(on_device.into_iter().filter(|line| line.place == Medium::Device));
        // The step is the first of them: block inputs on disk are its.
        let of_step = moments.first().map(|step| step.lines.clone()).unwrap_or_default();
        moments.sort_by_key(|moment| std::cmp::Reverse(moment.takes(&OWN)));
        let mut others = moments.into_iter();
        let largest = others.next().map(|moment| moment.lines).unwrap_or_default();
        lines.extend(largest.into_iter().filter(|line| line.place == Medium::Anonymous));
        lines.extend(of_step.into_iter().filter(|line| line.place == Medium::Disk));
        lines.extend(disk::lines(asked));
        lines.retain(|line| line.bytes > 0);
        let others = others.filter(|moment| moment.takes(&OWN) > 0).collect();
        Self { lines, others, resident }
    }

    fn total(&self, places: &[Medium]) -> u64 {
        total(&self.lines, places)
    }

    /// Bytes of private memory at the largest moment.
    pub fn anonymous(&self) -> u64 {
        self.total(&[Medium::Anonymous])
    }

    /// Bytes of private memory and of the pages of mapped files that stay while there is room, at the moment at
    /// which both together are most.
    pub fn resident(&self) -> u64 {
        self.resident
    }

    /// Bytes of a GPU's memory at the largest moment.
    pub fn device(&self) -> u64 {
        self.total(&[Medium::Device])
    }

    /// Bytes that the run leaves in its folder at most.
    pub fn disk(&self) -> u64 {
        self.total(&[Medium::Disk])
    }

    /// The lines of these places as text, the largest numbers below each other.
    pub fn table(&self, places: &[Medium]) -> String {
        table(&self.lines, places)
    }

    /// The private memory of the moments that are not added, one after the other, each with its sum.
    pub fn others_table(&self) -> String {
        self.others.iter().fold(String::new(), |mut text, moment| {
            let sum = quantity::bytes(moment.takes(&[Medium::Anonymous]));
            let _ = write!(
                text,
                "{}, {sum} in all\n{}",
                moment.name,
                table(&moment.lines, &[Medium::Anonymous])
            );
            text
        })
    }

    /// Whether the run fits; an amount that is not known is not held against it.
    ///
    /// # Errors
    /// It does not, with the lines and the changes of `asked` that would.
    pub fn check(&self, asked: &Asked, available: &Available) -> Result<(), TooLarge> {
        let memories = [
            (Medium::Anonymous, "memory", available.memory, String::new()),
            (
                Medium::Device,
                "device memory",
                available.device,
                format!(" on {}", asked.device.name()),
            ),
        ];
        for (place, what, available, at) in memories {
            let needed = self.total(&[place]);
            if let Some(available) = available.filter(|available| *available < needed) {
                let (table, ways) = (self.table(&[place]), remedies::text(asked, place, available));
                return Err(TooLarge { what, needed, available, at, table, ways });
            }
        }
        if let Some(disk) = available.disk.filter(|disk| *disk < self.disk()) {
            return Err(TooLarge {
                what: "disk",
                needed: self.disk(),
                available: disk,
                at: format!(" for `{}`", asked.output_dir.display()),
                table: self.table(&[Medium::Disk]),
                ways: "free the disk, choose another `output_dir`, or keep fewer checkpoints with \
                       `checkpoint.keep`"
                    .to_owned(),
            });
        }
        Ok(())
    }
}

/// Lines of these places as text, the numbers below each other.
fn table(lines: &[Entry], places: &[Medium]) -> String {
    let lines: Vec<&Entry> = lines.iter().filter(|line| places.contains(&line.place)).collect();
    let width = lines.iter().map(|line| line.name.chars().count()).max().unwrap_or(0);
    lines.iter().fold(String::new(), |mut text, line| {
        let (bytes, name) = (quantity::bytes(line.bytes), line.name);
        let _ = writeln!(text, "  {name:<width$}  {bytes:>10}  {}", line.arithmetic);
        text
    })
}

#[cfg(test)]
mod tests;
