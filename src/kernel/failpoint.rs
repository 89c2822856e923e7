//! Named points at which a test lets a process die, so that "crashes exactly here" can be shown.
//!
//! Armed by the setting `FAILPOINT` (`name` or `name:3` for the third passing) in debug builds;
//! in release builds [`pass`] is empty.

use std::sync::{
    OnceLock,
    atomic::{AtomicU32, Ordering},
};

struct Armed {
    name: String,
    passes_left: AtomicU32,
}

static ARMED: OnceLock<Armed> = OnceLock::new();

/// Makes the process abort when the named point is passed for the `n`th time. Only the first call counts.
pub fn arm(name: &str, n: u32) {
    let armed = Armed { name: name.to_owned(), passes_left: AtomicU32::new(n) };
    if ARMED.set(armed).is_ok() {
        tracing::warn!(failpoint = name, passes = n, "this process will abort at a failpoint");
    }
}

/// Marks a point between two steps at which a crash must do no harm.
pub fn pass(name: &'static str) {
    if !cfg!(debug_assertions) {
        return;
    }
    let Some(armed) = ARMED.get() else { return };
    if armed.name == name && armed.passes_left.fetch_sub(1, Ordering::SeqCst) == 1 {
        std::process::abort();
    }
}
