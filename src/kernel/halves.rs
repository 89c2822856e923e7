//! Working on a slice as a whole, without letting one bad member spoil it for the others.

use std::future::Future;

use crate::kernel::{Class, Fault, fault::Chain};

/// Works on the slice with as few attempts as possible, and answers each member, in order.
///
/// `attempt` does all of a slice or nothing. A slice that fails is halved until the member that
/// spoils it stands alone with its error. What is [`Class::Unavailable`] fails for every member: no
/// half would fare better. `what` names the members in logs and metrics.
pub async fn halves<'a, T, R, E, F>(
    what: &'static str,
    slice: &'a [T],
    attempt: impl Fn(&'a [T]) -> F,
) -> Vec<Result<R, E>>
where
    E: Fault + Clone,
    F: Future<Output = Result<Vec<R>, E>>,
{
    let mut answers = Vec::with_capacity(slice.len());
    // The last is the next, so that the answers come in order.
    let mut parts = vec![slice];
    while let Some(part) = parts.pop() {
        if part.is_empty() {
            continue;
        }
        let error = match attempt(part).await {
            Ok(results) => {
                answers.extend(results.into_iter().map(Ok));
                continue;
            }
            Err(error) => error,
        };
        if part.len() == 1 || error.class() == Class::Unavailable {
            answers.extend(part.iter().map(|_| Err(error.clone())));
            continue;
        }
        let members = part.len();
        tracing::warn!(error = %Chain(&error), what, members, "a slice is halved to find the member that fails");
        metrics::counter!("slice_halvings_total", "what" => what).increment(1);
        let (first, second) = part.split_at(part.len() / 2);
        parts.extend([second, first]);
    }
    answers
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
    enum Trouble {
        #[error("a member is unlucky")]
        Unlucky,
        #[error("nobody answers")]
        Away,
    }

    impl Fault for Trouble {
        fn class(&self) -> Class {
            match self {
                Self::Unlucky => Class::Broken,
                Self::Away => Class::Unavailable,
            }
        }

        fn code(&self) -> &'static str {
            "trouble"
        }
    }

    /// Doubles the numbers; 13 spoils whatever slice it is in. Returns the sizes of the attempts, too.
    async fn doubled(numbers: &[u32]) -> (Vec<Result<u32, Trouble>>, Vec<usize>) {
        let sizes = RefCell::new(Vec::new());
        let attempt = async |part: &[u32]| {
            sizes.borrow_mut().push(part.len());
            if part.contains(&13) {
                return Err(Trouble::Unlucky);
            }
            Ok(part.iter().map(|n| n * 2).collect())
        };
        let answers = halves("numbers", numbers, attempt).await;
        (answers, sizes.into_inner())
    }

    #[tokio::test]
    async fn a_good_slice_takes_one_attempt() {
        assert_eq!(doubled(&[1, 2, 3]).await, (vec![Ok(2), Ok(4), Ok(6)], vec![3]));
        assert_eq!(doubled(&[]).await, (vec![], vec![]));
    }

    #[tokio::test]
    async fn a_bad_member_stands_alone_wherever_it_is() {
        for place in 0..5 {
            let mut numbers = [1; 5];
            numbers[place] = 13;

            let (answers, _) = doubled(&numbers).await;

            let mut expected = vec![Ok(2); 5];
            expected[place] = Err(Trouble::Unlucky);
            assert_eq!(answers, expected, "{place}");
        }
    }

    #[tokio::test]
    async fn what_is_away_is_not_asked_again() {
        let attempts = RefCell::new(0);

        let attempt = async || {
            *attempts.borrow_mut() += 1;
            Err::<Vec<u32>, _>(Trouble::Away)
        };
        let answers = halves("numbers", &[1, 2, 3], |_| attempt()).await;

        assert_eq!(answers, vec![Err(Trouble::Away); 3]);
        assert_eq!(attempts.into_inner(), 1);
    }
}
