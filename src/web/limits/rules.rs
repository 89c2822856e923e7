//! Which limits a request counts against.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::Caller;
use crate::{
    clients::limiter::{Key, Limit, Question},
    kernel::{
        EmailAddress,
        pace::Pace,
        rates::{Named, Rates},
    },
    web::policy::{Care, Class, Policy, Who},
};

/// Failures are remembered for a day: somebody who guesses at an account for longer has to begin anew
/// so seldom that it does not matter.
const ACCOUNT_MEMORY: Duration = Duration::from_hours(24);

/// An address is given to somebody else sooner.
const ADDRESS_MEMORY: Duration = Duration::from_hours(1);

/// 1 s doubled ten times is 17 minutes: whoever has forgotten a password would rather reset it.
const DOUBLINGS_HERE: u32 = 10;

/// 1 s doubled six times is a minute. An owner in a new place may have to queue with whoever guesses at
/// the account from everywhere, so it must not be more.
const DOUBLINGS: u32 = 6;

/// The limits of a request of the operation.
pub(super) fn question(rates: &Rates, policy: &Policy, caller: &Caller, body: &[u8]) -> Question {
    let mut limits = by_class(rates, policy.class, caller);
    let mut known = None;
    for care in policy.care {
        let account = || Account::of(policy, caller, body);
        match care {
            Care::Newcomers => limits.push(even(rates.newcomer, &at(caller.network))),
            Care::Guesses => {
                let account = account();
                guesses(rates, caller, account.as_ref(), &mut limits);
                if let Some(Account::Named(account)) = account {
                    known = Some(Key::of(&[b"known", &account, &at(caller.network)]));
                }
            }
            Care::Mails => {
                limits.push(even(rates.mail_address, &at(caller.network)));
                if let Some(account) = account() {
                    let here = [account.name(), &at(caller.network)].concat();
                    limits.push(even(rates.mail_here, &here));
                }
            }
            Care::Exports => {
                if let Some(account) = account() {
                    limits.push(even(rates.export, account.name()));
                }
            }
            // Users have proven an address, and keep little without paying.
            Care::Holds if caller.proven.is_some_and(|proven| proven.is_guest) => {
                let limit = even(rates.units, &at(caller.network));
                limits.push(Limit { turns: units_of(body), ..limit });
            }
            Care::Holds => {}
        }
    }
    Question { limits, known, patience: Duration::ZERO, is_shared: false }
}

/// The most units of one product in an order; as many as can be where it says nothing that we can read,
/// for the application might.
fn units_of(body: &[u8]) -> u32 {
    #[derive(Deserialize)]
    struct Order {
        lines: Vec<Line>,
    }
    #[derive(Deserialize)]
    struct Line {
        variant_id: Uuid,
        quantity: u32,
    }
    let Ok(Order { lines }) = serde_json::from_slice(body) else { return Limit::TURNS_MAX };
    let mut units: HashMap<Uuid, u32> = HashMap::new();
    for Line { variant_id, quantity } in lines {
        let units = units.entry(variant_id).or_default();
        *units = units.saturating_add(quantity);
    }
    units.into_values().max().unwrap_or(1).clamp(1, Limit::TURNS_MAX)
}

/// What a request counts for whoever asks, by its class alone.
pub(super) fn of_class(rates: &Rates, class: Class, caller: &Caller) -> Question {
    Question {
        limits: by_class(rates, class, caller),
        known: None,
        patience: Duration::ZERO,
        is_shared: false,
    }
}

/// The part of a question that a right proof takes back: not the request itself.
pub(super) fn guess_of(question: &Question) -> Question {
    part_of(question, |limit| limit.name.starts_with("guess-"))
}

/// The part of a question that was taken for nothing where no order was placed.
pub(super) fn hold_of(question: &Question) -> Question {
    part_of(question, |limit| limit.name == "units")
}

/// The part of a question that concerns the owner of a token and not where it came from.
pub(super) fn owners_of(question: &Question) -> Question {
    part_of(question, |limit| !matches!(limit.name, "guess-address" | "mail-address"))
}

fn part_of(question: &Question, is_part: impl Fn(&Limit) -> bool) -> Question {
    let limits = question.limits.iter().filter(|limit| is_part(limit)).copied().collect();
    Question { limits, ..question.clone() }
}

/// The limits of a webhook that nobody we know has signed.
pub(super) fn unsigned(rates: &Rates, caller: &Caller) -> Question {
    let limits = vec![even(rates.webhook, &at(caller.network))];
    Question { limits, known: None, patience: Duration::ZERO, is_shared: false }
}

fn by_class(rates: &Rates, class: Class, caller: &Caller) -> Vec<Limit> {
    let network = at(caller.network);
    let own = match caller.proven {
        Some(proven) => proven.id.as_bytes().to_vec(),
        None => network.clone(),
    };
    let mut limits = Vec::with_capacity(5);
    match class {
        // Whoever looks around does not have to wait for Redis to come back.
        Class::Browse => {
            limits.push(Limit { is_local: false, ..even(rates.browse, &own) });
            // Visitors without a token share the narrower limit above. Counting them here, too, would cost
            // most looks a key more, and take a sixth at most from what an address has in all.
            if caller.proven.is_some_and(|proven| proven.is_guest) {
                limits.push(Limit { is_local: false, ..even(rates.browse_crowd, &network) });
            }
        }
        Class::Auth => {
            limits.push(even(rates.auth, &network));
            if caller.proven.is_some() {
                limits.push(even(rates.auth, &own));
            }
        }
        Class::Cart => limits.push(even(rates.cart, &own)),
        Class::Checkout => limits.push(even(rates.checkout, &own)),
        Class::Payment => limits.push(even(rates.payment, &own)),
        Class::Admin => limits.push(even(rates.admin, &own)),
        // Its signature has to be checked first.
        Class::Webhook => {}
    }
    let is_shopping = matches!(class, Class::Cart | Class::Checkout | Class::Payment);
    if is_shopping && caller.proven.is_none_or(|proven| proven.is_guest) {
        limits.push(even(rates.crowd, &network));
    }
    limits
}

fn guesses(rates: &Rates, caller: &Caller, account: Option<&Account>, limits: &mut Vec<Limit>) {
    let network = at(caller.network);
    // A neighbour's guesses keep nobody out who has proven something there.
    let address = slowing(rates.guess_address, &network, DOUBLINGS, ADDRESS_MEMORY);
    limits.push(Limit { spares_the_known: true, ..address });
    // A guesser of passwords keeps nobody out who has proven something already, or has a token of a mail.
    if !matches!(account, Some(Account::Other(_))) {
        let all = even(rates.guess_all, b"");
        limits.push(Limit { spares_the_known: true, ..all });
    }
    if let Some(account) = account {
        let name = account.name();
        let here = [name, &network].concat();
        let here = slowing(rates.guess_here, &here, DOUBLINGS_HERE, ACCOUNT_MEMORY);
        limits.push(Limit { is_cleared: true, ..here });
        let anywhere = slowing(rates.guess_account, name, DOUBLINGS, ACCOUNT_MEMORY);
        limits.push(Limit { spares_the_known: true, ..anywhere });
    }
}

/// What a secret is guessed of, or a mail is for.
enum Account {
    /// An e-mail address, folded as accounts are: whether it has one shows in nothing.
    Named(Vec<u8>),
    /// Another secret of the request, or the caller's own account.
    Other(Vec<u8>),
}

impl Account {
    fn of(policy: &Policy, caller: &Caller, body: &[u8]) -> Option<Self> {
        if let Some(proven) = caller.proven.filter(|_| policy.who != Who::Anyone) {
            return Some(Self::other(proven.id.as_bytes()));
        }
        // Read as the application reads it: of a name that comes twice, the last counts.
        let body: Value = serde_json::from_slice(body).ok()?;
        if let Some(email) = body["email"].as_str() {
            let email = EmailAddress::parse(email).ok()?;
            return Some(Self::Named(email.as_str().as_bytes().to_vec()));
        }
        body["token"].as_str().map(|token| Self::other(token.as_bytes()))
    }

    /// No address begins so: whoever sends one as a secret guesses at nobody's account.
    fn other(secret: &[u8]) -> Self {
        Self::Other([b"\0", secret].concat())
    }

    fn name(&self) -> &[u8] {
        match self {
            Self::Named(name) | Self::Other(name) => name,
        }
    }
}

fn at(network: IpAddr) -> Vec<u8> {
    match network {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn even(Named { name, rate }: Named, whose: &[u8]) -> Limit {
    Limit {
        name,
        key: Key::of(&[name.as_bytes(), whose]),
        pace: Pace::even(rate),
        turns: 1,
        is_local: true,
        spares_the_known: false,
        is_cleared: false,
    }
}

fn slowing(named: Named, whose: &[u8], doublings: u32, memory: Duration) -> Limit {
    Limit { pace: Pace::slowing(named.rate, doublings, memory), ..even(named, whose) }
}

#[cfg(test)]
mod tests {
    use super::{super::Proven, *};

    const ANYBODY: Caller =
        Caller { network: IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), proven: None };

    fn proven(is_guest: bool) -> Caller {
        Caller { proven: Some(Proven { id: Uuid::from_u128(7), is_guest }), ..ANYBODY }
    }

    fn names(policy: Policy, caller: &Caller, body: &str) -> Vec<&'static str> {
        let question = question(&Rates::default(), &policy, caller, body.as_bytes());
        question.limits.iter().map(|limit| limit.name).collect()
    }

    #[test]
    fn a_request_counts_against_its_class_and_a_guest_with_the_crowd() {
        for (class, of_anybody, of_guest, of_user) in [
            (Class::Browse, &["browse"][..], &["browse", "browse-crowd"][..], &["browse"][..]),
            (Class::Auth, &["auth"], &["auth", "auth"], &["auth", "auth"]),
            (Class::Cart, &["cart", "crowd"], &["cart", "crowd"], &["cart"]),
            (Class::Checkout, &["checkout", "crowd"], &["checkout", "crowd"], &["checkout"]),
            (Class::Payment, &["payment", "crowd"], &["payment", "crowd"], &["payment"]),
            (Class::Admin, &["admin"], &["admin"], &["admin"]),
            (Class::Webhook, &[], &[], &[]),
        ] {
            let policy = Policy::new("it", Who::Anyone, class);
            assert_eq!(names(policy, &ANYBODY, ""), of_anybody, "{class:?}");
            assert_eq!(names(policy, &proven(true), ""), of_guest, "{class:?}");
            assert_eq!(names(policy, &proven(false), ""), of_user, "{class:?}");
        }
    }

    #[test]
    fn a_guess_counts_for_the_account_however_its_address_is_written() {
        const GUESS: [&str; 5] =
            ["auth", "guess-address", "guess-all", "guess-here", "guess-account"];
        let policy = Policy::new("logIn", Who::Anyone, Class::Auth).with(&[Care::Guesses]);
        let ask = |body: &str| question(&Rates::default(), &policy, &ANYBODY, body.as_bytes());
        let key = |body: &str| ask(body).limits.last().unwrap().key;

        let lower = r#"{"email":"ada@example.com","password":"x"}"#;
        let upper = r#"{"password":"x","email":"ADA@Example.com"}"#;
        let other = r#"{"email":"bob@example.com","password":"x"}"#;
        assert_eq!(names(policy, &ANYBODY, lower), GUESS);
        assert_eq!(key(lower), key(upper));
        assert_ne!(key(lower), key(other));
        assert!(ask(lower).known.is_some() && ask(lower).known == ask(upper).known);
        // The application believes the last.
        let twice = r#"{"email":"bob@example.com","password":"x","email":"ada@example.com"}"#;
        assert_eq!(key(lower), key(twice));
        for body in ["", "[]", r#"{"email":7}"#, r#"{"email":"nobody"}"#] {
            assert_eq!(names(policy, &ANYBODY, body), GUESS[..3], "{body}");
            assert!(ask(body).known.is_none(), "{body}");
        }
    }

    #[test]
    fn a_guess_without_an_address_counts_for_the_token_or_for_the_caller() {
        let reset = Policy::new("resetPassword", Who::Anyone, Class::Auth).with(&[Care::Guesses]);
        let change =
            Policy::new("changePassword", Who::Customer, Class::Auth).with(&[Care::Guesses]);
        let key = |policy: Policy, caller: &Caller, body: &str| {
            let question = question(&Rates::default(), &policy, caller, body.as_bytes());
            assert!(question.known.is_none());
            assert!(question.limits.iter().all(|limit| limit.name != "guess-all"));
            question.limits.last().map(|limit| (limit.name, limit.key)).unwrap()
        };

        let one = key(reset, &ANYBODY, r#"{"token":"one"}"#);
        let two = key(reset, &ANYBODY, r#"{"token":"two"}"#);
        assert!(one.0 == "guess-account" && one != two);
        let mine = key(change, &proven(false), r#"{"email":"ada@example.com"}"#);
        let also_mine = key(change, &proven(false), "{}");
        assert!(mine.0 == "guess-account" && mine == also_mine);
    }

    #[test]
    fn a_right_proof_takes_back_its_guess_and_not_its_request() {
        let policy = Policy::new("logIn", Who::Anyone, Class::Auth).with(&[Care::Guesses]);
        let body = r#"{"email":"ada@example.com","password":"x"}"#;
        let question = question(&Rates::default(), &policy, &ANYBODY, body.as_bytes());

        let guess = guess_of(&question);

        assert!(guess.known.is_some());
        let names: Vec<_> = guess.limits.iter().map(|limit| limit.name).collect();
        assert_eq!(names, ["guess-address", "guess-all", "guess-here", "guess-account"]);
    }

    #[test]
    fn what_a_revoked_token_asks_for_counts_where_it_came_from_and_not_for_its_owner() {
        let policy = Policy::new("changeEmail", Who::Customer, Class::Auth);
        let policy = policy.with(&[Care::Guesses, Care::Mails]);
        let question = question(&Rates::default(), &policy, &proven(false), b"{}");

        let owners = owners_of(&question);

        let names: Vec<_> = owners.limits.iter().map(|limit| limit.name).collect();
        assert_eq!(names, ["auth", "auth", "guess-here", "guess-account", "mail-here"]);
    }

    #[test]
    fn a_guests_order_counts_by_its_units_of_one_product() {
        let policy = Policy::new("placeOrder", Who::Shopper, Class::Checkout).with(&[Care::Holds]);
        let turns = |body: &str| {
            let question = question(&Rates::default(), &policy, &proven(true), body.as_bytes());
            question.limits.iter().find(|limit| limit.name == "units").unwrap().turns
        };
        let line = |variant: u128, quantity: u32| {
            let variant = Uuid::from_u128(variant);
            format!(r#"{{"variant_id":"{variant}","quantity":{quantity}}}"#)
        };
        let order =
            |lines: &[String]| format!(r#"{{"email":"a@b.c","lines":[{}]}}"#, lines.join(","));

        assert_eq!(turns(&order(&[line(10, 3), line(11, 5), line(12, 1)])), 5);
        let twice = line(10, 3).to_uppercase().replace("VARIANT_ID", "variant_id");
        let twice = twice.replace("QUANTITY", "quantity");
        assert_eq!(turns(&order(&[line(10, 3), twice])), 6);
        assert_eq!(turns(&order(&[line(10, u32::MAX), line(10, 9)])), Limit::TURNS_MAX);
        // Whatever we do not understand may be understood by others.
        for body in ["", "{}", r#"{"lines":[{"quantity":1,"quantity":99}]}"#] {
            assert_eq!(turns(body), Limit::TURNS_MAX, "{body}");
        }
        assert_eq!(turns(r#"{"lines":[]}"#), 1);
        let user = question(&Rates::default(), &policy, &proven(false), b"");
        assert!(user.limits.iter().all(|limit| limit.name != "units"));
    }

    #[test]
    fn mails_newcomers_and_exports_have_limits_of_their_own() {
        let forgot = Policy::new("forgotPassword", Who::Anyone, Class::Auth).with(&[Care::Mails]);
        let guest = Policy::new("becomeGuest", Who::Anyone, Class::Auth).with(&[Care::Newcomers]);

        let body = r#"{"email":"ada@example.com"}"#;
        assert_eq!(names(forgot, &ANYBODY, body), ["auth", "mail-address", "mail-here"]);
        assert_eq!(names(forgot, &ANYBODY, "{}"), ["auth", "mail-address"]);
        assert_eq!(names(guest, &ANYBODY, ""), ["auth", "newcomer"]);
        let change = Policy::new("changeEmail", Who::Customer, Class::Auth);
        let change = change.with(&[Care::Guesses, Care::Mails]);
        assert_eq!(
            names(change, &proven(false), body),
            [
                "auth",
                "auth",
                "guess-address",
                "guess-here",
                "guess-account",
                "mail-address",
                "mail-here"
            ]
        );
        let export = Policy::new("exportMe", Who::Customer, Class::Auth).with(&[Care::Exports]);
        assert_eq!(names(export, &proven(false), ""), ["auth", "auth", "export"]);
        assert_eq!(names(export, &ANYBODY, ""), ["auth"]);
    }
}
