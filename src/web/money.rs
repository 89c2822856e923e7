//! Money as it travels.

use poem_openapi::Object;

use crate::kernel::{Currency, Detail, Money, MoneyError};

/// An amount in the smallest unit of its currency (ISO 4217): `{ "amount": 12999, "currency": "INR" }` is ₹129.99.
#[derive(Debug, Clone, PartialEq, Eq, Object)]
#[oai(rename = "Money", deny_unknown_fields)]
pub struct MoneyBody {
    pub amount: i64,
    /// Three capital letters.
    #[oai(validator(min_length = 3, max_length = 3))]
    pub currency: String,
}

impl MoneyBody {
    /// Reads the amount; `pointer` is where in the request it stands (`/expected_total`, or nothing).
    pub fn parse_at(&self, pointer: &str) -> Result<Money, Detail> {
        let refuse = |field: &str, code, error: MoneyError| Detail {
            pointer: format!("{pointer}/{field}"),
            code,
            message: error.to_string(),
            available: None,
        };
        let currency: Currency =
            self.currency.parse().map_err(|error| refuse("currency", "unknown-currency", error))?;
        Money::new(self.amount, currency).map_err(|error| refuse("amount", "out-of-range", error))
    }
}

impl TryFrom<MoneyBody> for Money {
    type Error = Detail;

    fn try_from(body: MoneyBody) -> Result<Self, Detail> {
        body.parse_at("")
    }
}

impl From<Money> for MoneyBody {
    fn from(money: Money) -> Self {
        Self { amount: money.minor(), currency: money.currency().code().to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_money_is_refused_where_it_stands() {
        for (amount, currency, pointer, code) in [
            (1, "XYZ", "/total/currency", "unknown-currency"),
            (1, "usd", "/total/currency", "unknown-currency"),
            (-1, "USD", "/total/amount", "out-of-range"),
            (i64::MAX, "USD", "/total/amount", "out-of-range"),
        ] {
            let body = MoneyBody { amount, currency: currency.into() };

            let refusal = body.parse_at("/total").unwrap_err();

            assert_eq!((&*refusal.pointer, refusal.code), (pointer, code));
        }
    }

    #[test]
    fn money_survives_the_journey() {
        let body = MoneyBody { amount: 12_999, currency: "INR".into() };

        let money = Money::try_from(body.clone()).unwrap();

        assert_eq!(MoneyBody::from(money), body);
    }
}
