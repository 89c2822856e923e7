//! Fair drops: a sale has its hours, a customer their limit, and nobody sits on the stock of all.

mod cap;
mod limit;
mod price;
mod window;

use holdfast::{
    checkout::{PlaceOrder, SoldOut, place_orders},
    identity::{self, Hasher, Password, Role},
    kernel::{EmailAddress, Fault},
};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    app::{PASSWORD, TestApp},
    client::{Answer, Client},
    shop::{Variant, wish},
};

/// One key per intention.
fn key() -> String {
    Uuid::now_v7().to_string()
}

/// Sets the rules of the variant's sale, as the caller.
async fn set_sale(caller: &Client, variant_id: Uuid, sale: &Value) -> Answer {
    let path = format!("/v1/admin/variants/{variant_id}/sale");
    Answer::to(caller.request(Method::PUT, &path).json(sale)).await
}

/// Lets each customer have so many units of the variant.
async fn limit(app: &TestApp, variant: Variant, units: i64) {
    let sale = json!({ "purchase_limit": { "units": units } });
    set_sale(&app.staff().await, variant.id, &sale).await.assert_status(200);
}

/// Opens an account with the address, and logs in.
async fn customer_with(app: &TestApp, email: &str) -> Client {
    let address = EmailAddress::parse(email).unwrap();
    let password = Password::parse(PASSWORD).unwrap();
    let role = Role::Customer;
    identity::create_user(&app.db, &Hasher::new(1), address, password, role).await.unwrap();
    app.log_in(email, PASSWORD).await
}

/// Places the slice as a process does that remembers nothing; `placed`, or the codes of the refusals.
async fn place(app: &TestApp, slice: &[PlaceOrder]) -> Vec<&'static str> {
    let outcomes = place_orders(&app.cx, &SoldOut::default(), slice).await;
    let tell = |outcome: &Result<_, _>| match outcome {
        Ok(_) => "placed",
        Err(error) => Fault::code(error),
    };
    outcomes.iter().map(tell).collect()
}

/// What somebody wishes under a new key.
fn wish_of(owner: &Client, lines: &[(Variant, i64)]) -> PlaceOrder {
    wish(owner.id.unwrap(), &key(), lines)
}

/// How many seconds the answer asks to wait.
#[track_caller]
fn wait_of(answer: &Answer) -> u64 {
    answer.header("retry-after").unwrap().parse().unwrap()
}

/// How many of the answers have the status.
fn count(answers: &[Answer], status: u16) -> usize {
    answers.iter().filter(|answer| answer.status == status).count()
}
