//! Memory that a process holds without needing it: what the allocator keeps for later, and the code of the start.
//!
//! A long-lived process calls [`give_back_in_background`] once it has its threads, and [`give_back_now`] when it knows that
//! it has just let go of much (a configuration that was read, a burst that is over). [`forget_startup_code`] is for a
//! program of which a process runs a part only: the pages of its file that the start has touched are unmapped, those that
//! are needed again come back from the page cache, one fault for sixteen pages.
//!
//! Bounds: one thread more (jemalloc's), [`DECAY`] until unused pages are given back. What it does not do: limit anything.

use std::time::Duration;

pub use crate::system::memory::forget_startup_code;

/// How long the allocator keeps unused pages once [`give_back_in_background`] was called: a pause between two requests
/// costs nothing, a quiet minute returns what the busy one took.
pub const DECAY: Duration = Duration::from_secs(5);

/// Has the allocator return unused pages by itself, also while the process is idle. Starts a thread: not before a process
/// that needs to be alone has entered its namespaces.
pub fn give_back_in_background() {
    allocator::give_back_in_background();
}

/// Returns what the allocator holds unused; some hundred microseconds.
pub fn give_back_now() {
    allocator::give_back_now();
}

#[cfg(feature = "jemalloc")]
mod allocator {
    use std::{
        ffi::{CStr, c_char},
        mem::size_of,
        ptr,
    };

    use super::DECAY;

    /// What jemalloc reads before the first allocation. A thread looks through its cache of freed blocks after so many bytes
    /// of allocations: every 64 KiB, as it does by itself, is every fourth HTTP/2 request.
    #[used]
    // SAFETY: `malloc_conf` is jemalloc's own name for a pointer to a text that ends with a zero byte, which it only reads;
    // nothing else in the program has that name.
    #[unsafe(export_name = "malloc_conf")]
    static CONFIGURATION: core::option::Option<&'static c_char> =
        // SAFETY: the pointer of a literal is valid for ever.
        Some(unsafe { &*c"tcache_gc_incr_bytes:2097152".as_ptr() });

    /// Every arena (`MALLCTL_ARENAS_ALL` of jemalloc's manual).
    const PURGE_ALL: &CStr = c"arena.4096.purge";

    pub(super) fn give_back_in_background() {
        let decay = isize::try_from(DECAY.as_millis()).unwrap_or(isize::MAX);
        // Arenas that come later, then those that are there: each worker has one.
        set(c"arenas.dirty_decay_ms", decay);
        let mut arenas: u32 = 0;
        get(c"arenas.narenas", &mut arenas);
        for arena in 0..arenas {
            let name = format!("arena.{arena}.dirty_decay_ms\0");
            if let Ok(name) = CStr::from_bytes_with_nul(name.as_bytes()) {
                set(name, decay);
            }
        }
        set(c"max_background_threads", 1_usize);
        set(c"background_thread", true);
    }

    pub(super) fn give_back_now() {
        call(c"thread.tcache.flush");
        call(PURGE_ALL);
    }

    /// The kinds of values that jemalloc's options have.
    trait Option: Copy {}
    impl Option for bool {}
    impl Option for usize {}
    impl Option for isize {}
    impl Option for u32 {}

    /// An option that this build of jemalloc lacks stays as it is: nothing depends on it but how much is held.
    fn set<T: Option>(name: &CStr, mut value: T) {
        // SAFETY: the name ends with a zero byte, the new value is a live `T` of the stated size that is only read, and no
        // old value is asked for; jemalloc refuses a size that is not the option's.
        let code = unsafe {
            tikv_jemalloc_sys::mallctl(
                name.as_ptr(),
                ptr::null_mut(),
                ptr::null_mut(),
                (&raw mut value).cast(),
                size_of::<T>(),
            )
        };
        report(name, code);
    }

    fn get<T: Option>(name: &CStr, value: &mut T) {
        let mut size = size_of::<T>();
        // SAFETY: the name ends with a zero byte; the old value goes to a live `T` of the stated size, of whose type every
        // pattern that jemalloc writes is a value; nothing is set.
        let code = unsafe {
            tikv_jemalloc_sys::mallctl(
                name.as_ptr(),
                (&raw mut *value).cast(),
                &raw mut size,
                ptr::null_mut(),
                0,
            )
        };
        report(name, code);
    }

    fn call(name: &CStr) {
        // SAFETY: the name ends with a zero byte; no value is passed in either direction.
        let code = unsafe {
            tikv_jemalloc_sys::mallctl(
                name.as_ptr(),
                ptr::null_mut(),
                ptr::null_mut(),
                ptr::null_mut(),
                0,
            )
        };
        report(name, code);
    }

    fn report(name: &CStr, code: std::ffi::c_int) {
        if code != 0 {
            tracing::debug!(?name, code, "the allocator does not take this");
        }
    }

    #[cfg(test)]
    mod tests {
        #[test]
        fn jemalloc_has_read_its_configuration() {
            let mut every = 0_usize;
            super::get(c"opt.tcache_gc_incr_bytes", &mut every);
            assert_eq!(every, 2 << 20);
        }
    }
}

#[cfg(not(feature = "jemalloc"))]
mod allocator {
    /// The system's allocator gives large blocks back by itself, and has no thread for the others.
    pub(super) fn give_back_in_background() {}

    pub(super) fn give_back_now() {
        #[cfg(target_env = "gnu")]
        // SAFETY: it only gives pages of the heap back that hold nothing.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}
