//! What the mails say.

use std::sync::LazyLock;

use minijinja::{Environment, UndefinedBehavior, context, value::Serde};
use serde::Serialize;
use serde_json::Value;
use time::{OffsetDateTime, macros::format_description};

use crate::{
    context::Shop,
    kernel::Money,
    orders::{Order, Status, Totals},
};

/// A kind of mail about an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Template {
    OrderReceived,
    ReservationExpired,
    OrderConfirmed,
    PaymentFailed,
    RefundMade,
}

impl Template {
    #[cfg(test)]
    const ALL: [Self; 5] = [
        Self::OrderReceived,
        Self::ReservationExpired,
        Self::OrderConfirmed,
        Self::PaymentFailed,
        Self::RefundMade,
    ];

    /// The name in the database; never changed, as it is part of a delivery's identity.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::OrderReceived => "order-received",
            Self::ReservationExpired => "reservation-expired",
            Self::OrderConfirmed => "order-confirmed",
            Self::PaymentFailed => "payment-failed",
            Self::RefundMade => "refund-made",
        }
    }

    /// Whether the mail still tells the truth of an order that stands there, and of the refund that it is
    /// about, if any.
    pub(super) const fn is_due(self, status: Status, is_sent_back: bool) -> bool {
        match self {
            // What happened stays true, whatever happened since.
            Self::OrderReceived | Self::ReservationExpired | Self::OrderConfirmed => true,
            // Nobody is asked to pay again for what is paid, given up or gone.
            Self::PaymentFailed => match status {
                Status::AwaitingPayment => true,
                Status::Cancelled | Status::Expired | Status::Paid | Status::Shipped => false,
            },
            Self::RefundMade => is_sent_back,
        }
    }

    fn subject(self, order: &Order) -> String {
        match self {
            Self::OrderReceived => format!("Your order {}", order.number),
            Self::ReservationExpired => {
                format!("The time to pay for your order {} ran out", order.number)
            }
            Self::OrderConfirmed => format!("Your order {} is paid", order.number),
            Self::PaymentFailed => {
                format!("Your payment for order {} did not go through", order.number)
            }
            Self::RefundMade => format!("Your money for order {} is on its way", order.number),
        }
    }
}

/// A mail's words.
#[derive(Debug, Clone)]
pub(super) struct Rendered {
    pub(super) subject: String,
    pub(super) text: String,
    pub(super) html: String,
}

pub(super) static TEMPLATES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut templates = Environment::new();
    // A misspelt name must fail in a test, not leave a hole in a customer's mail.
    templates.set_undefined_behavior(UndefinedBehavior::Strict);
    for (name, source) in [
        ("account-exists.html", include_str!("templates/account-exists.html")),
        ("account-exists.txt", include_str!("templates/account-exists.txt")),
        ("confirm-email.html", include_str!("templates/confirm-email.html")),
        ("confirm-email.txt", include_str!("templates/confirm-email.txt")),
        ("email-changed.html", include_str!("templates/email-changed.html")),
        ("email-changed.txt", include_str!("templates/email-changed.txt")),
        ("layout.html", include_str!("templates/layout.html")),
        ("lines.html", include_str!("templates/lines.html")),
        ("order-confirmed.html", include_str!("templates/order-confirmed.html")),
        ("order-confirmed.txt", include_str!("templates/order-confirmed.txt")),
        ("order-received.html", include_str!("templates/order-received.html")),
        ("order-received.txt", include_str!("templates/order-received.txt")),
        ("password-changed.html", include_str!("templates/password-changed.html")),
        ("password-changed.txt", include_str!("templates/password-changed.txt")),
        ("payment-failed.html", include_str!("templates/payment-failed.html")),
        ("payment-failed.txt", include_str!("templates/payment-failed.txt")),
        ("refund-made.html", include_str!("templates/refund-made.html")),
        ("refund-made.txt", include_str!("templates/refund-made.txt")),
        ("reservation-expired.html", include_str!("templates/reservation-expired.html")),
        ("reservation-expired.txt", include_str!("templates/reservation-expired.txt")),
        ("reset-password.html", include_str!("templates/reset-password.html")),
        ("reset-password.txt", include_str!("templates/reset-password.txt")),
        ("session-revoked.html", include_str!("templates/session-revoked.html")),
        ("session-revoked.txt", include_str!("templates/session-revoked.txt")),
        ("verify-email.html", include_str!("templates/verify-email.html")),
        ("verify-email.txt", include_str!("templates/verify-email.txt")),
    ] {
        templates
            .add_template(name, source)
            .expect("the built-in templates are parsed by the tests");
    }
    templates
});

#[derive(Debug, Serialize)]
struct OrderWords {
    id: String,
    number: String,
    name: String,
    /// Where the parcel goes, line by line as on an envelope.
    address: Vec<String>,
    lines: Vec<LineWords>,
    /// What makes the total, where it is more than the lines alone.
    extras: Vec<ExtraWords>,
    total: String,
    expires_at: String,
}

#[derive(Debug, Serialize)]
struct LineWords {
    sku: String,
    title: String,
    quantity: i64,
    unit_price: String,
}

#[derive(Debug, Serialize)]
struct ExtraWords {
    name: &'static str,
    amount: String,
}

/// Writes the mail about the order, as text and as HTML; `sent_back` is the amount of a refund.
pub(super) fn render(
    template: Template,
    order: &Order,
    sent_back: Option<&str>,
    shop: &Shop,
) -> Result<Rendered, minijinja::Error> {
    let words = words(order);
    let body = |kind| {
        let template = TEMPLATES.get_template(&format!("{}.{kind}", template.name()))?;
        template.render(context! { order => Serde(&words), sent_back, shop => Serde(shop) })
    };
    Ok(Rendered { subject: template.subject(order), text: body("txt")?, html: body("html")? })
}

fn words(order: &Order) -> OrderWords {
    OrderWords {
        id: order.id.to_string(),
        number: order.number.clone(),
        name: order.shipping_address["name"].as_str().unwrap_or_default().to_owned(),
        address: address(&order.shipping_address),
        lines: order
            .lines
            .iter()
            .map(|line| LineWords {
                sku: line.sku.clone(),
                title: line.title.clone(),
                quantity: line.quantity,
                unit_price: line.unit_price.to_string(),
            })
            .collect(),
        extras: extras(&order.totals),
        total: order.totals.total.to_string(),
        expires_at: moment(order.expires_at),
    }
}

fn address(address: &Value) -> Vec<String> {
    let text = |field: &str| address[field].as_str().filter(|text| !text.is_empty());
    let town: Vec<_> = ["postal_code", "city", "region"].into_iter().filter_map(text).collect();
    let lines =
        [text("name"), text("line1"), text("line2"), Some(&town.join(" ")), text("country")]
            .map(|line| line.unwrap_or_default().to_owned());
    lines.into_iter().filter(|line| !line.is_empty()).collect()
}

fn extras(totals: &Totals) -> Vec<ExtraWords> {
    let extra = |name, sign, money: Money| {
        (money.minor() > 0).then(|| ExtraWords { name, amount: format!("{sign}{money}") })
    };
    [
        extra("Discount", "-", totals.discount),
        extra("Shipping", "", totals.shipping),
        extra("Tax", "", totals.tax),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn moment(at: OffsetDateTime) -> String {
    let format = format_description!(
        "[day padding:none] [month repr:long] [year], [hour]:[minute]:[second] UTC"
    );
    at.format(format).unwrap_or_else(|_| at.to_string())
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use serde_json::json;
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;
    use crate::orders::OrderLine;

    fn order() -> Order {
        let usd = |minor| Money::new(minor, "USD".parse().unwrap()).unwrap();
        Order {
            id: Uuid::from_u128(7).into(),
            number: "HF-7K3M9-QPX2T".to_owned(),
            status: Status::AwaitingPayment,
            email: "ada@example.com".to_owned(),
            shipping_address: json!({
                "name": "Ada <b>Lovelace</b>",
                "line1": "12 St James's Square",
                "city": "London",
                "postal_code": "SW1Y 4JH",
                "country": "GB",
                "phone": "+44 20 7946 0000",
            }),
            lines: vec![OrderLine {
                variant_id: Uuid::from_u128(9).into(),
                sku: "MUG-1".to_owned(),
                title: "Mug & saucer".to_owned(),
                quantity: 2,
                unit_price: usd(1250),
            }],
            totals: Totals {
                subtotal: usd(2500),
                discount: usd(0),
                shipping: usd(499),
                tax: usd(0),
                total: usd(2999),
            },
            placed_at: datetime!(2026-11-01 12:00 UTC),
            expires_at: datetime!(2026-11-01 12:15 UTC),
            expires_in: Duration::from_mins(15),
            is_erased: false,
        }
    }

    pub(in super::super) fn shop() -> Shop {
        Shop { name: "The Shop".to_owned(), url: "https://shop.example".to_owned() }
    }

    #[test]
    fn every_mail_names_the_order_and_its_lines_and_lets_no_markup_in() {
        for template in Template::ALL {
            let mail = render(template, &order(), Some("12.50 USD"), &shop()).unwrap();

            assert!(mail.subject.contains("HF-7K3M9-QPX2T"));
            assert!(mail.text.contains("2 x Mug & saucer (MUG-1)"));
            assert!(mail.text.contains("Ada <b>Lovelace</b>"));
            assert!(mail.html.contains("Mug &amp; saucer"));
            assert!(!mail.html.contains("<b>Lovelace"));
        }
    }

    #[test]
    fn the_words_of_the_mails_are_these() {
        for template in Template::ALL {
            let mail = render(template, &order(), Some("12.50 USD"), &shop()).unwrap();

            insta::assert_snapshot!(format!("{}.txt", template.name()), mail.text);
            insta::assert_snapshot!(format!("{}.html", template.name()), mail.html);
        }
    }

    #[test]
    fn an_address_without_its_optional_parts_has_no_empty_lines() {
        let full = json!({
            "name": "Ada", "line1": "1 Road", "line2": "Flat 2", "city": "Pune",
            "region": "MH", "postal_code": "411001", "country": "IN",
        });

        assert_eq!(address(&full), ["Ada", "1 Road", "Flat 2", "411001 Pune MH", "IN"]);
        assert_eq!(address(&json!({ "name": "Ada", "line2": "", "country": "IN" })), ["Ada", "IN"]);
        assert_eq!(address(&json!(null)), Vec::<String>::new());
    }

    #[test]
    fn nobody_hears_of_a_refund_that_came_to_nothing() {
        for template in Template::ALL {
            let is_due = template.is_due(Status::AwaitingPayment, false);
            assert_eq!(is_due, template != Template::RefundMade, "{template:?}");
        }
    }

    #[test]
    fn only_a_shopper_who_can_still_pay_is_asked_to_try_again() {
        for template in Template::ALL {
            for status in Status::ALL {
                let is_moot =
                    template == Template::PaymentFailed && status != Status::AwaitingPayment;
                assert_eq!(template.is_due(status, true), !is_moot, "{template:?}, {status:?}");
            }
        }
    }
}
