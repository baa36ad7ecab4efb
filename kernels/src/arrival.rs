//! Things that another thread makes ahead, and whoever waits for them: nobody waits for a thread that has
//! failed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::Receiver;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

/// A thing that may be made ahead.
#[derive(Debug)]
pub(crate) struct Arrival<T> {
    ahead: Mutex<Option<Ahead<T>>>,
    arrived: Condvar,
}

/// One that is made ahead.
#[derive(Debug)]
struct Ahead<T> {
    /// The thread that it serves.
    of: ThreadId,
    state: State<T>,
}

#[derive(Debug)]
enum State<T> {
    OnItsWay,
    Here(T),
    Failed(String),
}

impl<T> Default for Arrival<T> {
    fn default() -> Self {
        Self { ahead: Mutex::new(None), arrived: Condvar::new() }
    }
}

impl<T> Arrival<T> {
    /// Says that there will be one for this thread, unless there is one.
    pub(crate) fn order(&self) -> bool {
        let mut ahead = self.lock();
        let is_new = ahead.is_none();
        ahead.get_or_insert(Ahead { of: thread::current().id(), state: State::OnItsWay });
        is_new
    }

    /// What was ordered for this thread, as `look` sees it, once it is here; `None` where nothing was.
    ///
    /// # Errors
    /// Why it will not come.
    pub(crate) fn wait<U>(&self, look: impl FnOnce(&T) -> U) -> Result<Option<U>, String> {
        let mut ahead = self.lock();
        loop {
            match ahead.as_ref().filter(|ahead| ahead.of == thread::current().id()) {
                None => return Ok(None),
                Some(Ahead { state: State::Here(made), .. }) => return Ok(Some(look(made))),
                Some(Ahead { state: State::Failed(reason), .. }) => return Err(reason.clone()),
                Some(Ahead { state: State::OnItsWay, .. }) => {
                    ahead = self.arrived.wait(ahead).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Hands over what was ordered, or why it will not come.
    pub(crate) fn deliver(&self, made: Result<T, String>) {
        let state = made.map_or_else(State::Failed, State::Here);
        let before = self.lock().as_mut().map(|ahead| std::mem::replace(&mut ahead.state, state));
        self.arrived.notify_all();
        // What was here before a failure may panic as it goes. The failure is told already, and others have to
        // be told of theirs.
        let _ = guarded(|| {
            drop(before);
            Ok(())
        });
    }

    /// The thing, which then serves nobody any more; `None` while it is on its way.
    pub(crate) fn give_up(&self) -> Option<T> {
        let mut ahead = self.lock();
        match ahead.take() {
            Some(Ahead { state: State::Here(made), .. }) => Some(made),
            other => {
                *ahead = other;
                None
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Ahead<T>>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Works off orders until nobody sends any more. Where `work` fails or panics, `fail` is told for that order
/// and, since what has failed once gives no right values later, for every one that follows; where what an order
/// held panics as it goes, for those that follow.
pub(crate) fn serve<O>(
    orders: &Receiver<O>,
    mut work: impl FnMut(&mut O) -> Result<(), String>,
    fail: impl Fn(&O, &str),
) {
    let mut health = Ok(());
    for mut order in orders {
        if health.is_ok() {
            health = guarded(|| work(&mut order));
        }
        if let Err(reason) = &health {
            fail(&order, reason);
        }
        let gone = guarded(|| {
            drop(order);
            Ok(())
        });
        health = health.and(gone);
    }
}

/// What a thread does that nobody watches: its panic is a reason among others.
fn guarded(work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let done = catch_unwind(AssertUnwindSafe(work));
    done.unwrap_or_else(|panic| Err(format!("it panicked: {}", said(&*panic))))
}

/// What a panic said.
fn said(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it did not say")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// Panics as it goes, if it is so made.
    #[derive(Debug, PartialEq)]
    struct Held(bool);

    impl Drop for Held {
        fn drop(&mut self) {
            assert!(!self.0, "injected as it goes");
        }
    }

    type Order = (u32, Arc<Arrival<u32>>, Held);

    /// A thread that delivers squares, panics at 3 and fails at 4.
    fn start() -> (Sender<Order>, thread::JoinHandle<()>) {
        let (orders, inbox) = channel::<Order>();
        let work = |(number, arrival, _): &mut Order| {
            assert!(*number != 3, "injected at {number}");
            if *number == 4 {
                return Err("injected".to_owned());
            }
            arrival.deliver(Ok(*number * *number));
            Ok(())
        };
        let fail = |(_, arrival, _): &Order, reason: &str| arrival.deliver(Err(reason.to_owned()));
        (orders, thread::spawn(move || serve(&inbox, work, fail)))
    }

    fn ordered(orders: &Sender<Order>, number: u32) -> Arc<Arrival<u32>> {
        let arrival = Arc::new(Arrival::default());
        assert!(arrival.order(), "a new one");
        orders.send((number, arrival.clone(), Held(false))).unwrap();
        arrival
    }

    #[test]
    fn whoever_waits_is_told_when_the_thread_panics() {
        let (orders, thread) = start();
        let all = [1, 2, 3, 1].map(|number| ordered(&orders, number));
        let found = all.each_ref().map(|arrival| arrival.wait(|&square| square));
        let panicked = Err("it panicked: injected at 3".to_owned());
        assert_eq!(found, [Ok(Some(1)), Ok(Some(4)), panicked.clone(), panicked.clone()]);
        // The thread still answers.
        assert_eq!(ordered(&orders, 1).wait(|&square| square), panicked);
        drop(orders);
        thread.join().unwrap();
    }

    #[test]
    fn whoever_waits_is_told_when_the_work_fails() {
        let (orders, thread) = start();
        let all = [4, 1].map(|number| ordered(&orders, number));
        let found = all.each_ref().map(|arrival| arrival.wait(|&square| square));
        assert_eq!(found, [Err("injected".to_owned()), Err("injected".to_owned())]);
        drop(orders);
        thread.join().unwrap();
    }

    #[test]
    fn whoever_waits_is_told_when_what_an_order_held_panics_as_it_goes() {
        for number in [2, 4] {
            let (orders, thread) = start();
            let first = Arc::new(Arrival::default());
            first.order();
            orders.send((number, first.clone(), Held(true))).unwrap();
            let second = ordered(&orders, 1);
            let (done, reason) = match number {
                2 => (Ok(Some(4)), "it panicked: injected as it goes"),
                _ => (Err("injected".to_owned()), "injected"),
            };
            assert_eq!(first.wait(|&square| square), done);
            assert_eq!(second.wait(|&square| square), Err(reason.to_owned()));
            drop(orders);
            thread.join().unwrap();
        }
    }

    #[test]
    fn what_comes_too_late_may_panic_as_it_goes() {
        let arrival = Arrival::default();
        arrival.order();
        arrival.deliver(Ok(Held(true)));
        arrival.deliver(Err("injected".to_owned()));
        assert_eq!(arrival.wait(|_| ()), Err("injected".to_owned()));
    }

    #[test]
    fn what_is_here_serves_its_own_thread_until_it_is_given_up() {
        let arrival = Arrival::default();
        assert_eq!(arrival.wait(|&made: &u32| made), Ok(None));
        assert!(arrival.order() && !arrival.order(), "one order");
        assert_eq!(arrival.give_up(), None, "it is on its way");
        arrival.deliver(Ok(5));
        assert_eq!(arrival.wait(|&made| made), Ok(Some(5)));
        let other = thread::scope(|scope| scope.spawn(|| arrival.wait(|&made| made)).join());
        assert_eq!(other.unwrap(), Ok(None));
        assert_eq!(arrival.give_up(), Some(5));
        assert_eq!(arrival.wait(|&made| made), Ok(None));
    }
}
