//! Accounts: how one is opened, won back, changed and given up.
//!
//! Owns `addresses`, `account_requests`, `account_tokens` and `erased_accounts`. Every user's e-mail address has
//! been shown to be theirs: what only its owner may do is first a request, and the mailer sends a token
//! that proves it. Whether an address has an account is told to nobody but its owner: asking does the same
//! work and gets the same answer either way, and only the mail differs.

mod addresses;
mod change;
mod erase;
mod errand;
mod register;
mod request;
mod reset;
mod store;
mod token;

pub use addresses::{
    ADDRESSES_MAX, Address, NewAddress, add_address, change_address, find_address, list_addresses,
    remove_address,
};
pub use change::{
    DisplayName, InvalidName, Passwords, Profile, change_email, change_password, confirm_email,
    find_profile, rename,
};
pub use erase::{Leaving, erase, leave, lock};
pub use errand::{Enclosed, Errand, News, email_before, find_errand};
pub use register::{Proven, open_account, prove, register};
pub use request::purge;
pub use reset::{ask_reset, reset_password};
pub use token::MailToken;
