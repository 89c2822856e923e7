//! Notifications: the mails that tell a shopper what happened to an order, and a user what happens to their
//! account.
//!
//! Owns `deliveries`. A mail is asked for by a job that was staged in the transaction of its cause;
//! per cause and template there is one delivery, with one Message-ID, and a server's yes to it is
//! noted once. Only a crash between that yes and our note of it makes a second mail, with the
//! same Message-ID. A mail that is no longer true when its turn comes is not sent.
//!
//! A delivery names its recipient: one about an account for 30 days, one about an order for as long as the
//! order does.

mod account;
mod deliver;
mod error;
mod render;
pub mod store;
pub mod work;

pub use account::purge;
pub use error::NotificationError;
use render::Template;
