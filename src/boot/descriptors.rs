//! How many files and connections the process may have open at a time.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Lets the process have as many as `wanted` descriptors where the system allows it, and returns
/// how many it may have. Never lowers the limit.
pub(crate) fn allow(wanted: usize) -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // No number is no limit.
    let Some(current) = current else { return wanted };
    let goal = maximum.map_or(wanted as u64, |maximum| maximum.min(wanted as u64)).max(current);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(goal), maximum });
    let allowed = if raised.is_ok() { goal } else { current };
    usize::try_from(allowed).unwrap_or(usize::MAX)
}
