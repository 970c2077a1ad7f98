//! The API through HTTP, over a database of its own and the real connectors' forms.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cast;
mod client;
mod deletion;
mod document;
mod feed;
mod keys;
mod limits;
mod manners;
mod matrix;
mod objects;
mod people;
mod retention;
mod strangers;
mod usage;
mod walk;
