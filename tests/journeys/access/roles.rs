//! Every operation, asked by every kind of caller.

use std::fmt::Write;

use holdfast::{identity::Role, web::policy::Who};

use super::{Operation, nothing, unknown};
use crate::support::{
    app::TestApp,
    client::{Answer, Client},
};

/// A kind of caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    Nobody,
    Forger,
    Guest,
    Customer,
    Staff,
    Admin,
}

impl Caller {
    const ALL: [Self; 6] =
        [Self::Nobody, Self::Forger, Self::Guest, Self::Customer, Self::Staff, Self::Admin];

    /// Somebody new: an operation may end the session of whoever asks it.
    async fn appear(self, app: &TestApp) -> Client {
        match self {
            Self::Nobody => app.anybody(),
            Self::Forger => app.anybody().with_token("eyJhbGciOiJub25lIn0.e30.", None),
            Self::Guest => app.guest().await,
            Self::Customer => app.somebody(Role::Customer).await,
            Self::Staff => app.somebody(Role::Staff).await,
            Self::Admin => app.somebody(Role::Admin).await,
        }
    }

    fn is_user(self) -> bool {
        matches!(self, Self::Customer | Self::Staff | Self::Admin)
    }

    /// The status with which the caller is turned away from the operation.
    fn refusal(self, operation: &Operation) -> Option<u16> {
        let may = match operation.who {
            Who::Anyone | Who::Provider => return None,
            // An access token ends its session, too.
            Who::RefreshToken if operation.id == "logOut" => self.is_user(),
            // And is no refresh token, whoever brings it.
            Who::RefreshToken => return Some(401),
            Who::Shopper => !matches!(self, Self::Nobody | Self::Forger),
            Who::Customer => self.is_user(),
            Who::Staff => matches!(self, Self::Staff | Self::Admin),
            Who::Admin => self == Self::Admin,
        };
        match self {
            _ if may => None,
            Self::Nobody | Self::Forger => Some(401),
            Self::Guest | Self::Customer | Self::Staff | Self::Admin => Some(403),
        }
    }
}

#[tokio::test]
async fn api5_every_operation_is_open_to_those_it_is_declared_for_and_to_nobody_else() {
    TestApp::run(async |app| {
        let mut wrong = String::new();
        for operation in Operation::all() {
            for caller in Caller::ALL {
                let client = caller.appear(app).await;
                let answer = Answer::to(operation.ask(&client, &unknown(), &nothing())).await;
                let is_right = match caller.refusal(&operation) {
                    Some(status) => answer.status == status,
                    None if operation.who == Who::Provider => (400..500).contains(&answer.status),
                    None => answer.status < 500 && !matches!(answer.status, 401 | 403),
                };
                if !is_right {
                    let (id, who) = (&operation.id, operation.who);
                    writeln!(wrong, "{id} is for {who:?} and told {caller:?}: {}", answer.status)
                        .unwrap();
                }
            }
        }

        assert!(wrong.is_empty(), "{wrong}");
        app.expect_unfinished_jobs();
    })
    .await;
}

#[test]
fn the_table_of_who_may_do_what_is_this_one() {
    let mut table: Vec<_> = Operation::all()
        .iter()
        .map(|operation| format!("{:?}: {} {}", operation.who, operation.method, operation.path))
        .collect();
    table.sort();

    insta::assert_snapshot!(table.join("\n"));
}
