//! Clients of another kind: slow, silent, greedy, broken or hostile. Whatever they do, they are told so
//! in our words or closed, they cost a bounded amount of memory, and nobody else notices them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "what was measured is shown")]

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "the journeys need more of it")]
mod support;

mod process;
mod raw;
mod steady;

mod greedy;
mod heads;
mod many;
mod pages;
mod slow;
mod sources;
mod stop;
