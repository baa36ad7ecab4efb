//! Memory for results that are written whole: clearing it first would be another pass over it.
#![expect(unsafe_code, reason = "results are handed on once every value was written")]

use std::mem::MaybeUninit;

/// Room for `len` values that have yet to be written.
pub(super) fn unwritten<T>(len: usize) -> Vec<MaybeUninit<T>> {
    Box::new_uninit_slice(len).into_vec()
}

/// The values.
///
/// # Safety
/// Every one of them was written.
pub(super) unsafe fn written<T: Copy>(values: Vec<MaybeUninit<T>>) -> Vec<T> {
    // SAFETY: by the caller's promise; the allocation of the box is that of the vector.
    unsafe { values.into_boxed_slice().assume_init() }.into_vec()
}
