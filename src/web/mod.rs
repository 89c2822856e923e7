//! The HTTP edge: what every endpoint shares and no slice owns.

mod body;
pub mod document;
pub mod edge;
pub mod etag;
pub mod money;
pub mod page;
pub mod problem;
mod refusal;
pub mod request_id;
pub mod server;
mod stall;

pub use document::Document;
pub use edge::{Edge, Patience};
pub use etag::ETag;
pub use money::MoneyBody;
pub use problem::Problem;

#[cfg(test)]
mod tests;
