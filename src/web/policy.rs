//! What is declared of every operation: who may call it, and what kind of load it is.

use std::collections::HashMap;

use serde_json::Value;

/// Who may call an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Who {
    /// Anybody at all; what staff are shown beyond that is the operation's affair.
    Anyone,
    /// A payment provider: its signature over the body is the proof.
    Provider,
    /// Whoever brings the refresh token, which a browser does by itself: so the request's origin counts.
    RefreshToken,
    /// A user or a guest.
    Shopper,
    /// A user.
    Customer,
    /// A user with the role `staff` or `admin`.
    Staff,
    /// A user with the role `admin`.
    Admin,
}

impl Who {
    /// The name of the security scheme by which the description of the API says the same.
    const fn scheme(self) -> Option<&'static str> {
        match self {
            Self::Anyone | Self::Provider => None,
            Self::RefreshToken => Some("RefreshToken"),
            Self::Shopper => Some("Shopper"),
            Self::Customer => Some("Customer"),
            Self::Staff => Some("Staff"),
            Self::Admin => Some("Admin"),
        }
    }

    /// Whether the operation's description in the document says the same.
    fn agrees_with(self, operation: &Value) -> bool {
        let demands: Vec<_> = operation["security"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|demand| demand.as_object().and_then(|demand| demand.keys().next()))
            .map(|scheme| scheme.map(String::as_str))
            .collect();
        match self.scheme() {
            Some(scheme) => demands == [Some(scheme)],
            // One of several ways in, the last of them open to everybody.
            None => demands.is_empty() || demands.contains(&None),
        }
    }
}

/// A kind of load: requests of one class share their rate limits and their place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Looking around: catalogue, stock, one's own orders.
    Browse,
    /// Proving who one is. Guessing is done here.
    Auth,
    /// A cart's changes.
    Cart,
    /// Placing and giving up orders.
    Checkout,
    /// Paying; a provider is asked.
    Payment,
    /// What providers report.
    Webhook,
    /// The work of staff.
    Admin,
}

impl Class {
    pub const ALL: [Self; 7] = [
        Self::Browse,
        Self::Auth,
        Self::Cart,
        Self::Checkout,
        Self::Payment,
        Self::Webhook,
        Self::Admin,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Browse => "browse",
            Self::Auth => "auth",
            Self::Cart => "cart",
            Self::Checkout => "checkout",
            Self::Payment => "payment",
            Self::Webhook => "webhook",
            Self::Admin => "admin",
        }
    }
}

/// What has to be counted of an operation beside its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Care {
    /// A password or a secret of a mail can be guessed here: whatever is refused counts as a failed guess.
    Guesses,
    /// A mail goes to an address that the caller names.
    Mails,
    /// Makes a caller of somebody who proves nothing.
    Newcomers,
    /// Reads all that is kept of the caller.
    Exports,
    /// Takes units from the stock that nobody else can buy meanwhile.
    Holds,
}

/// What is declared of one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The operation's id in the API's description.
    pub operation: &'static str,
    pub who: Who,
    pub class: Class,
    pub care: &'static [Care],
}

impl Policy {
    pub const fn new(operation: &'static str, who: Who, class: Class) -> Self {
        Self { operation, who, class, care: &[] }
    }

    #[must_use]
    pub const fn with(self, care: &'static [Care]) -> Self {
        Self { care, ..self }
    }

    /// What is served beside the described operations can be read by anybody.
    pub(super) const BESIDE: Self = Self::new("beside", Who::Anyone, Class::Browse);
}

/// Why the declarations and the description of the API do not fit together.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error("the document is not one: {0}")]
    Unreadable(String),
    #[error("{0}: the operation has no id")]
    Nameless(String),
    #[error("{0}: nothing is declared of this operation")]
    Undeclared(String),
    #[error("{0}: declared of no operation, or twice")]
    Superfluous(String),
    #[error("{0}: the description of the API names other callers than the declaration")]
    Contradicted(String),
}

/// The declarations that have not been met in the document yet.
pub(super) struct Declared(HashMap<&'static str, Policy>);

impl Declared {
    pub(super) fn of(policies: &[Policy]) -> Result<Self, PolicyError> {
        let mut declared = HashMap::new();
        for policy in policies {
            if declared.insert(policy.operation, *policy).is_some() {
                return Err(PolicyError::Superfluous(policy.operation.to_owned()));
            }
        }
        Ok(Self(declared))
    }

    /// Takes the declaration of an operation of the document.
    pub(super) fn take(&mut self, route: &str, operation: &Value) -> Result<Policy, PolicyError> {
        let id = operation["operationId"].as_str();
        let id = id.ok_or_else(|| PolicyError::Nameless(route.to_owned()))?;
        let policy = self.0.remove(id).ok_or_else(|| PolicyError::Undeclared(id.to_owned()))?;
        if !policy.who.agrees_with(operation) {
            return Err(PolicyError::Contradicted(id.to_owned()));
        }
        Ok(policy)
    }

    /// Every declaration must have met its operation.
    pub(super) fn finish(self) -> Result<(), PolicyError> {
        match self.0.into_keys().min() {
            Some(operation) => Err(PolicyError::Superfluous(operation.to_owned())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::web::Document;

    fn checked(policies: &[Policy], operation: &Value) -> Result<(), PolicyError> {
        let document = json!({ "paths": { "/v1/things": { "post": operation } } });
        Document::parse(&document.to_string(), &[], policies).map(drop)
    }

    #[test]
    fn an_operation_of_which_nothing_is_declared_is_no_operation() {
        let policy = Policy::new("make", Who::Staff, Class::Admin);
        let make = json!({ "operationId": "make", "security": [{ "Staff": [] }] });

        assert_eq!(checked(&[policy], &make), Ok(()));
        assert_eq!(checked(&[], &make), Err(PolicyError::Undeclared("make".to_owned())));
        let nameless = Err(PolicyError::Nameless("post /v1/things".to_owned()));
        assert_eq!(checked(&[policy], &json!({})), nameless);
        let superfluous = |operation: &str| Err(PolicyError::Superfluous(operation.to_owned()));
        assert_eq!(checked(&[policy, policy], &make), superfluous("make"));
        let other = Policy { operation: "other", ..policy };
        assert_eq!(checked(&[policy, other], &make), superfluous("other"));
    }

    #[test]
    fn the_callers_that_are_declared_are_those_that_are_described() {
        let staff = json!([{ "Staff": [] }]);
        let visitor = json!([{ "Staff": [] }, {}]);
        let everybody = Value::Null;
        for (who, security, agrees) in [
            (Who::Staff, &staff, true),
            (Who::Staff, &visitor, false),
            (Who::Staff, &everybody, false),
            (Who::Admin, &staff, false),
            (Who::Anyone, &staff, false),
            (Who::Anyone, &visitor, true),
            (Who::Anyone, &everybody, true),
            (Who::Provider, &everybody, true),
            (Who::RefreshToken, &everybody, false),
        ] {
            let operation = json!({ "operationId": "make", "security": security });
            let checked = checked(&[Policy::new("make", who, Class::Admin)], &operation);
            assert_eq!(checked.is_ok(), agrees, "{who:?} {security}");
        }
    }
}
