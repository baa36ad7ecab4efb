//! Hands pages of a memory map back once their content has been taken over in another form, so that
//! loading a model that is quantised on the way needs the quantised model and one tensor.

/// Drops the whole pages inside `bytes` from this process; they are read again when they are needed.
///
/// `bytes` must lie in a read-only map of a file.
#[expect(unsafe_code, reason = "madvise(2) has no safe wrapper for a part of a shared map")]
pub(super) fn release(bytes: &[u8]) {
    #[cfg(unix)]
    {
        // SAFETY: asks for a constant of the system.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let Ok(page) = usize::try_from(page) else { return };
        let start = bytes.as_ptr().addr().next_multiple_of(page);
        let end = (bytes.as_ptr().addr() + bytes.len()) / page * page;
        if start >= end {
            return;
        }
        let first = bytes.as_ptr().wrapping_add(start - bytes.as_ptr().addr());
        // SAFETY: the range is whole pages of a read-only file map, so nothing is lost: the system
        // reads the file again. The result is advice taken or not, and needs no check.
        unsafe {
            libc::madvise(first.cast_mut().cast(), end - start, libc::MADV_DONTNEED);
        }
    }
    #[cfg(not(unix))]
    let _ = bytes;
}
