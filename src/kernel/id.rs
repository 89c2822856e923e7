//! Identifiers: one type each, so that an order's id cannot be passed where a variant's is meant.

use std::fmt;

use uuid::Uuid;

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, sqlx::Type)]
        #[sqlx(transparent, no_pg_array)]
        pub struct $name(Uuid);

        impl $name {
            /// Makes an id that sorts after those made before it (version 7 of RFC 9562).
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            pub const fn of(uuid: Uuid) -> Self {
                Self(uuid)
            }

            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )+};
}

id! {
    /// Somebody with a login.
    UserId,
    /// A shopper without a login; known by a token alone.
    GuestId,
    /// One login of a user.
    SessionId,
    /// Whoever placed an order: a user or a guest.
    OwnerId,
    ProductId,
    VariantId,
    OrderId,
    /// One attempt to pay one order.
    PaymentId,
    /// Money that goes back to a shopper.
    RefundId,
    /// A webhook in the inbox.
    EventId,
}

impl From<UserId> for OwnerId {
    fn from(id: UserId) -> Self {
        Self(id.0)
    }
}

impl From<GuestId> for OwnerId {
    fn from(id: GuestId) -> Self {
        Self(id.0)
    }
}
