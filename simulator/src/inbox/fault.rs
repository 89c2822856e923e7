//! What goes wrong, and for how long.

use std::{collections::VecDeque, time::Duration};

use serde::{Deserialize, Deserializer};

/// A way in which a mail server fails its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// A new connection is reset before the greeting, an open one at its next command.
    ///
    /// Only a new connection counts as a strike: a client that finds its idle connection dead
    /// and opens another has failed once, not twice.
    RefuseConnection,
    /// The mail is refused with 451 at its end.
    TemporaryFailure,
    /// The recipient is refused with 550.
    PermanentFailure,
    /// The mail is kept, and the client never hears of it.
    HangAfterData,
    /// The mail is kept, and the connection is cut where the client waits for the answer.
    DropAfterData,
    /// The mail is kept and acknowledged, that long after its end.
    #[serde(rename = "slow-ms")]
    Slow(#[serde(deserialize_with = "milliseconds")] Duration),
}

fn milliseconds<'de, D: Deserializer<'de>>(wire: D) -> Result<Duration, D::Error> {
    u32::deserialize(wire).map(|ms| Duration::from_millis(ms.into()))
}

/// The point of an SMTP session at which a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Point {
    Connection,
    Recipient,
    EndOfData,
}

impl Fault {
    const fn point(self) -> Point {
        match self {
            Self::RefuseConnection => Point::Connection,
            Self::PermanentFailure => Point::Recipient,
            Self::TemporaryFailure | Self::HangAfterData | Self::DropAfterData | Self::Slow(_) => {
                Point::EndOfData
            }
        }
    }
}

/// The faults that are due: a queue of counted ones, then the lasting one.
#[derive(Debug, Default)]
pub(super) struct Faults {
    counted: VecDeque<Fault>,
    lasting: Option<Fault>,
}

impl Faults {
    pub(super) fn strike_next(&mut self, fault: Fault, times: u32) {
        self.counted.extend((0..times).map(|_| fault));
    }

    pub(super) fn strike_always(&mut self, fault: Option<Fault>) {
        if fault.is_none() {
            self.counted.clear();
        }
        self.lasting = fault;
    }

    /// The fault that strikes at `point` now, and would again.
    pub(super) fn due(&self, point: Point) -> Option<Fault> {
        let next = self.counted.front().copied().or(self.lasting);
        next.filter(|fault| fault.point() == point)
    }

    /// The fault that strikes at `point` now; one strike of a counted fault is used up.
    pub(super) fn take(&mut self, point: Point) -> Option<Fault> {
        let due = self.due(point)?;
        self.counted.pop_front();
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counted_faults_come_in_order_before_the_lasting_one() {
        let mut faults = Faults::default();
        faults.strike_always(Some(Fault::HangAfterData));
        faults.strike_next(Fault::TemporaryFailure, 1);
        faults.strike_next(Fault::DropAfterData, 1);

        let struck: Vec<_> = (0..4).map(|_| faults.take(Point::EndOfData)).collect();

        assert_eq!(
            struck,
            [
                Some(Fault::TemporaryFailure),
                Some(Fault::DropAfterData),
                Some(Fault::HangAfterData),
                Some(Fault::HangAfterData),
            ]
        );
    }

    #[test]
    fn a_fault_waits_for_its_point() {
        let mut faults = Faults::default();
        faults.strike_next(Fault::PermanentFailure, 1);

        assert_eq!(faults.take(Point::Connection), None);
        assert_eq!(faults.take(Point::Recipient), Some(Fault::PermanentFailure));
        assert_eq!(faults.take(Point::Recipient), None);
    }

    #[test]
    fn no_fault_ends_every_fault() {
        let mut faults = Faults::default();
        faults.strike_always(Some(Fault::HangAfterData));
        faults.strike_next(Fault::TemporaryFailure, 3);

        faults.strike_always(None);

        assert_eq!(faults.take(Point::EndOfData), None);
    }
}
