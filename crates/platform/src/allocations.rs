//! Counts allocations, for tests that hold a path to a number of them. A test program makes [`Counting`] its global
//! allocator; the product never does.
//!
//! All threads are counted but those that said otherwise: a test's own client and server are not what it measures.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::atomic::{AtomicU64, Ordering},
};

/// The system's allocator, counted.
#[derive(Debug)]
pub struct Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);

thread_local! {
    // Without a destructor, so that it can be asked at any moment of a thread's life, and without an allocation.
    static IGNORED: Cell<bool> = const { Cell::new(false) };
}

/// Leaves this thread's allocations out from now on.
pub fn ignore_this_thread() {
    IGNORED.set(true);
}

/// Allocations so far, those that grow one that is there included.
pub fn count() -> u64 {
    COUNT.load(Ordering::SeqCst)
}

fn note() {
    if !IGNORED.get() {
        COUNT.fetch_add(1, Ordering::SeqCst);
    }
}

// SAFETY: every call goes on to the system's allocator as it came, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above; it came from `System`, as everything here does.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        // SAFETY: as above; it came from `System`, as everything here does.
        unsafe { System.realloc(memory, layout, size) }
    }
}
