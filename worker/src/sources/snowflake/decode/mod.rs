//! From the bytes of an answer to rows of cells: one pass, no tree, in pieces of any size.
//!
//! ~~~text
//! gzip pieces ─► Inflater ─► Scanner ─► Row (cells, texts in its one buffer)
//!                            `[["1","a",null],…]` or `{"data":[…],"code":"090001",…}`
//! ~~~
//!
//! A cell arrives as a JSON string or null, whatever its type; [`CellType`] says how its text becomes a
//! cell. A byte that does not belong where it stands fails the partition: it is never taken for its end.

mod cell;
#[cfg(test)]
mod fuzz;
mod inflate;
mod scan;
mod text;

pub use cell::{CellType, RowType};
pub use inflate::Inflater;
pub use scan::{Event, Scanner};

/// An answer that breaks the contract: where, and what was expected there. Holds no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{expected} expected at byte {at}")]
pub struct Malformed {
    /// What should have stood there.
    pub expected: &'static str,
    /// Bytes of the answer before it, inflated.
    pub at: u64,
    /// The place of the column, where it was a cell's text that is no value of its type.
    pub column: Option<usize>,
}
