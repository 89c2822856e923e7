//! The post office: what happened is written down, signed, and brought to the shop.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::sleep,
};

use super::{
    config::Config,
    operation::Provider,
    signatures::{sign_for_razorpay, sign_for_stripe},
    world::{lock, now},
};

/// A simulator that runs for weeks forgets its oldest events instead of filling the memory.
const EVENTS_MAX: usize = 20_000;
const ATTEMPTS_MAX: usize = 50_000;

/// As many deliveries as are on the wire at once; more wait for their turn.
const AT_ONCE: usize = 64;

/// As long as events wait for later ones to overtake them.
const REORDERING: Duration = Duration::from_millis(100);

/// How events reach the shop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    Normal,
    /// They never leave, as far as the shop can tell.
    Lost,
    /// A share of them is lost, from 0 to 1; the same ones again from the same seed.
    LostAtRandom {
        rate: f64,
        seed: u64,
    },
    /// Each comes three times, at once.
    Tripled,
    /// Those of a tenth of a second come one after another, the last one first.
    Reordered,
    #[serde(rename = "delayed-ms")]
    Delayed(u32),
    /// They are held until another mode is set.
    Paused,
}

/// Something that happened, as the providers tell it.
pub(super) struct Event {
    pub(super) provider: Provider,
    pub(super) id: String,
    pub(super) kind: String,
    /// The intent or payment that it is about.
    pub(super) about: String,
    pub(super) created: i64,
    pub(super) body: String,
}

/// An event that was told, or would have been.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Told {
    pub provider: Provider,
    /// `evt_…` at Stripe; the `x-razorpay-event-id` at Razorpay.
    pub id: String,
    pub kind: String,
    /// The `pi_…` or `pay_…` that it is about.
    pub about: String,
    pub created: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// With this status; anything but 2xx is tried again.
    Answered(u16),
    /// The shop was away, or too slow.
    NotAnswered,
    /// It was lost on request.
    Lost,
    /// No URL is known.
    Undeliverable,
}

/// One attempt to tell the shop of an event.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attempt {
    pub provider: Provider,
    pub event_id: String,
    pub kind: String,
    /// Counts from 1.
    pub number: u32,
    pub outcome: Outcome,
    pub at: i64,
}

struct Letter {
    event: Event,
    /// Razorpay signs the retries of an event with the secret that was valid at its creation.
    razorpay_secret: String,
}

/// What one provider knows about its shop.
struct Counter {
    url: Option<String>,
    /// Razorpay has one.
    secrets: Vec<String>,
    delivery: Delivery,
    dice: StdRng,
    lose_next: u32,
    held: Vec<Arc<Letter>>,
}

impl Counter {
    fn new(secrets: Vec<String>) -> Self {
        Self {
            url: None,
            secrets,
            delivery: Delivery::Normal,
            dice: StdRng::seed_from_u64(0),
            lose_next: 0,
            held: Vec::new(),
        }
    }
}

struct Desk {
    stripe: Counter,
    razorpay: Counter,
    letters: VecDeque<Arc<Letter>>,
    attempts: VecDeque<Attempt>,
}

impl Desk {
    fn counter(&mut self, provider: Provider) -> &mut Counter {
        match provider {
            Provider::Stripe => &mut self.stripe,
            Provider::Razorpay => &mut self.razorpay,
        }
    }

    fn note(&mut self, letter: &Letter, number: u32, outcome: Outcome) {
        if self.attempts.len() == ATTEMPTS_MAX {
            self.attempts.pop_front();
        }
        self.attempts.push_back(Attempt {
            provider: letter.event.provider,
            event_id: letter.event.id.clone(),
            kind: letter.event.kind.clone(),
            number,
            outcome,
            at: now(),
        });
    }
}

/// Work for the carriers.
enum Errand {
    Bring(Arc<Letter>, Duration),
    /// Whatever this provider holds, the last one first.
    BringHeld(Provider),
}

/// Takes events in and hands them to the carriers.
pub(super) struct PostOffice {
    desk: Arc<Mutex<Desk>>,
    errands: mpsc::UnboundedSender<Errand>,
}

/// Brings letters to the shop until it is dropped.
pub(super) struct Carriers {
    round: Round,
    errands: mpsc::UnboundedReceiver<Errand>,
}

#[derive(Clone)]
struct Round {
    desk: Arc<Mutex<Desk>>,
    http: reqwest::Client,
    at_once: Arc<Semaphore>,
    retry_base: Duration,
    retry_max: Duration,
    attempts_max: u32,
}

/// A post office and its carriers.
pub(super) fn open(config: &Config) -> (PostOffice, Carriers) {
    let (errands, queue) = mpsc::unbounded_channel();
    let desk = Arc::new(Mutex::new(Desk {
        stripe: Counter::new(config.stripe_webhook_secrets.clone()),
        razorpay: Counter::new(vec![config.razorpay_webhook_secret.clone()]),
        letters: VecDeque::new(),
        attempts: VecDeque::new(),
    }));
    let http = crate::http_client()
        .timeout(config.answer_max)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("the settings above fit together");
    let round = Round {
        desk: Arc::clone(&desk),
        http,
        at_once: Arc::new(Semaphore::new(AT_ONCE)),
        retry_base: config.retry_base,
        retry_max: config.retry_max,
        attempts_max: config.attempts_max,
    };
    (PostOffice { desk, errands }, Carriers { round, errands: queue })
}

impl PostOffice {
    pub(super) fn send(&self, event: Event) {
        let mut desk = lock(&self.desk);
        let provider = event.provider;
        let secret = desk.razorpay.secrets.first().cloned().unwrap_or_default();
        let letter = Arc::new(Letter { event, razorpay_secret: secret });
        if desk.letters.len() == EVENTS_MAX {
            desk.letters.pop_front();
        }
        desk.letters.push_back(Arc::clone(&letter));
        self.dispatch(&mut desk, provider, letter);
    }

    fn dispatch(&self, desk: &mut Desk, provider: Provider, letter: Arc<Letter>) {
        let counter = desk.counter(provider);
        if counter.lose_next > 0 {
            counter.lose_next -= 1;
            return desk.note(&letter, 1, Outcome::Lost);
        }
        match counter.delivery.clone() {
            Delivery::Normal => self.bring(letter, Duration::ZERO),
            Delivery::Lost => desk.note(&letter, 1, Outcome::Lost),
            Delivery::LostAtRandom { rate, .. } => {
                if counter.dice.random_bool(rate.clamp(0.0, 1.0)) {
                    desk.note(&letter, 1, Outcome::Lost);
                } else {
                    self.bring(letter, Duration::ZERO);
                }
            }
            Delivery::Tripled => {
                for _ in 0..3 {
                    self.bring(Arc::clone(&letter), Duration::ZERO);
                }
            }
            Delivery::Reordered => {
                counter.held.push(letter);
                if counter.held.len() == 1 {
                    self.run(Errand::BringHeld(provider));
                }
            }
            Delivery::Delayed(ms) => self.bring(letter, Duration::from_millis(ms.into())),
            Delivery::Paused => counter.held.push(letter),
        }
    }

    fn bring(&self, letter: Arc<Letter>, delay: Duration) {
        self.run(Errand::Bring(letter, delay));
    }

    fn run(&self, errand: Errand) {
        // Without carriers the simulator is being dropped, and nobody waits for its mail.
        drop(self.errands.send(errand));
    }

    /// Brings an event again, whatever the mode is; `false` where it is unknown.
    pub(super) fn redeliver(&self, event_id: &str) -> bool {
        let desk = lock(&self.desk);
        let known = desk.letters.iter().find(|letter| letter.event.id == event_id);
        if let Some(letter) = known {
            self.bring(Arc::clone(letter), Duration::ZERO);
        }
        known.is_some()
    }

    pub(super) fn set_url(&self, provider: Provider, url: Option<&str>) {
        lock(&self.desk).counter(provider).url = url.map(str::to_owned);
    }

    pub(super) fn set_secrets(&self, provider: Provider, secrets: Vec<String>) {
        lock(&self.desk).counter(provider).secrets = secrets;
    }

    /// Sets the mode, in which the events that were held go out first.
    pub(super) fn set_delivery(&self, provider: Provider, delivery: Delivery) {
        let mut desk = lock(&self.desk);
        let counter = desk.counter(provider);
        if let Delivery::LostAtRandom { seed, .. } = delivery {
            counter.dice = StdRng::seed_from_u64(seed);
        }
        counter.delivery = delivery;
        for letter in std::mem::take(&mut counter.held) {
            self.dispatch(&mut desk, provider, letter);
        }
    }

    pub(super) fn delivery(&self, provider: Provider) -> Delivery {
        lock(&self.desk).counter(provider).delivery.clone()
    }

    pub(super) fn lose_next(&self, provider: Provider, times: u32) {
        lock(&self.desk).counter(provider).lose_next = times;
    }

    /// Every event in the order of its happening.
    pub(super) fn told(&self) -> Vec<Told> {
        let desk = lock(&self.desk);
        let told = desk.letters.iter().map(|letter| Told {
            provider: letter.event.provider,
            id: letter.event.id.clone(),
            kind: letter.event.kind.clone(),
            about: letter.event.about.clone(),
            created: letter.event.created,
        });
        told.collect()
    }

    /// What an event says.
    pub(super) fn body(&self, event_id: &str) -> Option<String> {
        let desk = lock(&self.desk);
        let known = desk.letters.iter().find(|letter| letter.event.id == event_id);
        known.map(|letter| letter.event.body.clone())
    }

    /// What a provider's events say, the newest first.
    pub(super) fn bodies(&self, provider: Provider) -> Vec<Value> {
        let desk = lock(&self.desk);
        let newest = desk.letters.iter().rev();
        newest
            .filter(|letter| letter.event.provider == provider)
            .filter_map(|letter| serde_json::from_str(&letter.event.body).ok())
            .collect()
    }

    pub(super) fn attempts(&self) -> Vec<Attempt> {
        lock(&self.desk).attempts.iter().cloned().collect()
    }
}

impl Carriers {
    pub(super) async fn work(mut self) {
        let mut under_way = JoinSet::new();
        loop {
            tokio::select! {
                errand = self.errands.recv() => match errand {
                    Some(errand) => {
                        under_way.spawn(self.round.clone().run(errand));
                    }
                    None => return,
                },
                Some(_) = under_way.join_next() => {}
            }
        }
    }
}

impl Round {
    async fn run(self, errand: Errand) {
        match errand {
            Errand::Bring(letter, delay) => {
                sleep(delay).await;
                self.bring(&letter).await;
            }
            Errand::BringHeld(provider) => {
                sleep(REORDERING).await;
                let held = std::mem::take(&mut lock(&self.desk).counter(provider).held);
                for letter in held.iter().rev() {
                    self.bring(letter).await;
                }
            }
        }
    }

    /// Tries until the shop says 2xx or the attempts are used up.
    async fn bring(&self, letter: &Letter) {
        let mut pause = self.retry_base;
        for number in 1..=self.attempts_max {
            let outcome = self.attempt(letter).await;
            lock(&self.desk).note(letter, number, outcome);
            if matches!(outcome, Outcome::Answered(200..=299) | Outcome::Undeliverable) {
                return;
            }
            sleep(pause).await;
            pause = (pause * 2).min(self.retry_max);
        }
    }

    async fn attempt(&self, letter: &Letter) -> Outcome {
        let _turn = self.at_once.acquire().await;
        let event = &letter.event;
        let (url, secrets) = {
            let mut desk = lock(&self.desk);
            let counter = desk.counter(event.provider);
            (counter.url.clone(), counter.secrets.clone())
        };
        let Some(url) = url else {
            return Outcome::Undeliverable;
        };
        let request = self.http.post(url).header("content-type", "application/json");
        let request = match event.provider {
            Provider::Stripe => request
                .header("user-agent", "Stripe/1.0 (+https://stripe.com/docs/webhooks)")
                .header("stripe-signature", sign_for_stripe(&secrets, now(), &event.body)),
            Provider::Razorpay => request
                .header("user-agent", "Razorpay-Webhook/v1")
                .header("x-razorpay-event-id", &event.id)
                .header(
                    "x-razorpay-signature",
                    sign_for_razorpay(&letter.razorpay_secret, &event.body),
                ),
        };
        match request.body(event.body.clone()).send().await {
            Ok(response) => Outcome::Answered(response.status().as_u16()),
            Err(_) => Outcome::NotAnswered,
        }
    }
}
