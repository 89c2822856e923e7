//! Money: an amount in minor units that never parts from its currency.

use std::{fmt, str::FromStr};

/// A currency of ISO 4217.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Currency(iso_currency::Currency);

impl Currency {
    pub fn code(self) -> &'static str {
        self.0.code()
    }

    /// How many digits of the minor unit make one of the major unit: 2 for USD, 0 for JPY, 3 for KWD.
    pub fn exponent(self) -> u32 {
        u32::from(self.0.exponent().unwrap_or(0))
    }
}

impl FromStr for Currency {
    type Err = MoneyError;

    fn from_str(code: &str) -> Result<Self, MoneyError> {
        iso_currency::Currency::from_code(code).map(Self).ok_or(MoneyError::UnknownCurrency)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// An amount from 0 to [`Money::MINOR_MAX`] minor units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Money {
    minor: i64,
    currency: Currency,
}

impl Money {
    /// Ten thousand million of the major unit at two digits: far above any order, far below where
    /// sums of a table's rows could overflow.
    pub const MINOR_MAX: i64 = 1_000_000_000_000;

    pub const fn new(minor: i64, currency: Currency) -> Result<Self, MoneyError> {
        if minor < 0 || minor > Self::MINOR_MAX {
            return Err(MoneyError::OutOfRange);
        }
        Ok(Self { minor, currency })
    }

    pub const fn zero(currency: Currency) -> Self {
        Self { minor: 0, currency }
    }

    pub const fn minor(self) -> i64 {
        self.minor
    }

    pub const fn currency(self) -> Currency {
        self.currency
    }

    pub fn add(self, other: Self) -> Result<Self, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::CurrenciesDiffer);
        }
        let minor = self.minor.checked_add(other.minor).ok_or(MoneyError::OutOfRange)?;
        Self::new(minor, self.currency)
    }

    pub fn times(self, quantity: i64) -> Result<Self, MoneyError> {
        let minor = self.minor.checked_mul(quantity).ok_or(MoneyError::OutOfRange)?;
        Self::new(minor, self.currency)
    }
}

impl fmt::Display for Money {
    /// Writes the amount as a person reads it: `129.99 USD`, `500 JPY`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exponent = self.currency.exponent();
        let unit = 10_i64.pow(exponent);
        write!(f, "{}", self.minor / unit)?;
        if exponent > 0 {
            let width = exponent as usize;
            write!(f, ".{:0width$}", self.minor % unit)?;
        }
        write!(f, " {}", self.currency)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    #[error("the currency is not one of ISO 4217")]
    UnknownCurrency,
    #[error("the amounts are of different currencies")]
    CurrenciesDiffer,
    #[error("the amount is below 0 or above {}", Money::MINOR_MAX)]
    OutOfRange,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn usd(minor: i64) -> Money {
        Money::new(minor, "USD".parse().unwrap()).unwrap()
    }

    #[test]
    fn money_is_written_with_the_digits_of_its_currency() {
        for (minor, code, text) in [
            (12_999, "INR", "129.99 INR"),
            (5, "USD", "0.05 USD"),
            (500, "JPY", "500 JPY"),
            (1_234, "KWD", "1.234 KWD"),
        ] {
            let money = Money::new(minor, code.parse().unwrap()).unwrap();
            assert_eq!(money.to_string(), text);
        }
    }

    #[test]
    fn amounts_of_two_currencies_do_not_add() {
        let rupees = Money::new(1, "INR".parse().unwrap()).unwrap();

        assert_eq!(usd(1).add(rupees), Err(MoneyError::CurrenciesDiffer));
    }

    proptest! {
        #[test]
        fn arithmetic_never_panics_and_never_leaves_the_range(a in 0..=Money::MINOR_MAX, b in 0..=Money::MINOR_MAX, n in any::<i64>()) {
            for money in [usd(a).add(usd(b)), usd(a).times(n)].into_iter().flatten() {
                prop_assert!((0..=Money::MINOR_MAX).contains(&money.minor()));
            }
        }

        #[test]
        fn any_text_is_a_currency_or_an_error(code in ".{0,8}") {
            if let Ok(currency) = code.parse::<Currency>() {
                prop_assert_eq!(currency.code(), code);
            }
        }
    }
}
