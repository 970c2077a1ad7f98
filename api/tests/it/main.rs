//! The API through HTTP, over a database of its own and the real connectors' forms.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cast;
mod client;
mod document;
mod health;
mod keys;
mod manners;
mod matrix;
mod objects;
mod people;
mod strangers;
mod usage;
mod walk;
