//! A form or query as Stripe reads it: `metadata[key]=value`, `expand[]=…`, `created[gte]=…`.

use std::collections::BTreeMap;

use super::refusal::Refusal;
use crate::providers::front::{Call, pairs};

/// Stripe's limits for metadata.
const METADATA_KEYS_MAX: usize = 50;
const METADATA_KEY_CHARS_MAX: usize = 40;
const METADATA_VALUE_CHARS_MAX: usize = 500;

pub(super) struct Params(Vec<(String, String)>);

impl Params {
    /// The query's and the body's parameters together.
    pub(super) fn of(call: &Call) -> Self {
        let mut all = call.query.clone();
        if let Ok(body) = str::from_utf8(&call.body) {
            all.extend(pairs(body));
        }
        all.retain(|(name, _)| !name.is_empty());
        Self(all)
    }

    /// An empty value is as good as none.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    pub(super) fn required(&self, name: &str) -> Result<&str, Refusal> {
        self.get(name).ok_or_else(|| Refusal::missing(name))
    }

    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>, Refusal> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let number = value.parse().map_err(|_| {
            Refusal::parameter(
                "parameter_invalid_integer",
                name,
                &format!("Invalid integer: {value}"),
            )
        })?;
        Ok(Some(number))
    }

    /// A positive amount of minor units.
    pub(super) fn amount(&self, name: &str) -> Result<Option<i64>, Refusal> {
        let amount = self.integer(name)?;
        if amount.is_some_and(|amount| amount < 1) {
            let message = "This value must be greater than or equal to 1.";
            return Err(Refusal::parameter("parameter_invalid_integer", name, message));
        }
        if amount.is_some_and(|amount| amount > 99_999_999) {
            let message = "Amount must be no more than $999,999.99";
            return Err(Refusal::parameter("amount_too_large", name, message));
        }
        Ok(amount)
    }

    pub(super) fn metadata(&self) -> Result<BTreeMap<String, String>, Refusal> {
        let metadata: BTreeMap<String, String> = self
            .0
            .iter()
            .filter_map(|(name, value)| {
                let key = name.strip_prefix("metadata[")?.strip_suffix(']')?;
                Some((key.to_owned(), value.clone()))
            })
            .collect();
        let too_long = metadata.iter().any(|(key, value)| {
            key.chars().count() > METADATA_KEY_CHARS_MAX
                || value.chars().count() > METADATA_VALUE_CHARS_MAX
        });
        if metadata.len() > METADATA_KEYS_MAX || too_long {
            let message = "Metadata can have up to 50 keys, with key names up to 40 characters \
                           long and values up to 500 characters long.";
            return Err(Refusal::invalid(Some("metadata"), message));
        }
        Ok(metadata)
    }

    /// The values of `name[]` or `name[0]`, `name[1]`, ….
    pub(super) fn list(&self, name: &str) -> Vec<&str> {
        let values = self.0.iter().filter(|(known, _)| {
            let index = known.strip_prefix(name).and_then(|rest| rest.strip_prefix('['));
            let index = index.and_then(|rest| rest.strip_suffix(']'));
            index.is_some_and(|index| index.bytes().all(|digit| digit.is_ascii_digit()))
        });
        values.map(|(_, value)| value.as_str()).collect()
    }

    /// Refuses what the endpoint does not know, as Stripe does.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Refusal> {
        let unknown = self.0.iter().find_map(|(name, _)| {
            let name = name.split('[').next().unwrap_or(name);
            (!known.contains(&name)).then_some(name)
        });
        match unknown {
            Some(name) => {
                let message = format!("Received unknown parameter: {name}");
                Err(Refusal::parameter("parameter_unknown", name, &message))
            }
            None => Ok(()),
        }
    }

    /// Whether `created` lies in what `created[gte]` and its like ask for.
    pub(super) fn covers(&self, created: i64) -> Result<bool, Refusal> {
        let bound = |name: &str| self.integer(&format!("created[{name}]"));
        Ok(self.integer("created")?.is_none_or(|at| created == at)
            && bound("gte")?.is_none_or(|at| created >= at)
            && bound("gt")?.is_none_or(|at| created > at)
            && bound("lte")?.is_none_or(|at| created <= at)
            && bound("lt")?.is_none_or(|at| created < at))
    }
}
