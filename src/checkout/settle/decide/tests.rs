use std::collections::BTreeSet;

use jobs::Job;
use proptest::prelude::*;
use time::OffsetDateTime;
use uuid::Uuid;

use super::*;
use crate::{
    inventory::{
        allocation::{Available, allocate},
        holds::{self, Hold},
    },
    kernel::{Money, VariantId},
    payments::gateway::RefundAtProvider,
};

const TOTAL: i64 = 25_98;

fn usd(minor: i64) -> Money {
    Money::new(minor, "USD".parse().unwrap()).unwrap()
}

fn order_id() -> OrderId {
    Uuid::from_u128(1).into()
}

fn mug() -> VariantId {
    Uuid::from_u128(2).into()
}

/// The first attempt, with Stripe.
fn first() -> PaymentId {
    Uuid::from_u128(11).into()
}

/// The second, with Razorpay.
fn second() -> PaymentId {
    Uuid::from_u128(12).into()
}

fn payment(id: PaymentId, provider: Provider, state: State) -> Payment {
    Payment {
        id,
        order_id: order_id(),
        provider,
        livemode: false,
        state,
        amount: usd(TOTAL),
        key_generation: 1,
        provider_ref: None,
        last_decline: None,
        created_at: OffsetDateTime::UNIX_EPOCH,
    }
}

/// An order of two mugs, as the database has it, with two attempts to pay it: the second was made
/// when the first was being withdrawn.
#[derive(Debug, Clone)]
struct Shop {
    facts: Facts,
    hold: Kept,
    available: i64,
    captures: Vec<NewCapture>,
    refunds: usize,
    findings: usize,
    timeline: Vec<(Note, String)>,
    jobs: BTreeSet<String>,
}

impl Shop {
    fn open() -> Self {
        let order = LockedForPayment {
            id: order_id(),
            owner_id: Uuid::from_u128(3).into(),
            status: Status::AwaitingPayment,
            total: usd(TOTAL),
            expires_at: OffsetDateTime::UNIX_EPOCH,
            extended: false,
        };
        let attempts = [
            payment(first(), Provider::Stripe, State::Cancelling),
            payment(second(), Provider::Razorpay, State::Creating),
        ];
        Self {
            facts: Facts {
                orders: HashMap::from([(order.id, order)]),
                payments: attempts.into_iter().map(|attempt| (attempt.id, attempt)).collect(),
                recorded: HashSet::new(),
                reported: HashSet::new(),
            },
            hold: Kept {
                hold: Hold { order_id: order.id, variant_id: mug(), quantity: 2 },
                state: holds::State::Held,
            },
            available: 0,
            captures: Vec::new(),
            refunds: 0,
            findings: 0,
            timeline: Vec::new(),
            jobs: BTreeSet::new(),
        }
    }

    fn status(&self) -> Status {
        self.facts.orders[&order_id()].status
    }

    fn set_status(&mut self, status: Status) {
        self.facts.orders.get_mut(&order_id()).unwrap().status = status;
    }

    fn state(&self, id: PaymentId) -> State {
        self.facts.payments[&id].state
    }

    fn set_state(&mut self, id: PaymentId, state: State) {
        self.facts.payments.get_mut(&id).unwrap().state = state;
    }

    /// Ends the order as the reaper does.
    fn pass_deadline(&mut self) {
        if self.status() != Status::AwaitingPayment {
            return;
        }
        self.set_status(Status::Expired);
        if self.hold.is_held() {
            self.hold.state = holds::State::Released;
            self.available += self.hold.hold.quantity;
        }
        for attempt in self.facts.payments.values_mut() {
            if attempt.state.is_open() {
                attempt.state = State::Cancelling;
            }
        }
    }

    /// Settles a slice as an attempt does.
    fn settle(&mut self, slice: &[News]) {
        let named: Vec<_> = slice
            .iter()
            .map(|news| Named {
                payment_id: self.payment_of(news),
                order_id: order_id(),
                news,
                event_id: None,
            })
            .collect();
        let claimants: Vec<_> =
            decide(&self.facts, &named, |_| true).paid.iter().map(|paid| paid.order_id).collect();
        let demands = missing(&[self.hold], &claimants);
        let mut available = Available::from([(mug(), self.available)]);
        let served = allocate(&mut available, &demands);
        self.write(decide(&self.facts, &named, |_| served.iter().all(Result::is_ok)));
        self.check();
    }

    fn payment_of(&self, news: &News) -> PaymentId {
        let known = |payment: &&Payment| {
            payment.provider == news.provider
                && payment.provider_ref.as_ref() == Some(&news.provider_ref)
        };
        let by_name = self.facts.payments.values().find(known).map(|payment| payment.id);
        by_name.or(news.payment_id).unwrap()
    }

    fn write(&mut self, decision: Decision) {
        for paid in &decision.paid {
            assert_eq!(paid.order_id, order_id());
            assert!(self.status().on(crate::orders::Event::PaymentSettled).is_some());
            self.set_status(Status::Paid);
            if !self.hold.is_held() {
                self.available -= self.hold.hold.quantity;
            }
            self.hold.state = holds::State::Sold;
            self.jobs.insert("order-confirmed".to_owned());
        }
        for change in decision.changes {
            let payment = self.facts.payments.get_mut(&change.id).unwrap();
            let (from, to) = (payment.state, change.state);
            assert!(from == to || from.allows(to), "{from:?} to {to:?}");
            payment.state = to;
            payment.provider_ref = change.provider_ref;
            payment.last_decline = change.last_decline;
        }
        for refund in &decision.refunds {
            let of = decision.captures.iter().find(|capture| capture.id == refund.capture_id);
            let capture = of.expect("it is of money that came just now");
            assert!(matches!(capture.fate, Fate::RefundDue(_)));
            assert_eq!(
                (refund.amount_minor, &refund.currency),
                (capture.amount_minor, &capture.currency)
            );
            assert_eq!(refund.state, refunds::State::Requested);
        }
        self.refunds += decision.refunds.len();
        self.findings += decision.findings.len();
        for capture in decision.captures {
            let is_new = self.facts.recorded.insert((capture.provider, capture.charge_ref.clone()));
            assert!(is_new, "{capture:?} is recorded twice");
            self.captures.push(capture);
        }
        for entry in decision.entries {
            let entry = (entry.note, entry.detail.to_string());
            if !self.timeline.contains(&entry) {
                self.timeline.push(entry);
            }
        }
        for id in decision.extended {
            let order = self.facts.orders.get_mut(&id).unwrap();
            assert!(!std::mem::replace(&mut order.extended, true), "extended twice");
        }
        self.jobs.extend(decision.declined.iter().filter_map(Job::dedupe_key));
        self.jobs.extend(decision.withdrawn.iter().filter_map(Job::dedupe_key));
        self.jobs.extend(decision.set_aside.iter().filter_map(Job::dedupe_key));
    }

    /// What must hold at every moment.
    fn check(&self) {
        assert!(self.available >= 0, "oversold");
        let accepted = self.fates().filter(|fate| *fate == Fate::Accepted).count();
        assert_eq!(accepted, usize::from(self.status() == Status::Paid));
        let due = self.fates().filter(|fate| matches!(fate, Fate::RefundDue(_))).count();
        assert_eq!(self.refunds, due, "money that is due back is sent back, once");
        let odd = self.fates().filter(|fate| matches!(fate, Fate::Quarantined(_))).count();
        assert_eq!(self.findings, odd, "a person hears of odd money, once");
        for payment in self.facts.payments.values() {
            let has_money = self
                .captures
                .iter()
                .any(|capture| capture.payment_id == payment.id && capture.fate != FOREIGN);
            assert_eq!(has_money, payment.state == State::Captured, "{payment:?}");
            let needs_ref =
                matches!(payment.state, State::Open | State::Processing | State::Authorized);
            assert!(!needs_ref || payment.provider_ref.is_some());
        }
    }

    fn fates(&self) -> impl Iterator<Item = Fate> {
        self.captures.iter().map(|capture| capture.fate)
    }

    /// Everything, to compare.
    fn books(&self) -> String {
        let mut recorded: Vec<_> = self.facts.recorded.iter().collect();
        recorded.sort();
        let Self { facts, hold, available, captures, refunds: _, findings: _, timeline, jobs } =
            self;
        let Facts { orders, payments, .. } = facts;
        format!("{:?}", (orders, payments, recorded, hold, available, captures, timeline, jobs))
    }

    /// Where it all ends, whatever the order of arrival: which of two good payments came first is a
    /// matter of luck, that one is kept and the other goes back is not.
    fn end(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        let mut charges: Vec<_> = self
            .captures
            .iter()
            .map(|capture| {
                let luck = match capture.fate {
                    Fate::Accepted | Fate::RefundDue(_) => None,
                    Fate::Quarantined(mismatch) => Some(mismatch),
                };
                (capture.charge_ref.clone(), luck.map(|mismatch| format!("{mismatch:?}")))
            })
            .collect();
        charges.sort();
        let surplus =
            self.fates().filter(|fate| *fate == Fate::RefundDue(Surplus::AlreadyPaid)).count();
        let states = [self.state(first()), self.state(second())];
        let confirmed = self.jobs.contains("order-confirmed");
        (self.status(), states, self.hold.state, self.available, charges, surplus, confirmed)
    }
}

fn news(id: PaymentId, standing: Standing) -> News {
    let (provider, provider_ref) =
        if id == first() { (Provider::Stripe, "pi_1") } else { (Provider::Razorpay, "order_2") };
    News {
        provider,
        provider_ref: provider_ref.to_owned(),
        payment_id: Some(id),
        livemode: false,
        standing,
    }
}

fn charge(charge_ref: &str, amount_minor: i64, currency: &str) -> Charge {
    let (charge_ref, currency) = (charge_ref.to_owned(), currency.to_owned());
    Charge { charge_ref, amount_minor, currency, refunds: Vec::new() }
}

/// So much of the money, sent back at the provider.
fn back(charge_ref: &str, amount_minor: i64, standing: RefundStanding) -> RefundAtProvider {
    RefundAtProvider {
        provider_ref: format!("re_{charge_ref}_{amount_minor}"),
        refund_id: None,
        charge_ref: charge_ref.to_owned(),
        amount_minor,
        currency: "USD".to_owned(),
        standing,
    }
}

fn captured(id: PaymentId, charge_ref: &str) -> News {
    news(id, Standing::Captured(vec![charge(charge_ref, TOTAL, "USD")]))
}

fn authorized(id: PaymentId, charge_ref: &str) -> News {
    news(id, Standing::Authorized(charge(charge_ref, TOTAL, "USD")))
}

fn declined(id: PaymentId, code: &str) -> News {
    news(id, Standing::Open { last_decline: Some(code.to_owned()) })
}

/// News of an object that only claims to be our payment's.
fn foreign(standing: Standing) -> News {
    News { provider_ref: "pi_9".to_owned(), ..news(first(), standing) }
}

fn notes(shop: &Shop) -> Vec<Note> {
    shop.timeline.iter().map(|(note, _)| *note).collect()
}

#[test]
fn the_first_good_money_pays_and_every_other_goes_back() {
    let mut shop = Shop::open();
    let twice = vec![charge("pay_2", TOTAL, "USD"), charge("pay_3", TOTAL, "USD")];

    shop.settle(&[news(second(), Standing::Captured(twice)), captured(first(), "pi_1")]);

    let fates: Vec<_> = shop.fates().collect();
    let surplus = Fate::RefundDue(Surplus::AlreadyPaid);
    assert_eq!(fates, [Fate::Accepted, surplus, surplus]);
    assert_eq!([shop.state(first()), shop.state(second())], [State::Captured; 2]);
    assert_eq!(notes(&shop), [Note::PaymentRefundDue, Note::PaymentRefundDue]);
    assert_eq!(shop.jobs, BTreeSet::from(["order-confirmed".to_owned()]));
}

#[test]
fn money_that_was_not_asked_for_pays_nothing() {
    for (charge, mismatch) in [
        (charge("pay_1", TOTAL - 1, "USD"), Mismatch::WrongAmount),
        (charge("pay_1", TOTAL + 1, "USD"), Mismatch::WrongAmount),
        (charge("pay_1", TOTAL, "INR"), Mismatch::WrongCurrency),
        (charge("pay_1", 1, "XXY"), Mismatch::WrongCurrency),
    ] {
        let mut shop = Shop::open();

        shop.settle(&[news(second(), Standing::Captured(vec![charge]))]);

        assert_eq!(shop.fates().collect::<Vec<_>>(), [Fate::Quarantined(mismatch)]);
        assert_eq!(shop.status(), Status::AwaitingPayment);
        assert_eq!(shop.state(second()), State::Captured);
        assert_eq!(notes(&shop), [Note::PaymentQuarantined]);
    }
}

#[test]
fn an_attempt_that_asked_for_less_than_the_total_pays_nothing() {
    let mut shop = Shop::open();
    shop.facts.payments.get_mut(&second()).unwrap().amount = usd(1);

    shop.settle(&[news(second(), Standing::Captured(vec![charge("pay_1", 1, "USD")]))]);

    assert_eq!(shop.fates().collect::<Vec<_>>(), [Fate::Quarantined(Mismatch::WrongAmount)]);
}

#[test]
fn another_object_that_names_our_payment_changes_nothing_but_the_record() {
    let mut shop = Shop::open();
    shop.settle(&[news(first(), Standing::Open { last_decline: None })]);
    let attempts = shop.facts.payments.clone();
    let other_mode = News { livemode: true, ..captured(first(), "pi_2") };
    let other_provider = News { payment_id: Some(first()), ..captured(second(), "pay_9") };

    shop.settle(&[
        foreign(Standing::Processing),
        foreign(Standing::Authorized(charge("pi_9", TOTAL, "USD"))),
        foreign(Standing::Cancelled),
        foreign(Standing::Captured(vec![charge("pi_9", TOTAL, "USD")])),
        other_mode,
        other_provider,
    ]);

    assert_eq!(shop.fates().collect::<Vec<_>>(), [FOREIGN; 3]);
    assert_eq!(shop.facts.payments, attempts);
    assert_eq!(shop.status(), Status::AwaitingPayment);
    assert!(shop.jobs.is_empty(), "{:?}", shop.jobs);
}

#[test]
fn what_was_given_up_stays_given_up() {
    let mut shop = Shop::open();
    shop.set_status(Status::Cancelled);
    shop.hold.state = holds::State::Released;
    shop.available = 2;

    shop.settle(&[captured(second(), "pay_1")]);

    let fates: Vec<_> = shop.fates().collect();
    assert_eq!(fates, [Fate::RefundDue(Surplus::OrderCancelled)]);
    assert_eq!(shop.status(), Status::Cancelled);
    assert_eq!(shop.available, 2);
}

#[test]
fn late_money_pays_if_the_units_can_be_had_and_goes_back_if_not() {
    for (others_took, fate) in [(0, Fate::Accepted), (1, Fate::RefundDue(Surplus::OutOfStock))] {
        let mut shop = Shop::open();
        shop.pass_deadline();
        shop.available -= others_took;

        shop.settle(&[captured(second(), "pay_1")]);

        assert_eq!(shop.fates().collect::<Vec<_>>(), [fate]);
        assert_eq!(shop.status() == Status::Paid, fate == Fate::Accepted);
    }
}

#[test]
fn a_payment_that_failed_may_still_succeed() {
    for state in State::ALL.into_iter().filter(|state| *state != State::Captured) {
        let mut shop = Shop::open();
        let attempt = shop.facts.payments.get_mut(&second()).unwrap();
        attempt.state = state;
        attempt.provider_ref = Some("order_2".to_owned());

        shop.settle(&[declined(second(), "otp_failed"), captured(second(), "pay_1")]);

        assert_eq!(shop.status(), Status::Paid, "{state:?}");
        assert_eq!(shop.state(second()), State::Captured);
        assert!(!shop.jobs.contains(&format!("payment-failed:{}", second())));
    }
}

#[test]
fn nothing_downgrades_what_is_captured() {
    let mut shop = Shop::open();
    shop.settle(&[captured(second(), "pay_1")]);
    let before = shop.books();

    shop.settle(&[
        declined(second(), "otp_failed"),
        news(second(), Standing::Open { last_decline: None }),
        news(second(), Standing::Processing),
        authorized(second(), "pay_1"),
        news(second(), Standing::Cancelled),
        captured(second(), "pay_1"),
    ]);

    assert_eq!(shop.books(), before);
}

#[test]
fn a_decline_is_told_once_and_keeps_the_order_waiting() {
    let mut shop = Shop::open();

    shop.settle(&[declined(second(), "otp_failed"), declined(second(), "otp_failed")]);
    shop.settle(&[declined(second(), "otp_failed")]);

    assert_eq!(notes(&shop), [Note::PaymentFailed]);
    assert_eq!(shop.jobs, BTreeSet::from([format!("payment-failed:{}", second())]));
    assert_eq!(shop.state(second()), State::Open);
    assert_eq!(shop.status(), Status::AwaitingPayment);
    assert!(shop.hold.is_held());
}

#[test]
fn a_decline_after_the_deadline_asks_nobody_to_try_again() {
    let mut shop = Shop::open();
    shop.set_status(Status::Expired);
    shop.hold.state = holds::State::Released;

    shop.settle(&[declined(second(), "otp_failed")]);

    assert_eq!(notes(&shop), [Note::PaymentFailed]);
    assert!(shop.jobs.is_empty(), "{:?}", shop.jobs);
}

#[test]
fn a_payment_under_way_moves_the_deadline_once() {
    let mut shop = Shop::open();

    shop.settle(&[news(second(), Standing::Processing)]);
    assert!(shop.facts.orders[&order_id()].extended);

    // `write` refuses a second time.
    shop.settle(&[news(second(), Standing::Processing), authorized(second(), "pay_1")]);
    assert_eq!(shop.state(second()), State::Authorized);
}

#[test]
fn what_is_not_under_way_moves_no_deadline() {
    for (state, standing) in [
        (State::Cancelled, Standing::Processing),
        (State::Rejected, Standing::Processing),
        (State::Creating, Standing::Open { last_decline: None }),
        (State::Creating, Standing::Cancelled),
    ] {
        let mut shop = Shop::open();
        shop.set_state(second(), state);

        shop.settle(&[news(second(), standing)]);

        assert!(!shop.facts.orders[&order_id()].extended, "{state:?}");
    }
    for status in [Status::Expired, Status::Cancelled] {
        let mut shop = Shop::open();
        shop.set_status(status);

        shop.settle(&[news(second(), Standing::Processing)]);

        assert!(!shop.facts.orders[&order_id()].extended, "{status:?}");
    }
}

#[test]
fn money_set_aside_is_collected_while_the_order_waits_whatever_became_of_the_attempt() {
    for state in [State::Creating, State::Cancelling, State::Cancelled] {
        let mut shop = Shop::open();
        shop.set_state(second(), state);

        shop.settle(&[authorized(second(), "pay_1")]);

        assert_eq!(shop.jobs, BTreeSet::from([format!("capture-payment:{}:pay_1", second())]));
        assert!(shop.facts.orders[&order_id()].extended);
    }
}

#[test]
fn money_set_aside_too_late_is_given_back() {
    for status in [Status::Expired, Status::Cancelled] {
        for (id, withdrawn) in [(first(), true), (second(), false)] {
            let mut shop = Shop::open();
            shop.set_status(status);

            shop.settle(&[authorized(id, "charge")]);
            shop.settle(&[authorized(id, "charge")]);

            let withdrawal = format!("cancel-payment:{id}");
            assert_eq!(shop.jobs.contains(&withdrawal), withdrawn, "{status:?}");
            assert_eq!(shop.jobs.len(), usize::from(withdrawn));
            assert_eq!(notes(&shop), [Note::PaymentAuthorizedTooLate]);
        }
    }
}

#[test]
fn once_an_order_is_paid_its_other_attempt_is_withdrawn() {
    let mut shop = Shop::open();
    shop.set_state(first(), State::Cancelled);

    shop.settle(&[
        news(second(), Standing::Processing),
        captured(first(), "pi_1"),
        authorized(second(), "pay_1"),
    ]);

    assert_eq!(shop.state(second()), State::Cancelling);
    let jobs = [format!("cancel-payment:{}", second()), "order-confirmed".to_owned()];
    assert_eq!(shop.jobs, BTreeSet::from(jobs));
    assert!(!shop.facts.orders[&order_id()].extended);
}

#[test]
fn money_of_an_unreadable_size_is_still_a_fate_and_no_panic() {
    let mut shop = Shop::open();
    let odd = [charge("pay_1", i64::MAX, ""), charge("", i64::MIN, "USD")];

    shop.settle(&[news(second(), Standing::Captured(odd.to_vec()))]);

    assert_eq!(shop.captures.len(), 2);
}

#[test]
fn an_order_that_holds_everything_misses_nothing() {
    let kept = |n: u128, quantity, state| Kept {
        hold: Hold { order_id: Uuid::from_u128(n).into(), variant_id: mug(), quantity },
        state,
    };
    let holds = [
        kept(1, 1, holds::State::Held),
        kept(2, 2, holds::State::Taken),
        kept(3, 3, holds::State::Released),
    ];
    let ids = [2, 1, 3].map(|n| Uuid::from_u128(n).into());

    let demands = missing(&holds, &ids);

    assert_eq!(demands, [Demand::from([(mug(), 2)]), Demand::new(), Demand::from([(mug(), 3)])]);
}

/// All that the two providers could say of the two attempts.
fn any_news() -> impl Strategy<Value = News> {
    let pool = [
        news(first(), Standing::Open { last_decline: None }),
        declined(first(), "insufficient_funds"),
        news(first(), Standing::Processing),
        authorized(first(), "pi_1"),
        news(first(), Standing::Cancelled),
        captured(first(), "pi_1"),
        foreign(Standing::Captured(vec![charge("pi_9", TOTAL, "USD")])),
        news(second(), Standing::Open { last_decline: None }),
        declined(second(), "otp_failed"),
        declined(second(), "card_expired"),
        authorized(second(), "pay_1"),
        captured(second(), "pay_1"),
        captured(second(), "pay_2"),
        news(
            second(),
            Standing::Captured(vec![charge("pay_1", TOTAL, "USD"), charge("pay_2", TOTAL, "USD")]),
        ),
        news(second(), Standing::Captured(vec![charge("pay_3", 1, "USD")])),
        news(second(), Standing::Captured(vec![charge("pay_4", TOTAL, "INR")])),
        news(second(), Standing::Cancelled),
    ];
    prop::sample::select(pool.to_vec())
}

/// How news arrives: in which order, each how often, in slices of which size, and when the deadline
/// passes.
#[derive(Debug, Clone)]
struct Arrival {
    news: Vec<News>,
    slice_size: usize,
    deadline_after: usize,
}

impl Arrival {
    fn play(&self) -> Shop {
        let mut shop = Shop::open();
        // Whoever names another object is only found out once the provider's name is known.
        shop.settle(&[news(first(), Standing::Open { last_decline: None })]);
        for (place, slice) in self.news.chunks(self.slice_size).enumerate() {
            if place == self.deadline_after {
                shop.pass_deadline();
            }
            shop.settle(slice);
            let before = shop.books();
            shop.settle(slice);
            assert_eq!(shop.books(), before, "a repeat changed something: {slice:?}");
        }
        shop.pass_deadline();
        shop
    }
}

/// One set of news, and two ways in which it arrives.
fn two_arrivals() -> impl Strategy<Value = [Arrival; 2]> {
    prop::collection::vec(any_news(), 1..=6).prop_flat_map(|all| {
        let arrival = |all: Vec<News>| {
            let doubles = prop::collection::vec(0..all.len(), 0..=4);
            let order = doubles.prop_flat_map(move |doubles| {
                let again: Vec<_> = doubles.into_iter().map(|place| all[place].clone()).collect();
                Just([all.clone(), again].concat()).prop_shuffle()
            });
            (order, 1..=10_usize, 0..=10_usize).prop_map(|(news, slice_size, deadline_after)| {
                Arrival { news, slice_size, deadline_after }
            })
        };
        [arrival(all.clone()), arrival(all)]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn news_in_any_order_and_any_number_ends_in_the_same_state(arrivals in two_arrivals()) {
        let [one, other] = arrivals.each_ref().map(Arrival::play);

        prop_assert_eq!(one.end(), other.end());
    }
}

/// What follows from the news of all of the money, of which this went back before.
fn decided(shop: &Shop, amount_minor: i64, refunds: Vec<RefundAtProvider>) -> Decision {
    let charge = Charge { refunds, ..charge("pi_1", amount_minor, "USD") };
    let news = news(first(), Standing::Captured(vec![charge]));
    let named = Named { payment_id: first(), order_id: order_id(), news: &news, event_id: None };
    decide(&shop.facts, &[named], |_| true)
}

#[test]
fn money_that_all_went_back_unheard_pays_nothing_and_nothing_more_goes_back() {
    for (status, reason) in [
        (Status::AwaitingPayment, "wrong_amount"),
        (Status::Expired, "wrong_amount"),
        (Status::Cancelled, "order_cancelled"),
        (Status::Paid, "already_paid"),
        (Status::Shipped, "already_paid"),
    ] {
        let mut shop = Shop::open();
        shop.set_status(status);
        let parts = vec![
            back("pi_1", 1_000, RefundStanding::Succeeded),
            back("pi_1", TOTAL - 1_000, RefundStanding::Pending),
            back("pi_1", 7, RefundStanding::Failed { reason: None }),
        ];

        let decision = decided(&shop, TOTAL, parts);

        assert_eq!(decision.paid, [], "{status:?}");
        let [capture] = &*decision.captures else { panic!("{decision:?}") };
        assert_eq!((capture.fate.name(), capture.fate.reason()), ("refund_due", Some(reason)));
        assert_eq!(decision.refunds, [], "{status:?}");
        let adopted: Vec<_> = decision
            .adopted
            .iter()
            .map(|refund| (refund.amount_minor, refund.state, refund.cause))
            .collect();
        let by_provider = refunds::Cause::Provider;
        assert_eq!(
            adopted,
            [
                (1_000, refunds::State::Succeeded, by_provider),
                (TOTAL - 1_000, refunds::State::Pending, by_provider)
            ]
        );
        assert_eq!(decision.refunded.len(), 1, "one has reached the shopper");
        let notes: Vec<_> = decision.entries.iter().map(|entry| entry.note).collect();
        assert_eq!(
            notes,
            [
                Note::PaymentRefundDue,
                Note::RefundRequested,
                Note::RefundSucceeded,
                Note::RefundRequested
            ]
        );
    }
}

#[test]
fn money_of_which_a_part_went_back_unheard_pays_or_gives_the_rest_back() {
    let part = || vec![back("pi_1", 1_000, RefundStanding::Succeeded)];

    let paid = decided(&Shop::open(), TOTAL, part());
    assert_eq!(paid.paid.len(), 1);
    assert_eq!((paid.captures[0].fate, paid.refunds.len()), (Fate::Accepted, 0));
    assert_eq!(paid.adopted.len(), 1);

    let mut cancelled = Shop::open();
    cancelled.set_status(Status::Cancelled);
    let back = decided(&cancelled, TOTAL, part());
    assert_eq!(back.captures[0].fate, Fate::RefundDue(Surplus::OrderCancelled));
    assert_eq!(back.refunds[0].amount_minor, TOTAL - 1_000);

    let odd = decided(&Shop::open(), TOTAL - 1, part());
    assert_eq!(odd.captures[0].fate, Fate::Quarantined(Mismatch::WrongAmount));
    assert_eq!((odd.findings.len(), odd.adopted.len()), (1, 1));
}

#[test]
fn what_is_set_aside_and_was_not_asked_for_is_not_collected_and_told_of_once() {
    let mut facts = Shop::open().facts;
    facts.payments.get_mut(&second()).unwrap().state = State::Open;
    let odd = charge("pay_1", TOTAL - 1, "USD");
    let news = news(second(), Standing::Authorized(odd));
    let named = Named { payment_id: second(), order_id: order_id(), news: &news, event_id: None };

    let decision = decide(&facts, &[named, named], |_| true);

    assert_eq!(decision.set_aside, []);
    assert_eq!(decision.extended, []);
    assert_eq!(decision.findings.len(), 1);
    assert_eq!(decision.findings[0].subject, "pay_1");
    let notes: Vec<_> = decision.entries.iter().map(|entry| entry.note).collect();
    assert_eq!(notes, [Note::PaymentNotCollected]);
    assert!(decision.changes.iter().all(|change| change.state == State::Open), "{decision:?}");

    facts.reported.insert((Provider::Razorpay, "pay_1".to_owned()));
    let decision = decide(&facts, &[named], |_| true);
    assert_eq!((decision.findings.len(), decision.entries.len()), (0, 0));
}
