//! Libraries that panic on what a stranger's file asks of them: their panics become errors.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Whether a panic on this thread becomes an error that names a file: a hook has nothing to say about it.
pub fn panics_are_caught() -> bool {
    DEPTH.get() > 0
}

/// What the work gives, or `None` where it panics. Nothing that the work changes may be used after that.
pub fn caught<T>(work: impl FnOnce() -> T) -> Option<T> {
    DEPTH.set(DEPTH.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(work));
    DEPTH.set(DEPTH.get() - 1);
    result.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_answer_and_the_thread_is_as_before() {
        assert_eq!(caught(|| caught(|| assert!(!panics_are_caught(), "it is caught"))), Some(None));
        assert_eq!(caught(panics_are_caught), Some(true));
        assert!(!panics_are_caught());
    }
}
