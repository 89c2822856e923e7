//! How many requests are worked on at a time, and who waits when there are more.
//!
//! Beyond what a machine can do, more requests at a time make each slower and none sooner. So the rest
//! waits outside, not for long, and is then told to come back: an early no is worth more than a late yes.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use metrics::counter;
use poem::http::StatusCode;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use crate::web::{Problem, policy::Class};

/// How long a request waits for its turn. A person does not notice it, and of a burst that is over
/// sooner nobody is turned away.
const WAIT_MAX: Duration = Duration::from_millis(250);

/// A look or a checkout that takes longer says that too much is done at a time: with the time in the
/// queue it is half of what a person waits for.
const SLOW: Duration = Duration::from_millis(300);

/// However slow the machine is, so much is done at a time; a slice of checkouts is not worth its name below.
const PLACES_MIN: usize = 32;

/// Who is told to come back does not come back in the same wave.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What comes first when there is not enough for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rank {
    /// Somebody has decided to buy, or has paid.
    Buying,
    /// Somebody pays, for which a provider is waited for.
    Paying,
    /// Somebody is about to.
    Preparing,
    Browsing,
    /// Lists and figures can wait for a quiet hour.
    Operating,
}

impl Rank {
    const ALL: [Self; 5] =
        [Self::Buying, Self::Paying, Self::Preparing, Self::Browsing, Self::Operating];

    const fn of(class: Class) -> Self {
        match class {
            Class::Checkout | Class::Webhook => Self::Buying,
            Class::Payment => Self::Paying,
            Class::Auth | Class::Cart => Self::Preparing,
            Class::Browse => Self::Browsing,
            Class::Admin => Self::Operating,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Buying => "buying",
            Self::Paying => "paying",
            Self::Preparing => "preparing",
            Self::Browsing => "browsing",
            Self::Operating => "operating",
        }
    }

    /// How much of all places may be taken when one of this rank begins.
    const fn share(self, places: usize) -> usize {
        match self {
            Self::Buying | Self::Paying => places,
            Self::Preparing => places * 3 / 4,
            Self::Browsing => places / 2,
            Self::Operating => places / 4,
        }
    }

    /// How many of this rank are worked on at most: a provider that does not answer must not keep others
    /// from buying.
    const fn most(self, places: usize) -> usize {
        match self {
            Self::Paying => places / 2,
            Self::Buying | Self::Preparing | Self::Browsing | Self::Operating => places,
        }
    }

    /// How many of this rank are worked on however busy the shop is: it serves everybody something.
    const fn reserved(self) -> usize {
        match self {
            Self::Buying => 0,
            Self::Paying | Self::Preparing | Self::Browsing => 2,
            Self::Operating => 1,
        }
    }
}

/// The places at which requests are worked on. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Admission(Arc<Gate>);

#[derive(Debug)]
struct Gate {
    places_max: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// How many there are now.
    places: usize,
    shrunk_at: Option<Instant>,
    /// How many were quick since there were more places.
    quick: usize,
    /// Both by rank.
    busy: [usize; 5],
    waiting: [VecDeque<oneshot::Sender<Place>>; 5],
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    gate: Arc<Gate>,
    rank: Rank,
    /// Where the time it takes is the machine's own: no password is hashed, no provider is asked.
    begun_at: Option<Instant>,
}

impl Admission {
    /// At most so many requests are worked on at a time, fewer when they get slow; as many of each rank
    /// wait.
    pub fn new(places: usize) -> Self {
        let state = State {
            places,
            shrunk_at: None,
            quick: 0,
            busy: [0; 5],
            waiting: [const { VecDeque::new() }; 5],
        };
        Self(Arc::new(Gate { places_max: places, state: Mutex::new(state) }))
    }

    /// Waits for a place; who does not get one in time is told to come back.
    ///
    /// Who came last is served first: when not all can be served in time, those who have waited long
    /// are the ones who would be answered too late.
    pub(super) async fn enter(&self, class: Class) -> Result<Place, Problem> {
        let rank = Rank::of(class);
        let turn = match self.0.enter(rank) {
            Ok(place) => return Ok(place.begin(class)),
            Err(turn) => turn,
        };
        if let Some(turn) = turn
            && let Ok(Ok(place)) = timeout(WAIT_MAX, turn).await
        {
            return Ok(place.begin(class));
        }
        Err(overloaded(rank))
    }

    /// Refuses a request that would only find the queue full, before anything is done for it.
    pub(super) fn look(&self, class: Class) -> Result<(), Problem> {
        let rank = Rank::of(class);
        let mut state = self.0.state();
        let is_full = !state.is_open(rank) && state.is_full(rank);
        drop(state);
        if is_full { Err(overloaded(rank)) } else { Ok(()) }
    }
}

fn overloaded(rank: Rank) -> Problem {
    counter!("requests_overloaded_total", "rank" => rank.name()).increment(1);
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", None);
    problem.with_retry_after(RETRY_AFTER)
}

impl Gate {
    /// Takes a place, or gets in line where the line is not too long.
    fn enter(self: &Arc<Self>, rank: Rank) -> Result<Place, Option<oneshot::Receiver<Place>>> {
        let mut state = self.state();
        if state.is_open(rank) {
            state.busy[rank as usize] += 1;
            return Ok(Place { gate: self.clone(), rank, begun_at: None });
        }
        if state.is_full(rank) {
            return Err(None);
        }
        let (place, turn) = oneshot::channel();
        state.waiting[rank as usize].push_back(place);
        Err(Some(turn))
    }

    /// Frees a place, and gives it to whoever comes first.
    fn leave(self: &Arc<Self>, rank: Rank, took: Option<Duration>) {
        let mut state = self.state();
        if let Some(took) = took {
            state.learn(took, Instant::now(), self.places_max);
        }
        state.busy[rank as usize] -= 1;
        let turns: Vec<_> = std::iter::from_fn(|| state.next()).collect();
        // Sending may drop the place, which comes back here.
        drop(state);
        for (rank, turn) in turns {
            let _ = turn.send(Place { gate: self.clone(), rank, begun_at: None });
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_open(&self, rank: Rank) -> bool {
        let busy = self.busy[rank as usize];
        busy < rank.reserved()
            || (busy < rank.most(self.places)
                && self.busy.iter().sum::<usize>() < rank.share(self.places))
    }

    /// Whether as many wait as there are places, not counting those at the head who have given up.
    fn is_full(&mut self, rank: Rank) -> bool {
        let waiting = &mut self.waiting[rank as usize];
        while waiting.front().is_some_and(oneshot::Sender::is_closed) {
            waiting.pop_front();
        }
        waiting.len() >= self.places
    }

    /// Chooses who gets a place that is free.
    fn next(&mut self) -> Option<(Rank, oneshot::Sender<Place>)> {
        for rank in Rank::ALL {
            while self.is_open(rank)
                && let Some(turn) = self.waiting[rank as usize].pop_back()
            {
                if !turn.is_closed() {
                    self.busy[rank as usize] += 1;
                    return Some((rank, turn));
                }
            }
        }
        None
    }

    /// Has fewer places when requests get slow, and more while they are quick and the places are used.
    ///
    /// By a quarter at a time, and not again before the requests that it concerns have ended; slowly
    /// back, as TCP does (AIMD), which finds the most that is still quick.
    fn learn(&mut self, took: Duration, now: Instant, places_max: usize) {
        if took > SLOW {
            self.quick = 0;
            if self.shrunk_at.is_none_or(|at| now.saturating_duration_since(at) > SLOW) {
                let fewer = (self.places * 3 / 4).max(PLACES_MIN.min(places_max));
                self.places = fewer.min(self.places);
                self.shrunk_at = Some(now);
            }
            return;
        }
        let is_used = 2 * self.busy.iter().sum::<usize>() >= self.places;
        self.quick += usize::from(is_used && self.places < places_max);
        if self.quick > self.places / 4 {
            self.quick = 0;
            self.places = (self.places + self.places.div_ceil(16)).min(places_max);
        }
    }
}

impl Place {
    fn begin(mut self, class: Class) -> Self {
        let is_ours = matches!(class, Class::Checkout | Class::Browse);
        self.begun_at = is_ours.then(Instant::now);
        self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.leave(self.rank, self.begun_at.map(|begun| begun.elapsed()));
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::{FutureExt, future::join_all};

    use super::*;

    /// Takes every place that this class may have at once.
    fn fill(admission: &Admission, class: Class) -> Vec<Place> {
        std::iter::from_fn(|| admission.enter(class).now_or_never()).map(Result::unwrap).collect()
    }

    #[tokio::test]
    async fn who_buys_comes_before_who_looks_and_who_looks_before_staff() {
        let admission = Admission::new(100);

        let operating = fill(&admission, Class::Admin);
        let browsing = fill(&admission, Class::Browse);
        let preparing = fill(&admission, Class::Auth);
        let buying = fill(&admission, Class::Checkout);

        let paying = fill(&admission, Class::Payment);

        let taken = [&operating, &browsing, &preparing, &buying, &paying].map(Vec::len);
        assert_eq!(taken, [25, 25, 25, 25, 2]);
        for class in Class::ALL {
            let refusal = admission.enter(class).await.unwrap_err();
            assert_eq!(refusal.status(), StatusCode::SERVICE_UNAVAILABLE);
        }
    }

    #[tokio::test]
    async fn a_provider_that_does_not_answer_keeps_nobody_from_buying() {
        let admission = Admission::new(100);

        let paying = fill(&admission, Class::Payment);
        let buying = fill(&admission, Class::Checkout);

        assert_eq!([paying.len(), buying.len()], [50, 50]);
    }

    #[tokio::test]
    async fn a_shop_full_of_buyers_serves_everybody_something() {
        let admission = Admission::new(100);
        let _buying = fill(&admission, Class::Checkout);

        let served = [Class::Cart, Class::Browse, Class::Admin]
            .map(|class| fill(&admission, class))
            .map(|places| places.len());

        assert_eq!(served, [2, 2, 1]);
    }

    #[tokio::test]
    async fn a_place_that_becomes_free_goes_to_the_first_rank_and_there_to_the_last_who_came() {
        let admission = Admission::new(20);
        let mut places = fill(&admission, Class::Checkout);
        let mut looking = pin!(admission.enter(Class::Browse));
        let mut first = pin!(admission.enter(Class::Checkout));
        let mut last = pin!(admission.enter(Class::Checkout));
        // Two more who look have the places that are kept for them.
        let kept = fill(&admission, Class::Browse);
        for waiting in [looking.as_mut(), first.as_mut(), last.as_mut()] {
            let _ = waiting.now_or_never();
        }
        assert_eq!(kept.len(), 2);

        places.truncate(places.len() - 3);

        let last = last.now_or_never().expect("the last of those who buy is served").unwrap();
        assert!(first.as_mut().now_or_never().is_none());
        drop(last);
        assert!(first.now_or_never().is_some());
        assert!(looking.as_mut().now_or_never().is_none());
        assert_eq!(looking.await.unwrap_err().status(), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn who_waits_too_long_or_behind_too_many_is_told_to_come_back() {
        let admission = Admission::new(16);
        let _busy = fill(&admission, Class::Checkout);
        let begun = Instant::now();

        let mut waiting: Vec<_> =
            (0..40).map(|_| Box::pin(admission.enter(Class::Checkout))).collect();
        let mut told_at_once = Vec::new();
        waiting.retain_mut(|one| {
            let told = one.as_mut().now_or_never();
            let waits = told.is_none();
            told_at_once.extend(told);
            waits
        });
        let told_later = join_all(waiting).await;

        assert_eq!((told_at_once.len(), told_later.len()), (24, 16));
        assert!(told_at_once.iter().chain(&told_later).all(Result::is_err));
        // Those who gave up are in nobody's way.
        assert!(admission.look(Class::Checkout).is_ok());
        assert!(begun.elapsed() < 40 * WAIT_MAX, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn whoever_leaves_takes_no_place_along() {
        let admission = Admission::new(16);
        let busy = fill(&admission, Class::Checkout);
        for _ in 0..10 {
            // Waits, and hangs up.
            let _ = admission.enter(Class::Checkout).now_or_never();
        }
        let given_up = async { admission.enter(Class::Browse).await };
        assert!(timeout(WAIT_MAX / 2, given_up).await.is_ok());

        drop(busy);

        assert_eq!(fill(&admission, Class::Checkout).len(), 16);
    }

    #[tokio::test]
    async fn slow_requests_leave_fewer_places_and_quick_ones_bring_them_back() {
        let admission = Admission::new(640);
        let (quick, slow) = (Duration::from_millis(20), Duration::from_millis(500));
        let mut now = Instant::now();
        let mut state = admission.0.state();
        state.busy[0] = 640;

        // All that were begun before count once.
        for _ in 0..640 {
            state.learn(slow, now, 640);
        }
        assert_eq!(state.places, 480);
        for _ in 0..20 {
            now += 2 * SLOW;
            state.learn(slow, now, 640);
        }
        assert_eq!(state.places, PLACES_MIN);
        assert_eq!(Rank::Browsing.share(state.places), PLACES_MIN / 2);

        state.busy[0] = 2;
        for _ in 0..1_000 {
            state.learn(quick, now, 640);
        }
        assert_eq!(state.places, PLACES_MIN, "nobody needs more");
        state.busy[0] = 640;
        for _ in 0..10_000 {
            state.learn(quick, now, 640);
        }
        assert_eq!(state.places, 640);
        state.busy[0] = 0;
    }
}
