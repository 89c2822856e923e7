//! Paying, as a shopper's browser does it: asked again until the answer is known.

use std::time::{Duration, Instant};

use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use simulator::providers::{Checkout, Provider};
use uuid::Uuid;

use super::{Client, Head, PAUSE, PERSISTENCE, chain};
use crate::ledger::{PaymentAnswer, PlacedOrder, ToldPayment, Wish};

/// To pay one order with one provider: repeated under one key.
#[derive(Debug, Clone)]
pub(crate) struct Intention {
    pub(crate) order_id: Uuid,
    pub(crate) provider: Provider,
    pub(crate) key: String,
}

impl Intention {
    pub(crate) fn new(order: &PlacedOrder, provider: Provider) -> Self {
        Self { order_id: order.id, provider, key: format!("payment-{}", Uuid::now_v7()) }
    }
}

/// What a browser asks of a payment.
#[derive(Clone, Copy)]
enum Question<'a> {
    Open(&'a Intention),
    Confirm(Uuid, Option<&'a Checkout>),
}

impl Question<'_> {
    /// The key or the id that the answers are compared by.
    fn about(self) -> String {
        match self {
            Self::Open(intention) => intention.key.clone(),
            Self::Confirm(payment_id, _) => payment_id.to_string(),
        }
    }
}

impl Client {
    /// Asks once for a payment to be opened, and notes the answer.
    pub(crate) async fn ask_to_pay(&self, wish: &Wish, intention: &Intention) -> PaymentAnswer {
        self.ask_of_payment(wish, Question::Open(intention)).await.0
    }

    /// Asks for a payment to be opened until the outcome is known.
    pub(crate) async fn open_payment(&self, wish: &Wish, intention: &Intention) -> PaymentAnswer {
        self.insist(wish, Question::Open(intention)).await
    }

    /// Opens a payment and expects that the shopper can pay; names it as the provider does, too.
    pub(crate) async fn pays_with(
        &self,
        wish: &Wish,
        order: &PlacedOrder,
        provider: Provider,
    ) -> (ToldPayment, String) {
        let answer = self.open_payment(wish, &Intention::new(order, provider)).await;
        let payment = answer.told().unwrap_or_else(|| panic!("not opened: {answer:?}")).clone();
        let reference = payment.reference.clone().expect("the shopper can pay");
        (payment, reference)
    }

    /// Confirms the payment once, as the browser does after the provider's part, and notes the answer.
    pub(crate) async fn ask_to_confirm(
        &self,
        wish: &Wish,
        payment_id: Uuid,
        proof: Option<&Checkout>,
    ) -> PaymentAnswer {
        self.ask_of_payment(wish, Question::Confirm(payment_id, proof)).await.0
    }

    /// Confirms the payment until the outcome is known.
    pub(crate) async fn confirm(
        &self,
        wish: &Wish,
        payment_id: Uuid,
        proof: Option<&Checkout>,
    ) -> PaymentAnswer {
        self.insist(wish, Question::Confirm(payment_id, proof)).await
    }

    async fn insist(&self, wish: &Wish, question: Question<'_>) -> PaymentAnswer {
        let begun = Instant::now();
        loop {
            let (answer, pause) = self.ask_of_payment(wish, question).await;
            if answer.is_final() {
                return answer;
            }
            assert!(begun.elapsed() < PERSISTENCE, "still no answer but {answer:?}");
            tokio::time::sleep(pause).await;
        }
    }

    async fn ask_of_payment(
        &self,
        wish: &Wish,
        question: Question<'_>,
    ) -> (PaymentAnswer, Duration) {
        let request = self.payment_request(question).bearer_auth(&wish.token);
        let (answer, pause) = match request.send().await {
            Ok(response) => self.read_payment(response).await,
            Err(error) => (PaymentAnswer::Lost(chain(&error)), PAUSE),
        };
        self.ledger.note_payment(wish, &question.about(), &answer);
        (answer, pause)
    }

    fn payment_request(&self, question: Question<'_>) -> RequestBuilder {
        let api = self.next_api();
        match question {
            Question::Open(Intention { order_id, provider, key }) => self
                .http
                .post(format!("http://{api}/v1/orders/{order_id}/payments"))
                .header("Idempotency-Key", key)
                .json(&json!({ "provider": provider.name() })),
            Question::Confirm(payment_id, proof) => {
                let body = proof.map_or_else(|| json!({}), proof_body);
                self.http.post(format!("http://{api}/v1/payments/{payment_id}/confirm")).json(&body)
            }
        }
    }

    async fn read_payment(&self, response: Response) -> (PaymentAnswer, Duration) {
        let head = Head::of(&response);
        let body: Value = match response.json().await {
            Ok(body) => body,
            Err(error) => return (PaymentAnswer::Lost(chain(&error)), PAUSE),
        };
        let code = body["code"].as_str().unwrap_or_default().to_owned();
        let answer = match (head.status, code.as_str()) {
            (StatusCode::OK | StatusCode::CREATED, _) => match read(&body) {
                Some(payment) => PaymentAnswer::Told(payment),
                None => PaymentAnswer::Refused(head.status.as_u16(), format!("unreadable: {body}")),
            },
            (StatusCode::CONFLICT, "request-in-flight") | (StatusCode::SERVICE_UNAVAILABLE, _) => {
                PaymentAnswer::Later(code)
            }
            (status, _) => PaymentAnswer::Refused(status.as_u16(), code),
        };
        if head.status.is_server_error() && head.status != StatusCode::SERVICE_UNAVAILABLE {
            self.ledger.note_breach(format!("a payment was answered {}: {body}", head.status));
        }
        let must_say_when = matches!(answer, PaymentAnswer::Later(_));
        (answer, self.pause(&head, must_say_when, &body))
    }
}

fn proof_body(proof: &Checkout) -> Value {
    json!({ "razorpay": {
        "payment_id": proof.razorpay_payment_id,
        "signature": proof.razorpay_signature,
    } })
}

fn read(body: &Value) -> Option<ToldPayment> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let reference = [&body["stripe"]["payment_intent_id"], &body["razorpay"]["order_id"]];
    Some(ToldPayment {
        id: body["id"].as_str()?.parse().ok()?,
        state: text(&body["state"])?,
        order_status: text(&body["order_status"])?,
        reference: reference.into_iter().find_map(text),
    })
}
