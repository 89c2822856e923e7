//! What providers send, in any order, more than once, early and late: it ends as it should.

use std::collections::BTreeSet;

use holdfast::{
    checkout::{SoldOut, place_orders, work},
    kernel::OrderId,
    payments::{
        Fate, Surplus,
        inbox::{self, Received},
    },
    worker::{Crew, Pulse},
};
use jobs::{
    Lane,
    checkout::{
        CancelPayment, CapturePayment, RefundPayment, ReviewPayment, ReviewRefund, ReviewRefundsOf,
        SettleEvent,
    },
};
use proptest::{
    collection::vec,
    option,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use simulator::providers::{Act, Capture, Delivery, Provider, Told};
use tokio::{runtime::Handle, task::block_in_place};
use uuid::Uuid;

use super::{BOTH, Purchase, UNITS, assert_ledgers_agree, hear_all};
use crate::support::{app::TestApp, shop::strangers_wish};

/// Each takes some tenths of a second.
const CASES: u32 = 24;

/// How many moments a story has.
const MOMENTS: u8 = 16;

/// What happens at some moment; what happens at the same moment happens in this order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// The next act of the shopper and the bank.
    Act,
    /// The deadline passes.
    Deadline,
    /// Somebody else wants the units.
    Rival,
    /// The reaper looks around.
    Sweep,
    /// An event arrives, one of those that were told so far.
    Deliver(usize),
}

/// An order, its payment, and the course of things.
#[derive(Debug, Clone)]
struct Story {
    provider: Provider,
    capture: Capture,
    acts: Vec<Act>,
    /// Sorted by their moments.
    steps: Vec<(u8, Step)>,
}

fn stories() -> impl Strategy<Value = Story> {
    (
        (any::<bool>(), any::<bool>()),
        (any::<bool>(), any::<bool>(), any::<bool>()),
        // The shopper acts early, so that there is something to hear late.
        vec(0..MOMENTS / 2, 4),
        vec((0..6_usize, 0..MOMENTS), 2..10),
        4..MOMENTS - 4,
        vec(0..MOMENTS, 0..3),
        option::weighted(0.6, 0..MOMENTS),
    )
        .prop_map(|(account, hitches, acting, deliveries, deadline, sweeps, rival)| {
            let (stripe, automatic) = account;
            let provider = if stripe { Provider::Stripe } else { Provider::Razorpay };
            let acts = acts(provider, hitches);
            let mut steps = vec![(deadline, Step::Deadline)];
            steps.extend(acting.into_iter().take(acts.len()).map(|moment| (moment, Step::Act)));
            steps.extend(sweeps.into_iter().map(|moment| (moment, Step::Sweep)));
            steps.extend(rival.map(|moment| (moment, Step::Rival)));
            steps.extend(deliveries.into_iter().map(|(n, moment)| (moment, Step::Deliver(n))));
            steps.sort();
            let capture = if automatic { Capture::Automatic } else { Capture::Manual };
            Story { provider, capture, acts, steps }
        })
}

/// What the shopper and the bank do, one after the other: in the end the bank agrees.
fn acts(provider: Provider, (is_asked, is_declined, is_slow): (bool, bool, bool)) -> Vec<Act> {
    let stripe = provider == Provider::Stripe;
    let hitches = [
        (is_asked && stripe, Act::RequireAction),
        (is_declined, Act::Decline("generic_decline".to_owned())),
        (is_slow && stripe, Act::Process),
    ];
    let hitches = hitches.into_iter().filter_map(|(happens, act)| happens.then_some(act));
    hitches.chain([Act::Succeed]).collect()
}

/// The stage of a story.
struct Stage<'a> {
    app: &'a TestApp,
    purchase: Purchase<'a>,
    provider: Provider,
    /// The provider's name for the payment.
    name: String,
    /// How many events were told before.
    before: usize,
    delivered: BTreeSet<String>,
    rival: Option<Uuid>,
}

impl Stage<'_> {
    /// Plays the story to its end, when everything was delivered and every deadline has passed.
    async fn play(&mut self, story: &Story) {
        let mut acts = story.acts.iter();
        for moment in story.steps.chunk_by(|(one, _), (other, _)| one == other) {
            let mut arriving = Vec::new();
            for (_, step) in moment {
                match step {
                    // What was withdrawn meanwhile cannot be paid.
                    Step::Act => drop(self.app.providers.act(&self.name, acts.next().unwrap())),
                    Step::Deadline => self.pass_deadline().await,
                    Step::Rival => self.admit_rival().await,
                    Step::Sweep => drop(work::sweep(&self.app.cx).await.unwrap()),
                    Step::Deliver(n) => arriving.push(*n),
                }
            }
            let told = self.told();
            if !told.is_empty() {
                let arriving: Vec<_> = arriving.iter().map(|n| &told[n % told.len()]).collect();
                self.deliver(&arriving).await;
            }
            work_on_all(self.app).await;
        }
        self.end().await;
    }

    async fn end(&mut self) {
        // What is collected now is told of, too.
        while let told @ [_, ..] = &*self.undelivered() {
            self.deliver(&told.iter().collect::<Vec<_>>()).await;
            work_on_all(self.app).await;
        }
        self.app.age(self.purchase.order_id, 100).await;
        work::sweep(&self.app.cx).await.unwrap();
        self.app.hurry().await;
        work_on_all(self.app).await;
    }

    fn told(&self) -> Vec<Told> {
        self.app.providers.events().split_off(self.before)
    }

    fn undelivered(&self) -> Vec<Told> {
        let mut told = self.told();
        told.retain(|told| !self.delivered.contains(&told.id));
        told
    }

    /// Lets the deadline be the second that has just begun, unless it was extended.
    async fn pass_deadline(&self) {
        let sql = "
            WITH passed AS (
                UPDATE orders
                SET placed_at = placed_at - interval '15 minutes',
                    expires_at = date_trunc('second', now())
                WHERE id = $1 AND extended_at IS NULL
                RETURNING id, expires_at
            )
            UPDATE holds SET expires_at = passed.expires_at
            FROM passed WHERE order_id = passed.id";
        let passed = sqlx::query(sql).bind(self.purchase.order_id).execute(&self.app.db).await;
        passed.unwrap();
    }

    async fn admit_rival(&mut self) {
        let wish = strangers_wish(&[(self.purchase.mug, UNITS)]);
        let placed = place_orders(&self.app.cx, &SoldOut::default(), &[wish]).await.remove(0);
        self.rival = placed.ok().map(|placed| placed.receipt.order_id);
    }

    /// Puts the events into the inbox, together.
    async fn deliver(&mut self, events: &[&Told]) {
        let received: Vec<_> = events
            .iter()
            .map(|told| {
                let body = self.app.providers.event_body(&told.id).unwrap().into_bytes();
                match self.provider {
                    Provider::Stripe => Received::from_stripe(body),
                    Provider::Razorpay => Received::from_razorpay(Some(&told.id), body),
                }
            })
            .collect();
        for receipt in inbox::receive(&self.app.cx, &received).await {
            receipt.unwrap();
        }
        self.delivered.extend(events.iter().map(|told| told.id.clone()));
    }

    /// Whether the provider has the shopper's money.
    fn is_collected(&self) -> bool {
        let captures = self.app.providers.ledger().captures;
        captures.iter().any(|captured| {
            captured.provider_ref == self.name || captured.order_ref.as_ref() == Some(&self.name)
        })
    }

    async fn assert_ended_well(&self) {
        let (status, hold) = (self.purchase.status().await, self.purchase.hold().await);
        let fates = self.purchase.fates().await;
        let stock = self.app.stock_of(self.purchase.mug).await;
        match (self.is_collected(), self.rival) {
            (false, _) => {
                assert_eq!((&*status, &*fates), ("expired", &[][..]));
            }
            (true, Some(rival)) => {
                let due = [Fate::RefundDue(Surplus::OutOfStock)];
                assert_eq!((&*status, &*fates), ("expired", &due[..]));
                assert_eq!(self.app.hold_of(rival, self.purchase.mug).await, "held");
            }
            (true, None) => {
                assert_eq!((&*status, &*hold), ("paid", "sold"));
                assert_eq!(fates, [Fate::Accepted]);
                assert_eq!(stock, (0, 0));
            }
        }
        assert_eq!(self.purchase.sales().await, i64::from(status == "paid"));
        let open = "job_ledger WHERE kind LIKE 'checkout.%' AND state <> 'done'";
        assert_eq!(self.app.count(open).await, 0);
        assert_eq!(self.app.count("provider_events WHERE state = 'new'").await, 0);
    }
}

/// Does what a worker would, until nothing more is due.
async fn work_on_all(app: &TestApp) {
    let settling = Crew::new(Lane::Settling, app.cx.clone(), Pulse::default());
    let settling = settling.with::<SettleEvent>();
    let providers = Crew::new(Lane::Providers, app.cx.clone(), Pulse::default());
    let providers = providers
        .with::<ReviewPayment>()
        .with::<CancelPayment>()
        .with::<CapturePayment>()
        .with::<RefundPayment>()
        .with::<ReviewRefund>()
        .with::<ReviewRefundsOf>();
    loop {
        let due: Vec<(Uuid, bool)> = sqlx::query_as(
            "SELECT id, kind = 'checkout.settle-event' FROM job_ledger
             WHERE state = 'ready' AND run_at <= now() AND kind LIKE 'checkout.%'
             ORDER BY id",
        )
        .fetch_all(&app.db)
        .await
        .unwrap();
        if due.is_empty() {
            return;
        }
        let (events, others): (Vec<_>, Vec<_>) = due.into_iter().partition(|(_, settles)| *settles);
        settling.work(&events.into_iter().map(|(id, _)| id).collect::<Vec<_>>()).await;
        providers.work(&others.into_iter().map(|(id, _)| id).collect::<Vec<_>>()).await;
    }
}

async fn play(app: &TestApp, story: &Story) {
    app.providers.set_capture(story.capture);
    let before = app.providers.events().len();
    let purchase = Purchase::of(app, app.product_with_stock(UNITS).await).await;
    let name = purchase.open(story.provider).await;
    let provider = story.provider;
    let delivered = BTreeSet::new();
    let mut stage = Stage { app, purchase, provider, name, before, delivered, rival: None };
    stage.play(story).await;
    stage.assert_ended_well().await;
}

/// The order's mails are as many as its end asks for.
async fn assert_told_rightly(app: &TestApp) {
    let ended: Vec<(Uuid, String)> =
        sqlx::query_as("SELECT id, status FROM orders").fetch_all(&app.db).await.unwrap();
    for (id, status) in ended {
        let id = OrderId::from(id).uuid();
        let confirmed = app.mails("order-confirmed", id).len();
        assert_eq!(confirmed, usize::from(status == "paid"), "{id} is {status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn news_in_any_order_around_the_deadline_ends_in_the_same_state() {
    TestApp::run(async |app| {
        for provider in BOTH {
            app.providers.set_delivery(provider, Delivery::Lost);
        }
        let config = Config {
            cases: CASES,
            failure_persistence: None,
            max_shrink_iters: 64,
            ..Config::default()
        };

        let played = block_in_place(|| {
            TestRunner::new(config).run(&stories(), |story| {
                Handle::current().block_on(play(app, &story));
                Ok(())
            })
        });

        if let Err(failure) = played {
            panic!("{failure}");
        }
        hear_all(app).await;
        assert_told_rightly(app).await;
        assert_ledgers_agree(app).await;
    })
    .await;
}
