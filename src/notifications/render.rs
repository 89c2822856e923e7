//! What the mails say.

use std::sync::LazyLock;

use minijinja::{Environment, UndefinedBehavior, context, value::Serde};
use serde::Serialize;
use time::{OffsetDateTime, macros::format_description};

use crate::{context::Shop, orders::Order};

/// A kind of mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Template {
    OrderReceived,
    ReservationExpired,
}

impl Template {
    /// The name in the database; never changed, as it is part of a delivery's identity.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OrderReceived => "order-received",
            Self::ReservationExpired => "reservation-expired",
        }
    }

    fn subject(self, order: &Order) -> String {
        match self {
            Self::OrderReceived => format!("Your order {}", order.number),
            Self::ReservationExpired => {
                format!("The time to pay for your order {} ran out", order.number)
            }
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

static TEMPLATES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut templates = Environment::new();
    // A misspelt name must fail in a test, not leave a hole in a customer's mail.
    templates.set_undefined_behavior(UndefinedBehavior::Strict);
    for (name, source) in [
        ("layout.html", include_str!("templates/layout.html")),
        ("lines.html", include_str!("templates/lines.html")),
        ("order-received.html", include_str!("templates/order-received.html")),
        ("order-received.txt", include_str!("templates/order-received.txt")),
        ("reservation-expired.html", include_str!("templates/reservation-expired.html")),
        ("reservation-expired.txt", include_str!("templates/reservation-expired.txt")),
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
    lines: Vec<LineWords>,
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

/// Writes the mail about the order, as text and as HTML.
pub(super) fn render(
    template: Template,
    order: &Order,
    shop: &Shop,
) -> Result<Rendered, minijinja::Error> {
    let words = words(order);
    let body = |kind| {
        let template = TEMPLATES.get_template(&format!("{}.{kind}", template.name()))?;
        template.render(context! { order => Serde(&words), shop => Serde(shop) })
    };
    Ok(Rendered { subject: template.subject(order), text: body("txt")?, html: body("html")? })
}

fn words(order: &Order) -> OrderWords {
    OrderWords {
        id: order.id.to_string(),
        number: order.number.clone(),
        name: order.shipping_address["name"].as_str().unwrap_or_default().to_owned(),
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
        total: order.totals.total.to_string(),
        expires_at: moment(order.expires_at),
    }
}

fn moment(at: OffsetDateTime) -> String {
    let format = format_description!(
        "[day padding:none] [month repr:long] [year], [hour]:[minute]:[second] UTC"
    );
    at.format(format).unwrap_or_else(|_| at.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;
    use crate::{
        kernel::Money,
        orders::{OrderLine, Status, Totals},
    };

    fn order() -> Order {
        let usd = |minor| Money::new(minor, "USD".parse().unwrap()).unwrap();
        Order {
            id: Uuid::from_u128(7).into(),
            number: "HF-7K3M9-QPX2T".to_owned(),
            status: Status::AwaitingPayment,
            email: "ada@example.com".to_owned(),
            shipping_address: json!({ "name": "Ada <b>Lovelace</b>" }),
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
                shipping: usd(0),
                tax: usd(0),
                total: usd(2500),
            },
            placed_at: datetime!(2026-11-01 12:00 UTC),
            expires_at: datetime!(2026-11-01 12:15 UTC),
            expires_in: Duration::from_mins(15),
        }
    }

    fn shop() -> Shop {
        Shop { name: "The Shop".to_owned(), url: "https://shop.example".to_owned() }
    }

    #[test]
    fn every_mail_names_the_order_and_its_lines_and_lets_no_markup_in() {
        for template in [Template::OrderReceived, Template::ReservationExpired] {
            let mail = render(template, &order(), &shop()).unwrap();

            assert!(mail.subject.contains("HF-7K3M9-QPX2T"));
            assert!(mail.text.contains("2 x Mug & saucer (MUG-1)"));
            assert!(mail.text.contains("Ada <b>Lovelace</b>"));
            assert!(mail.html.contains("Mug &amp; saucer"));
            assert!(!mail.html.contains("<b>Lovelace"));
        }
    }

    #[test]
    fn the_words_of_the_mails_are_these() {
        let received = render(Template::OrderReceived, &order(), &shop()).unwrap();
        let expired = render(Template::ReservationExpired, &order(), &shop()).unwrap();

        insta::assert_snapshot!("order-received.txt", received.text);
        insta::assert_snapshot!("order-received.html", received.html);
        insta::assert_snapshot!("reservation-expired.txt", expired.text);
        insta::assert_snapshot!("reservation-expired.html", expired.html);
    }
}
