//! Counts how often things are done, by all processes together: in Redis, by Redis's clock.
//!
//! Requests that ask at the same time share a call. Beside it each process counts for itself, so that a
//! Redis that forgets or goes away is no occasion for a burst; see [`Limit::is_local`].

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    mem,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use redis::{
    Client, Script,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep, timeout};

use crate::kernel::{
    batch::{Batcher, Refused},
    pace::{Pace, Place, Turn},
};

/// How long Redis is left alone after it did not answer: who asks meanwhile does not wait for it.
const REDIS_PAUSE: Duration = Duration::from_millis(500);

/// More wait only for a Redis that hangs.
const QUEUE_DEPTH: usize = 4_096;

/// How often a process tries to give back what Redis could not be told at once.
const RETURNS_MAX: usize = 3;

/// How long a process goes on knowing whom Redis knows.
const KNOWN_HERE: Duration = Duration::from_hours(1);

/// How much a process remembers by itself, in each of two generations: some 10 MB in all.
const REMEMBERED_MAX: usize = 50_000;

/// Answers questions and takes back turns, in the order in which they came.
///
/// A question takes the turns of each of its limits, or of none where one is too far off, and is told of
/// the limit that refuses, or else of the one that is nearest to it. What is given back is the last turns
/// of each limit, or all of them; and who has proven to be known is remembered.
///
/// A key holds when the next turn would be if all had come evenly, and how many were taken: what
/// `kernel::pace` calls a turn. Time is Redis's own, so that the processes' clocks may differ.
static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("limiter.lua")));

/// What is counted, without a word of what it is: addresses of people do not lie about in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; 16]);

impl Key {
    /// The same for the same parts only.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let hash: [u8; 32] = hash.finalize().into();
        Self(*hash.first_chunk().expect("a digest is longer"))
    }
}

/// One of the limits that a question is about.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    pub name: &'static str,
    pub key: Key,
    pub pace: Pace,
    /// How many turns are taken, [`Limit::TURNS_MAX`] at most. They may be had where one may be had, and
    /// whoever comes next waits for all of them.
    pub turns: u32,
    /// Whether this process counts by itself, too. What is not counted here is without a limit
    /// while Redis is away.
    pub is_local: bool,
    /// Whether it does not concern those who are known; see [`Question::known`].
    pub spares_the_known: bool,
    /// Whether a proof clears it; otherwise only the turn of the one who proves is given back.
    pub is_cleared: bool,
}

impl Limit {
    pub const TURNS_MAX: u32 = 100;

    /// Whether a proof that was given to another process may have lifted it.
    fn yields_to_proof(&self) -> bool {
        self.spares_the_known || self.is_cleared
    }
}

/// May this be done now?
#[derive(Debug, Clone)]
pub struct Question {
    pub limits: Vec<Limit>,
    /// Whom some of the limits spare, once [`Limiter::acquit`] has come to know them.
    pub known: Option<Key>,
    /// How long whoever asks would wait for a turn.
    pub patience: Duration,
    /// Whether Redis has counted it, as [`Limiter::take`] found: what it has not is not given back there.
    pub is_shared: bool,
}

/// Whether it may be done, and what to tell whoever asks of the limit that decided.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    pub is_refused: bool,
    pub limit: Limit,
    pub place: Place,
}

/// The text is not repeated: a URL has a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the URL is not one of a Redis")]
pub struct InvalidUrl;

/// Counts for all processes that share the Redis and its namespace. Cheap to clone.
#[derive(Clone)]
pub struct Limiter(Arc<Counters>);

struct Counters {
    namespace: String,
    /// Each request with what Redis says, where it says anything.
    queue: Batcher<Asked, Result<Told, Silence>>,
    state: Mutex<State>,
}

/// What Redis is asked.
#[derive(Debug)]
enum Asked {
    Take(Question),
    /// For a proof, with how long the caller is known by it.
    GiveBack(Question, Duration),
}

/// What Redis says.
#[derive(Debug, Clone, Copy)]
struct Told {
    /// None where no limit concerns the question.
    answer: Option<Answer>,
    is_known: bool,
}

/// Why Redis says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Silence {
    /// It was not asked.
    Unheard,
    /// It was asked, and has most likely counted; we did not wait for the answer.
    Late,
}

/// What this process knows by itself.
struct State {
    turns: Recent<Key, Turn>,
    known: Recent<Key, Instant>,
    away_until: Option<Instant>,
}

impl Limiter {
    /// Redis need not be there, and nobody waits for it for longer than `redis_max`. Call it inside a
    /// tokio runtime.
    pub fn new(redis_url: &str, namespace: &str, redis_max: Duration) -> Result<Self, InvalidUrl> {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(redis_max))
            .set_response_timeout(Some(redis_max))
            .set_number_of_retries(0);
        let redis = Client::open(redis_url)
            .and_then(|client| ConnectionManager::new_lazy_with_config(client, config))
            .map_err(|_| InvalidUrl)?;
        // So that the first question need not wait for a connection.
        tokio::spawn({
            let mut redis = redis.clone();
            async move { redis::cmd("PING").exec_async(&mut redis).await }
        });
        let queue = Batcher::start(QUEUE_DEPTH, redis_max, {
            let namespace = namespace.to_owned();
            move |asked: Vec<Asked>| {
                let (redis, namespace) = (redis.clone(), namespace.clone());
                async move { ask(redis, redis_max, &namespace, &asked).await }
            }
        });
        let state = State { turns: Recent::default(), known: Recent::default(), away_until: None };
        let namespace = namespace.to_owned();
        Ok(Self(Arc::new(Counters { namespace, queue, state: Mutex::new(state) })))
    }

    /// Takes the turns of each limit, or of none. `None` where no limit concerns the question; those that
    /// spare the caller are removed from it.
    ///
    /// Takes one call of Redis at most, which is shared; without Redis in time, what this process has
    /// counted decides, and what it does not count is without a limit.
    pub async fn take(&self, question: &mut Question) -> Option<Answer> {
        let (own, is_away) = self.own(question);
        let refused_here = own.filter(|answer| answer.is_refused);
        // Another process may have come to know the caller, and then Redis knows better than we do.
        let is_final = refused_here
            .is_some_and(|answer| !answer.limit.yields_to_proof() || question.known.is_none());
        if is_away || is_final {
            return own;
        }
        let told = match self.ask(Asked::Take(question.clone())).await {
            Ok(told) => told,
            Err(silence) => {
                self.state(|state| state.away_until = Some(Instant::now() + REDIS_PAUSE));
                question.is_shared = silence == Silence::Late;
                return own;
            }
        };
        let is_refused = told.answer.is_some_and(|answer| answer.is_refused);
        match refused_here {
            // It has forgotten what we have not.
            Some(_) if !told.is_known => {
                let taken = Question { is_shared: !is_refused, ..question.clone() };
                self.settle(&taken, Duration::ZERO).await;
                return refused_here;
            }
            None if is_refused => self.give_back_own(question),
            None if told.is_known => {
                let limits = question.limits.iter().filter(|limit| limit.spares_the_known);
                let spared = Question { limits: limits.copied().collect(), ..question.clone() };
                self.give_back_own(&spared);
            }
            Some(_) | None => {}
        }
        question.is_shared = !is_refused;
        if told.is_known {
            question.limits.retain(|limit| !limit.spares_the_known);
            // So that they are known here while Redis is away.
            self.state(|state| {
                let known = question.known;
                known.map(|known| state.known.insert(known, Instant::now() + KNOWN_HERE))
            });
        }
        if let Some(refused) = refused_here
            && !is_refused
        {
            // What we have counted was cleared elsewhere. This turn counts here, too.
            if refused.limit.is_cleared {
                self.state(|state| state.turns.remove(&refused.limit.key));
            }
            self.own(question);
        }
        told.answer
    }

    /// Whether the last questions were answered without Redis.
    pub fn is_alone(&self) -> bool {
        self.state(|state| state.away_until.is_some_and(|until| until > Instant::now()))
    }

    /// Gives the question's turns back, because what was done does not count.
    pub async fn give_back(&self, question: &Question) {
        self.give_back_own(question);
        self.settle(question, Duration::ZERO).await;
    }

    /// Gives the question's turns back, clears what a proof clears, and knows the caller for that long.
    pub async fn acquit(&self, question: &Question, known_for: Duration) {
        self.give_back_own(question);
        self.state(|state| {
            for limit in question.limits.iter().filter(|limit| limit.is_cleared) {
                state.turns.remove(&limit.key);
            }
            if let Some(known) = question.known {
                state.known.insert(known, Instant::now() + known_for);
            }
        });
        self.settle(question, known_for).await;
    }

    async fn settle(&self, question: &Question, known_for: Duration) {
        let mut returned = question.clone();
        if !question.is_shared {
            returned.limits.clear();
        }
        if returned.limits.is_empty() && (known_for.is_zero() || returned.known.is_none()) {
            return;
        }
        if self.return_to_redis(&returned, known_for).await {
            return;
        }
        // It counts against whoever did nothing until it is given back.
        let limiter = self.clone();
        tokio::spawn(async move {
            for _ in 0..RETURNS_MAX {
                sleep(REDIS_PAUSE).await;
                if limiter.return_to_redis(&returned, known_for).await {
                    return;
                }
            }
        });
    }

    /// Whether Redis was told; not whether it has answered.
    async fn return_to_redis(&self, returned: &Question, known_for: Duration) -> bool {
        if self.is_alone() {
            return false;
        }
        let told = self.ask(Asked::GiveBack(returned.clone(), known_for)).await;
        !matches!(told, Err(Silence::Unheard))
    }

    async fn ask(&self, asked: Asked) -> Result<Told, Silence> {
        self.0.queue.run(asked).await.unwrap_or_else(|refused| match refused {
            Refused::Full | Refused::TooLate => Err(Silence::Unheard),
            Refused::Lost => Err(Silence::Late),
        })
    }

    /// What this process says by itself, and whether Redis need not be asked. Turns are taken unless
    /// it refuses; whoever is known here needs no mention.
    fn own(&self, question: &mut Question) -> (Option<Answer>, bool) {
        let now = Instant::now();
        self.state(|state| {
            let is_away = state.away_until.is_some_and(|until| until > now);
            let known = question.known.and_then(|known| state.known.get(&known));
            if known.is_some_and(|until| *until > now) {
                question.limits.retain(|limit| !limit.spares_the_known);
            }
            let mut refusal: Option<Answer> = None;
            let mut taken = Vec::with_capacity(question.limits.len());
            for limit in question.limits.iter().filter(|limit| limit.is_local) {
                let turn = state.turns.get(&limit.key).copied();
                let wait = limit.pace.wait(turn, now);
                // What no proof lifts is the last word.
                let weight = (!limit.yields_to_proof(), wait);
                let is_heavier = refusal.is_none_or(|refusal| {
                    weight > (!refusal.limit.yields_to_proof(), refusal.place.wait)
                });
                if wait > question.patience && is_heavier {
                    let place = Place { wait, left: 0, whole_in: wait };
                    refusal = Some(Answer { is_refused: true, limit: *limit, place });
                }
                taken.push((limit, limit.pace.take(turn, limit.turns, now), wait));
            }
            if refusal.is_some() {
                return (refusal, is_away);
            }
            let delay = taken.iter().map(|(.., wait)| *wait).max().unwrap_or_default();
            let mut nearest: Option<Answer> = None;
            for (limit, turn, _) in taken {
                state.turns.insert(limit.key, turn);
                let place = limit.pace.place(turn, delay, now);
                if nearest.is_none_or(|answer| place.left < answer.place.left) {
                    nearest = Some(Answer { is_refused: false, limit: *limit, place });
                }
            }
            (nearest, is_away)
        })
    }

    fn give_back_own(&self, question: &Question) {
        let now = Instant::now();
        self.state(|state| {
            for limit in question.limits.iter().filter(|limit| limit.is_local) {
                let turn = state.turns.remove(&limit.key);
                if let Some(turn) =
                    turn.and_then(|turn| limit.pace.give_back(turn, limit.turns, now))
                {
                    state.turns.insert(limit.key, turn);
                }
            }
        });
    }

    fn state<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Redis's URL has a password.
impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter").field("namespace", &self.0.namespace).finish_non_exhaustive()
    }
}

/// Asks everything with one call.
async fn ask(
    mut redis: ConnectionManager,
    redis_max: Duration,
    namespace: &str,
    asked: &[Asked],
) -> Vec<Result<Told, Silence>> {
    let mut call = SCRIPT.prepare_invoke();
    call.arg(Limit::TURNS_MAX);
    for asked in asked {
        match asked {
            Asked::Take(question) => {
                call.arg(1).arg(question.limits.len()).arg(micros(question.patience));
                call.arg(u8::from(question.known.is_some()));
                call.key(question.known.map(|known| named(namespace, known)));
                for limit in &question.limits {
                    describe(&mut call, namespace, limit);
                    call.arg(u8::from(limit.spares_the_known));
                }
            }
            Asked::GiveBack(question, known_for) => {
                let known = question.known.filter(|_| !known_for.is_zero());
                call.arg(0).arg(question.limits.len());
                call.arg(known.map_or(0, |_| micros(*known_for) / 1_000));
                call.key(known.map(|known| named(namespace, known)));
                for limit in &question.limits {
                    describe(&mut call, namespace, limit);
                    call.arg(u8::from(!known_for.is_zero() && limit.is_cleared));
                }
            }
        }
    }
    let numbers = match timeout(redis_max, call.invoke_async::<Vec<i64>>(&mut redis)).await {
        Ok(Ok(numbers)) => numbers,
        Ok(Err(error)) => {
            tracing::debug!(kind = ?error.kind(), "the limits are kept without redis");
            let silence = if error.is_timeout() { Silence::Late } else { Silence::Unheard };
            return vec![Err(silence); asked.len()];
        }
        Err(_) => {
            tracing::debug!("redis is slow; the limits are kept without it");
            return vec![Err(Silence::Late); asked.len()];
        }
    };
    let answers = numbers.chunks_exact(5).zip(asked);
    answers
        .map(|(numbers, asked)| {
            let (Asked::Take(question) | Asked::GiveBack(question, _)) = asked;
            Ok(Told::read(numbers, question))
        })
        .collect()
}

impl Told {
    fn read(numbers: &[i64], question: &Question) -> Self {
        let number = |place: usize| u64::try_from(numbers[place]).unwrap_or_default();
        let place = Place {
            wait: Duration::from_micros(number(2)),
            left: u32::try_from(number(3)).unwrap_or(u32::MAX),
            whole_in: Duration::from_micros(number(4)),
        };
        let limit = usize::try_from(numbers[1]).ok().and_then(|limit| question.limits.get(limit));
        let is_refused = place.wait > question.patience;
        let answer = limit.map(|limit| Answer { is_refused, limit: *limit, place });
        Self { answer, is_known: numbers[0] == 1 }
    }
}

fn describe(call: &mut redis::ScriptInvocation<'_>, namespace: &str, limit: &Limit) {
    let Limit { pace, turns, .. } = limit;
    call.key(named(namespace, limit.key));
    call.arg(micros(pace.interval())).arg(pace.burst()).arg(micros(pace.slowest()));
    call.arg(micros(pace.memory())).arg(turns);
}

fn named(namespace: &str, key: Key) -> String {
    format!("{namespace}:limit:{}", BASE64_URL_SAFE_NO_PAD.encode(key.0))
}

/// Whole microseconds, as Redis counts.
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What was used lately, of whatever somebody may send without an end.
struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<K: Eq + Hash, V> Recent<K, V> {
    fn get(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= REMEMBERED_MAX {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        // The older one is out of date where there is a younger.
        let old = self.old.remove(key);
        self.young.remove(key).or(old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_differs_in_every_part() {
        let keys = [
            Key::of(&[b"a", b"bc"]),
            Key::of(&[b"ab", b"c"]),
            Key::of(&[b"abc"]),
            Key::of(&[b"abc", b""]),
        ];

        for (place, key) in keys.iter().enumerate() {
            assert!(!keys[..place].contains(key), "{place}");
        }
    }

    #[test]
    fn what_is_remembered_has_an_end_and_what_is_used_stays() {
        let mut recent = Recent::default();
        for number in 0..5 * REMEMBERED_MAX {
            recent.insert(number, number);
            let first = *recent.get(&0).unwrap();
            recent.insert(0, first);
        }

        assert!(recent.young.len() + recent.old.len() <= 2 * REMEMBERED_MAX);
        assert_eq!(recent.get(&0), Some(&0));
        assert_eq!(recent.get(&1), None);
        assert_eq!(recent.remove(&0), Some(0));
        assert_eq!(recent.get(&0), None);
    }

    fn question(name: &str, pace: Pace, is_local: bool) -> Question {
        let limit = Limit {
            name: "test",
            key: Key::of(&[name.as_bytes()]),
            pace,
            turns: 1,
            is_local,
            spares_the_known: true,
            is_cleared: true,
        };
        let known = Some(Key::of(&[b"known", name.as_bytes()]));
        Question { limits: vec![limit], known, patience: Duration::ZERO, is_shared: false }
    }

    /// Nobody listens there.
    fn alone() -> Limiter {
        Limiter::new("redis://127.0.0.1:1", "test", Duration::from_millis(50)).unwrap()
    }

    #[tokio::test]
    async fn without_redis_the_process_counts_by_itself_or_not_at_all() {
        let limiter = alone();
        let pace = Pace::slowing("1/m:3".parse().unwrap(), 5, Duration::from_hours(1));
        let (local, open) = (question("local", pace, true), question("open", pace, false));

        let mut refusals = Vec::new();
        for _ in 0..5 {
            refusals.push(limiter.take(&mut local.clone()).await.unwrap().is_refused);
            assert!(limiter.take(&mut open.clone()).await.is_none());
        }

        assert_eq!(refusals, [false, false, false, true, true]);
        assert!(limiter.is_alone());
    }

    #[tokio::test]
    async fn whoever_gives_a_proof_is_known_and_has_taken_no_turn() {
        let limiter = alone();
        let pace = Pace::slowing("1/m:2".parse().unwrap(), 5, Duration::from_hours(1));
        let asked = question("login", pace, true);

        limiter.take(&mut asked.clone()).await;
        limiter.give_back(&asked).await;
        for _ in 0..2 {
            assert!(!limiter.take(&mut asked.clone()).await.unwrap().is_refused);
        }
        assert!(limiter.take(&mut asked.clone()).await.unwrap().is_refused);
        limiter.acquit(&asked, Duration::from_mins(1)).await;

        assert!(limiter.take(&mut asked.clone()).await.is_none());
    }
}
