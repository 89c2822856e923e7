//! The clock of this process.

use time::OffsetDateTime;

/// Now, by this machine's clock: for the age of tokens and signatures, which others judge by their
/// own clocks anyway. Deadlines are the database's, which every process asks alike.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}
