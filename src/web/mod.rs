//! The HTTP edge: what every endpoint shares and no slice owns.

pub mod address;
pub mod admission;
mod body;
mod client;
pub mod cors;
pub mod document;
pub mod edge;
pub mod etag;
mod gate;
mod head;
pub mod limits;
pub mod money;
pub mod page;
pub mod policy;
pub mod problem;
mod refusal;
pub mod request_id;
pub mod server;

pub use address::AddressBody;
pub use admission::Admission;
pub use client::TrustedProxies;
pub use cors::Origins;
pub use document::Document;
pub use edge::{Edge, Patience};
pub use etag::ETag;
pub use limits::Limits;
pub use money::MoneyBody;
pub use problem::Problem;

#[cfg(test)]
mod tests;
