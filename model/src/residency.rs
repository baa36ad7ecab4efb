//! Which of a model's frozen weights are in memory while its blocks are visited in turn: the block at
//! hand and, on its way from the disk, the next.
//!
//! Weights that lie in the maps of their files are read one block in front by a thread of their own and
//! handed back behind. The system keeps their content for as long as it has room: a model that fits is
//! read once, and one that does not is read by every pass, the next pass beginning with what the last
//! one ended with. Weights that the process owns are not known here and stay where they are.
//!
//! Mapping a page that the system still holds takes up to a microsecond with everything that belongs to
//! it, so that a model which fits is handed back only where the tokens of a visit make that a hundredth
//! of the work on it (`WORTH`). A model that takes most of the memory always is.

use std::cell::{Cell, OnceCell};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::pages::{Access, Mapped};
use crate::system_memory::SystemMemory;

/// The frozen weights of one part of a model that lie in maps.
type Part = Arc<[Mapped]>;

/// Multiply-adds for each byte of mapped weights from which on handing it back costs about 1 % of a pass:
/// measured at 200 billion multiply-adds a second, 0.7 microseconds a page. NF4 reaches it with 460 tokens
/// a visit, bf16 with 1,800.
const WORTH: f64 = 900.0;

/// The mapped weights of a model, by the part that uses them.
///
/// One walk over the blocks at a time: two that took turns would hand back what the other is using. That is
/// why it, and the model with it, cannot be shared between threads.
#[derive(Debug, Default)]
pub struct Residency {
    blocks: Vec<Part>,
    embedding: Part,
    /// The head, or the embedding where that serves as such.
    head: Part,
    /// Parameters of a block.
    block_parameters: usize,
    walk: Cell<Position>,
    reader: OnceCell<Option<Reader>>,
    is_large: OnceCell<bool>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Position {
    at: Option<usize>,
    /// What is read ahead.
    announced: Option<usize>,
}

impl Residency {
    /// The pages of the blocks in order, of the embedding, and of the head where there is one.
    pub(crate) fn new(
        block_parameters: usize,
        blocks: Vec<Vec<Mapped>>,
        embedding: Vec<Mapped>,
        head: Option<Vec<Mapped>>,
    ) -> Self {
        if head.is_some() {
            // A few rows of it are read, here and there.
            for pages in &embedding {
                pages.set_access(Access::Scattered);
            }
        }
        let embedding = Part::from(embedding);
        let head = head.map_or_else(|| Arc::clone(&embedding), Part::from);
        let blocks = blocks.into_iter().map(Part::from).collect();
        Self { blocks, embedding, head, block_parameters, ..Self::default() }
    }

    /// The pages of each block's frozen weights.
    pub fn blocks(&self) -> &[Arc<[Mapped]>] {
        &self.blocks
    }

    /// The pages of the embedding and of the head, which may be the same.
    pub fn tables(&self) -> [&[Mapped]; 2] {
        [&self.embedding, &self.head]
    }

    /// Whether the model takes so much of the memory that none of it should stay longer than needed.
    pub fn is_large(&self) -> bool {
        *self.is_large.get_or_init(|| !fits(self.mapped_bytes().saturating_mul(2)))
    }

    /// None of the model is to stay longer than needed, however small it is: it is passed over once.
    pub fn keep_nothing(&self) {
        self.is_large.get_or_init(|| true);
    }

    /// Whether a pass over so many tokens hands blocks back behind it.
    pub(crate) fn streams(&self, tokens: usize) -> bool {
        let Some(block) = self.blocks.iter().map(bytes).max().filter(|&bytes| bytes > 0) else {
            return false;
        };
        tokens as f64 * self.block_parameters as f64 >= WORTH * block as f64 || self.is_large()
    }

    /// Block `layer` is run now, and then `next`: reads ahead, and hands back the block before.
    pub(crate) fn visit(&self, layer: usize, next: Next) {
        let mut walk = self.walk.get();
        let before = walk.at.replace(layer).filter(|&before| before != layer);
        let mut wanted = Vec::new();
        if walk.announced != Some(layer) {
            wanted.push((Arc::clone(&self.blocks[layer]), Until::ThisOrder));
        }
        let next_block = if let Next::Block(next) = next { Some(next) } else { None };
        walk.announced = next_block;
        self.walk.set(walk);
        let next = match next {
            Next::Block(next) => Some(&self.blocks[next]),
            Next::Head => Some(&self.head).filter(|_| self.is_large()),
            Next::Nothing => None,
        };
        wanted.extend(next.map(|part| (Arc::clone(part), Until::NextOrder)));
        let done = before.map(|before| Arc::clone(&self.blocks[before])).into_iter().collect();
        self.order(done, wanted);
    }

    /// Nobody needs the embedding and the head for a while.
    pub(crate) fn release_tables(&self) {
        // The peak is when the head is used, handed back afterwards or not.
        if self.is_large() {
            self.order(vec![Arc::clone(&self.embedding), Arc::clone(&self.head)], Vec::new());
        }
    }

    /// Rows `used` of the head's `rows` are not needed for a while.
    pub fn leave_head(&self, used: Range<usize>, rows: usize) {
        if self.is_large() {
            for pages in self.head.iter() {
                let at = |row: usize| pages.bytes().len() / rows * row;
                pages.release_part(at(used.start)..at(used.end));
            }
        }
    }

    fn order(&self, done: Vec<Part>, wanted: Vec<(Part, Until)>) {
        match self.reader.get_or_init(|| Reader::start(self.is_large())) {
            Some(reader) => reader.give(done, wanted),
            None => done.iter().for_each(release),
        }
    }

    fn mapped_bytes(&self) -> u64 {
        let parts = self.blocks.iter().chain([&self.embedding, &self.head]);
        parts.map(bytes).sum()
    }
}

fn bytes(part: &Part) -> u64 {
    part.iter().map(|pages| pages.bytes().len() as u64).sum()
}

/// What follows the block at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Block(usize),
    Head,
    Nothing,
}

fn release(part: &Part) {
    part.iter().for_each(Mapped::release);
}

/// Whether so many bytes fit beside what else is in memory, and into what the process's control groups
/// leave. Systems that do not say so count as large enough.
fn fits(bytes: u64) -> bool {
    SystemMemory::now().usable().is_none_or(|usable| bytes < usable)
}

/// How long a part is wanted.
#[derive(Clone, Copy, Debug)]
enum Until {
    ThisOrder,
    NextOrder,
}

/// The thread that reads ahead.
#[derive(Debug)]
struct Reader {
    desk: Arc<Desk>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Desk {
    tray: Mutex<Tray>,
    changed: Condvar,
    /// How many orders there were.
    orders: AtomicU64,
}

#[derive(Debug, Default)]
struct Tray {
    orders: Orders,
    closed: bool,
}

#[derive(Debug, Default)]
struct Orders {
    /// Parts to hand back. The reader does this, too: nothing it has in hand can come in between.
    done: Vec<Part>,
    /// Parts to read, and the last order in which each is wanted.
    wanted: Vec<(Part, u64)>,
}

impl Reader {
    /// `from_disk`: the system will hardly have what is to be read. `None` where it gives no thread:
    /// pages are then read when they are touched.
    fn start(from_disk: bool) -> Option<Self> {
        let desk = Arc::new(Desk::default());
        let reads = Arc::clone(&desk);
        let name = "read-ahead".to_owned();
        let thread =
            thread::Builder::new().name(name).spawn(move || reads.serve(from_disk)).ok()?;
        Some(Self { desk, thread: Some(thread) })
    }

    fn give(&self, done: Vec<Part>, wanted: Vec<(Part, Until)>) {
        let mut tray = lock(&self.desk.tray);
        let order = self.desk.orders.fetch_add(1, Ordering::Relaxed) + 1;
        tray.orders.done.extend(done);
        tray.orders.wanted.extend(wanted.into_iter().map(|(part, until)| match until {
            Until::ThisOrder => (part, order),
            Until::NextOrder => (part, order + 1),
        }));
        self.desk.changed.notify_one();
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut tray = lock(&self.desk.tray);
        tray.closed = true;
        self.desk.orders.store(u64::MAX, Ordering::Relaxed);
        self.desk.changed.notify_one();
        drop(tray);
        if let Some(thread) = self.thread.take() {
            // It does not panic; and if it did, nothing would depend on it.
            let _ = thread.join();
        }
    }
}

impl Desk {
    fn serve(&self, from_disk: bool) {
        while let Some(Orders { done, wanted }) = self.next() {
            done.iter().for_each(release);
            for (part, until) in wanted {
                for pages in part.iter() {
                    pages.populate(from_disk, || self.orders.load(Ordering::Relaxed) <= until);
                }
            }
        }
    }

    /// What there is to do next, or `None` once there will be no more.
    fn next(&self) -> Option<Orders> {
        let mut tray = lock(&self.tray);
        loop {
            if tray.closed {
                return None;
            }
            if !(tray.orders.done.is_empty() && tray.orders.wanted.is_empty()) {
                return Some(std::mem::take(&mut tray.orders));
            }
            tray = self.changed.wait(tray).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
