//! Identity: who asks, and what they may do.
//!
//! Owns `users`. A password is kept only as its Argon2id hash. A user proves who they are with an
//! access token that lives ten minutes; raising the user's `token_epoch` makes every token issued
//! before worthless within [`VERIFIED_FOR`]. A guest has no row: the guest token carries its own proof.

mod access;
pub mod api;
mod error;
mod guest;
mod keys;
mod login;
mod password;
mod role;
mod store;

pub use access::{AccessToken, Session, Tokens, VERIFIED_FOR};
pub use api::{Admin, AuthApi, Callers, Customer, Shopper, Staff, Visitor};
pub use error::IdentityError;
pub use guest::{GuestToken, GuestTokens};
pub use keys::{KeyError, KeyRing, Seed};
pub use login::{Account, create_user, find_user, log_in, set_role};
pub use password::{Hasher, InvalidPassword, Password};
pub use role::{Role, UnknownRole};

pub use crate::kernel::EmailAddress;
