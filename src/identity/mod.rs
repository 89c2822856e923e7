//! Identity: who asks, and what they may do.
//!
//! Owns `users`, their [`sessions`] and what belongs to their [`accounts`]. A user's e-mail address has been
//! shown to be theirs. A password is kept only as its Argon2id hash. A user proves who
//! they are with an access token that lives ten minutes and is worth nothing once its session is over
//! or the user's `token_epoch` was raised. A guest has no row: the guest token carries its own proof.

mod access;
pub mod accounts;
pub mod api;
pub mod callers;
mod error;
mod guest;
mod keys;
mod login;
mod password;
mod role;
pub mod sessions;
mod store;

pub use access::{AccessToken, Session, Tokens};
pub use api::{
    AccountsApi, AddressesApi, Admin, Callers, Customer, SessionsApi, Shopper, Staff, Visitor,
};
pub use error::IdentityError;
pub use guest::{GuestToken, GuestTokens};
pub use keys::{KeyError, KeyRing, Seed};
pub use login::{Account, authenticate, create_user, find_user, log_in, set_role};
pub use password::{Hasher, InvalidPassword, Password};
pub use role::{Role, UnknownRole};

pub use crate::kernel::EmailAddress;
