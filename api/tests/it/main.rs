//! The API through HTTP, over a database of its own and the real connectors' forms.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod attacks;
mod cast;
mod client;
mod deletion;
mod document;
mod egress;
mod examples;
mod feed;
mod health;
mod keys;
mod limits;
mod manners;
mod matrix;
mod objects;
mod people;
mod retention;
mod routes;
mod strangers;
mod table;
mod usage;
mod walk;
