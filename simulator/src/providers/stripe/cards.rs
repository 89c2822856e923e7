//! Stripe's test cards, by the name of the payment method and by number.

/// What a card does when it is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Card {
    Pays,
    Declines(&'static str),
    AsksForAction,
    /// A method whose money takes its time.
    Processes,
    /// Pays, and is disputed at once.
    Disputes,
    /// Pays, and its refunds wait.
    RefundsLater,
    /// Pays, and its refunds fail after they have succeeded.
    FailsRefunds,
}

impl Card {
    /// `None` for a payment method that Stripe does not know.
    pub(super) fn named(method: &str) -> Option<Self> {
        Some(match method {
            "pm_card_visa" | "pm_card_visa_debit" | "pm_card_mastercard" | "pm_card_amex"
            | "pm_card_in" | "4242424242424242" | "5555555555554444" | "378282246310005" => {
                Self::Pays
            }
            "pm_card_visa_chargeDeclined" | "pm_card_chargeDeclined" | "4000000000000002" => {
                Self::Declines("generic_decline")
            }
            "pm_card_visa_chargeDeclinedInsufficientFunds"
            | "pm_card_chargeDeclinedInsufficientFunds"
            | "4000000000009995" => Self::Declines("insufficient_funds"),
            "pm_card_visa_chargeDeclinedLostCard"
            | "pm_card_chargeDeclinedLostCard"
            | "4000000000009987" => Self::Declines("lost_card"),
            "pm_card_visa_chargeDeclinedStolenCard"
            | "pm_card_chargeDeclinedStolenCard"
            | "4000000000009979" => Self::Declines("stolen_card"),
            "pm_card_chargeDeclinedFraudulent" | "4100000000000019" => Self::Declines("fraudulent"),
            "pm_card_chargeDeclinedExpiredCard" | "4000000000000069" => {
                Self::Declines("expired_card")
            }
            "pm_card_chargeDeclinedIncorrectCvc" | "4000000000000127" => {
                Self::Declines("incorrect_cvc")
            }
            "pm_card_chargeDeclinedProcessingError" | "4000000000000119" => {
                Self::Declines("processing_error")
            }
            "pm_card_threeDSecure2Required"
            | "pm_card_threeDSecureRequired"
            | "pm_card_authenticationRequired"
            | "4000000000003220"
            | "4000002500003155"
            | "4000002760003184" => Self::AsksForAction,
            "pm_usBankAccount_success" | "pm_usBankAccount_processing" => Self::Processes,
            "pm_card_createDispute" | "4000000000000259" => Self::Disputes,
            "pm_card_pendingRefund" | "4000000000007726" => Self::RefundsLater,
            "pm_card_refundFail" | "4000000000005126" => Self::FailsRefunds,
            _ => return None,
        })
    }
}
