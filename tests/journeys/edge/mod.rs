//! Programs that call the API: well, badly, too often, and with ill will.

mod bad_input;
mod callers;
mod document;
mod errors;
mod overload;
