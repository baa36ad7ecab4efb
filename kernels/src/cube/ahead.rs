//! Projections that wait on the host are copied ahead: while a block computes, a thread of its own copies the
//! next one, so that at most two blocks are on the device.
//!
//! Work of one thread runs on a device in its order, that of two threads at once. Two orders between them
//! are kept. A kernel waits for the copies it reads: the runtime sees to it. Memory that was read is
//! written again only after what read it: the runtime does not see to that (it frees what no handle names,
//! done or not), so copies are given up by handing them to the copying thread with a mark of what the device
//! has to have finished, and that thread waits for the mark before it lets go of them. A copy serves the
//! thread alone that asked for it, whose marks are the ones that count.

use std::any::Any;
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread;

use burn_cubecl::CubeRuntime;
use cubecl::future::{DynFut, block_on};
use cubecl::server::ServerError;

use super::launch::OnDevice;
use super::matrix::DeviceMatrix;
use crate::arrival::{self, Arrival};
use crate::frozen::FrozenMatrix;

/// A weight on the host, for a device.
#[derive(Debug)]
pub struct Waiting<R: CubeRuntime> {
    matrix: FrozenMatrix,
    device: R::Device,
    copy: Arrival<Box<DeviceMatrix<R>>>,
}

impl<R: CubeRuntime> Waiting<R> {
    /// A weight with no copy.
    pub(super) fn new(matrix: FrozenMatrix, device: R::Device) -> Self {
        Self { matrix, device, copy: Arrival::default() }
    }

    /// The weight itself.
    pub(super) fn matrix(&self) -> &FrozenMatrix {
        &self.matrix
    }

    /// For what device.
    pub(super) fn device(&self) -> &R::Device {
        &self.device
    }

    /// The copy that was made ahead, or one that lives as long as it is used.
    ///
    /// # Panics
    /// If the device, or the thread that copies, has failed meanwhile.
    pub(super) fn here(&self) -> DeviceMatrix<R> {
        match self.copy.wait(|matrix| DeviceMatrix::clone(matrix)) {
            Ok(Some(copy)) => copy,
            Ok(None) => DeviceMatrix::new(&self.matrix, &OnDevice::on(&self.device)),
            Err(reason) => panic!("a weight {:?} for the device: {reason}", self.matrix.shape()),
        }
    }
}

/// What the copying thread does next.
struct Order<R: CubeRuntime> {
    /// That the device has finished what was asked of it before.
    finished: Option<DynFut<Result<(), ServerError>>>,
    /// Copies that nothing will read after that.
    given_up: Vec<Box<DeviceMatrix<R>>>,
    wanted: Vec<Arc<Waiting<R>>>,
}

/// The copying thread of a thread that computes, for one device.
struct Copier<R: CubeRuntime> {
    device: R::Device,
    orders: Sender<Order<R>>,
    /// Weights that were asked for and may have copies.
    held: Vec<Weak<Waiting<R>>>,
    /// Device memory that its copies take.
    bytes: Arc<AtomicU64>,
}

thread_local! {
    /// One for each device, for all models that this thread runs on it: an order names its weights.
    static COPIERS: RefCell<Vec<Box<dyn Any>>> = RefCell::default();
}

impl<R: CubeRuntime> Copier<R> {
    /// `None` where the system gives no thread: weights are then copied as they are used.
    fn start(device: &R::Device) -> Option<Self> {
        let (orders, inbox) = channel();
        let bytes = Arc::new(AtomicU64::new(0));
        let (place, count) = (device.clone(), Arc::clone(&bytes));
        let name = "copy-ahead".to_owned();
        thread::Builder::new().name(name).spawn(move || serve(&inbox, &place, &count)).ok()?;
        Some(Self { device: device.clone(), orders, held: Vec::new(), bytes })
    }

    /// Does work with that of this thread, if there is one.
    fn of_thread<T>(device: &R::Device, work: impl FnOnce(&mut Self) -> T) -> Option<T> {
        COPIERS.with_borrow_mut(|copiers| {
            let mut all = copiers.iter_mut().filter_map(|copier| copier.downcast_mut::<Self>());
            all.find(|copier| copier.device == *device).map(work)
        })
    }

    fn visit(&mut self, now: &[Arc<Waiting<R>>], next: &[Arc<Waiting<R>>]) {
        let stay: Vec<_> = now.iter().chain(next).map(Arc::as_ptr).collect();
        let wanted: Vec<_> =
            now.iter().chain(next).filter(|weight| weight.copy.order()).cloned().collect();
        if wanted.is_empty() {
            return;
        }
        let mut given_up = Vec::new();
        self.held.retain(|weight| {
            let Some(weight) = weight.upgrade() else { return false };
            let given =
                (!stay.contains(&Arc::as_ptr(&weight))).then(|| weight.copy.give_up()).flatten();
            let is_given = given.is_some();
            given_up.extend(given);
            !is_given
        });
        self.held.extend(wanted.iter().map(Arc::downgrade));
        let finished = Some(OnDevice::<R>::on(&self.device).client.sync());
        // The thread ends with this one alone.
        let sent = self.orders.send(Order { finished, given_up, wanted });
        sent.expect("the copying thread takes orders");
    }
}

/// A block of weights `now` runs next on this thread, and then one of weights `next`.
pub(super) fn visit<R: CubeRuntime>(now: &[Arc<Waiting<R>>], next: &[Arc<Waiting<R>>]) {
    let Some(first) = now.first() else { return };
    let visit = |copier: &mut Copier<R>| copier.visit(now, next);
    if Copier::of_thread(&first.device, visit).is_none()
        && let Some(mut copier) = Copier::start(&first.device)
    {
        visit(&mut copier);
        COPIERS.with_borrow_mut(|copiers| copiers.push(Box::new(copier)));
    }
}

/// Device memory that copies made ahead for this thread take.
pub(super) fn device_memory<R: CubeRuntime>(device: &R::Device) -> u64 {
    let bytes = |copier: &mut Copier<R>| copier.bytes.load(Ordering::Relaxed);
    Copier::of_thread(device, bytes).unwrap_or(0)
}

fn serve<R: CubeRuntime>(orders: &Receiver<Order<R>>, device: &R::Device, bytes: &AtomicU64) {
    let copy = |Order { finished, given_up, wanted }: &mut Order<R>| {
        let place = OnDevice::<R>::on(device);
        if let Some(finished) = finished.take() {
            block_on(finished).map_err(|error| format!("{error:?}"))?;
        }
        given_up.clear();
        for weight in wanted {
            weight.copy.deliver(Ok(copied(&weight.matrix, &place)?));
        }
        // Some runtimes begin with copies only now, some keep the host's bytes until they are told.
        place.client.flush().map_err(|error| format!("{error:?}"))?;
        let usage = place.client.memory_usage().map(|usage| usage.bytes_reserved);
        bytes.store(usage.unwrap_or(0), Ordering::Relaxed);
        Ok(())
    };
    let fail = |order: &Order<R>, reason: &str| {
        for weight in &order.wanted {
            weight.copy.deliver(Err(reason.to_owned()));
        }
    };
    arrival::serve(orders, copy, fail);
}

/// Weights of a size come and go: each takes the place of one before.
fn copied<R: CubeRuntime>(
    matrix: &FrozenMatrix,
    place: &OnDevice<R>,
) -> Result<Box<DeviceMatrix<R>>, String> {
    let client = place.client.clone();
    let copied = client.memory_persistent_allocation((), |()| DeviceMatrix::new(matrix, place));
    copied.map(Box::new).map_err(|error| format!("{error:?}"))
}
