//! How much of the API one client may use, unless the operator says otherwise.

use std::str::FromStr;

use crate::kernel::pace::Rate;

/// One limit: its name in the setting `LIMITS`, in headers and in metrics, and its rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    pub name: &'static str,
    pub rate: Rate,
}

macro_rules! rates {
    ($($(#[$doc:meta])* $field:ident $name:literal $default:literal;)*) => {
        /// The rate of every limit.
        ///
        /// As a setting: `name:count/unit:burst,…`, with s, m, h or d for the unit; what is left out
        /// keeps its default, or the rate of `all` where that comes first.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct Rates {
            $($(#[$doc])* pub $field: Named,)*
        }

        impl Default for Rates {
            fn default() -> Self {
                let named = |name, rate: &str| {
                    Named { name, rate: rate.parse().expect("the defaults are rates") }
                };
                Self { $($field: named($name, $default),)* }
            }
        }

        impl Rates {
            /// Every limit.
            pub fn all(&mut self) -> impl Iterator<Item = &mut Named> {
                [$(&mut self.$field,)*].into_iter()
            }
        }
    };
}

rates! {
    /// Looking around, of one caller: a page asks some five things at once, and an office shares an address.
    browse "browse" "100/s:200";
    /// All guests of one address who look around: as much as five visitors, as a caller who makes guests is one.
    browse_crowd "browse-crowd" "500/s:1000";
    /// Whatever proves who one is, from one address.
    auth "auth" "2/s:120";
    /// New guests from one address. One is enough for a shopper; an office in a sale needs some more.
    newcomer "newcomer" "1/s:60";
    /// A cart's changes, of one caller: as fast as a person clicks.
    cart "cart" "10/s:60";
    /// Placing and giving up orders, of one caller: a program that repeats on every 409 and 503 included.
    checkout "checkout" "1/s:20";
    /// Paying, of one caller. A provider is asked, whose own limits are near.
    payment "payment" "1/s:20";
    /// All guests of one address in carts, checkout and payment: a caller who makes guests is one caller.
    crowd "crowd" "10/s:60";
    /// Units of one variant that all guests of one address order, each order by its largest number: with
    /// the usual 15 minutes to pay, no more than 1,300 are kept from others by somebody who never pays.
    units "units" "1/s:300";
    /// Webhooks that nobody we know has signed, from one address. Signed ones have no limit.
    webhook "webhook" "10/s:60";
    /// The work of one member of staff.
    admin "admin" "20/s:100";
    /// Failed proofs for one account from one address: then 1 s, 2 s, 4 s and so on to 17 minutes.
    guess_here "guess-here" "1/s:5";
    /// Failed proofs from one address, whosever accounts: then 1 s, 2 s and so on to a minute.
    guess_address "guess-address" "1/s:20";
    /// Failed proofs for one account, from wherever: then 1 s, 2 s and so on to a minute.
    guess_account "guess-account" "1/s:20";
    /// Failed proofs in all. A password costs some 40 ms of a core, which this keeps free for customers.
    guess_all "guess-all" "20/s:1000";
    /// Mails to one account that one address asks for. What strangers elsewhere ask for refuses nobody here:
    /// the mailer sees to it that no inbox is flooded.
    mail_here "mail-here" "6/h:3";
    /// Mails that one address asks for, whosever accounts. Each is in the shop's name, and a registration
    /// costs a password's hash, too.
    mail_address "mail-address" "60/h:30";
    /// Exports of one account: each reads some thousands of rows.
    export "export" "6/h:3";
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("limits are name:count/unit:burst, separated by commas")]
pub struct InvalidRates;

impl FromStr for Rates {
    type Err = InvalidRates;

    fn from_str(text: &str) -> Result<Self, InvalidRates> {
        let mut rates = Self::default();
        let mut said = Vec::new();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let (name, rate) = entry.split_once(':').ok_or(InvalidRates)?;
            let rate = rate.parse().map_err(|_| InvalidRates)?;
            if said.contains(&name) {
                return Err(InvalidRates);
            }
            if name == "all" && said.is_empty() {
                rates.all().for_each(|named| named.rate = rate);
            } else {
                rates.all().find(|named| named.name == name).ok_or(InvalidRates)?.rate = rate;
            }
            said.push(name);
        }
        Ok(rates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_changed_and_the_rest_stays() {
        let rates: Rates = "browse:5/s:7, guess-account:1/m:3".parse().unwrap();

        assert_eq!(rates.browse.rate, "5/s:7".parse().unwrap());
        assert_eq!(rates.guess_account.rate, "1/m:3".parse().unwrap());
        assert_eq!(rates.checkout, Rates::default().checkout);
        assert_eq!("".parse(), Ok(Rates::default()));

        let mut rates: Rates = "all:9/s:9,cart:5/s:7".parse().unwrap();
        assert_eq!(rates.cart.rate, "5/s:7".parse().unwrap());
        assert!(rates.all().all(|named| named.name == "cart" || named.rate.burst() == 9));
    }

    #[test]
    fn a_limit_that_is_unknown_or_said_twice_or_no_rate_is_refused() {
        for text in [
            "browse",
            "browse:5",
            "brows:5/s:7",
            "browse:5/s:7,browse:5/s:7",
            "browse:0/s:7",
            "cart:5/s:7,all:5/s:7",
        ] {
            assert_eq!(text.parse::<Rates>(), Err(InvalidRates), "{text}");
        }
    }
}
