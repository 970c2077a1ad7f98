//! The contract between Freshet and the outside: what a source, a destination and a format promise.
//!
//! ~~~text
//!             Sink::push(change)            Lane::send(chunk, progress)
//! Source ───────────────────────► pipeline ───────────────────────────► Destination
//!         rows of cells, no tree      │  ▲          one transaction
//!                                     ▼  │ bytes
//!                                    Format
//! ~~~
//!
//! Three promises carry exactly-once delivery; a kind that cannot keep one refuses, it never guesses.
//!
//! 1. **A source reads a batch again identically, or from a token on.** [`Source::seal`] fixes what
//!    the batch is; [`Source::read`] yields its changes in a total order, and each token it hands to
//!    [`Sink::flush`] is a place from which a later `read` goes on without a gap or a repeat.
//! 2. **A destination writes a chunk and its progress record together or not at all**, and
//!    [`Lane::fence`] keeps every earlier producer of the lane from writing afterwards.
//! 3. **A format is a pure function** of row and options: the same change gives the same bytes.
//!
//! Only the worker opens connectors. The API knows them through [`Registry`]: names, form fields and
//! the parsing of settings.

mod destination;
mod field;
mod format;
mod record;
mod registry;
mod sign_in;
mod source;

pub use destination::{
    Chunk, Destination, DestinationKind, Guarantee, Header, Lane, LaneSpec, Message, PartitionRange, Prepared,
    Progress, Receipt, Target, TopicCreate, TopicLook, TopicPlan,
};
pub use field::{Choice, Field, FieldKind, KEPT_SECRET, Step, StepState};
pub use format::{ChangeMeta, EncodeError, EncodePlan, Encoder, Envelope, FormatKind, KeyForm, NumberForm};
pub use record::{Cell, Change, Column, Kind, Op, Row, Schema, Span};
pub use registry::{DestinationEntry, FormatEntry, Registry, SourceEntry};
pub use sign_in::{Consent, DrawnKey, Granted, LockedSecret, SecretKeeper};
pub use source::{
    Ahead, BatchName, Catalogue, CatalogueColumn, CatalogueTable, DuplicateKeys, Flow, KeyCheck, MadeStream, ModelSpec,
    NewStream, Note, Preview, ReadEnd, ReadMode, ReadPlan, ReadRequest, SealRequest, Sealed, Sink, Source, SourceKind,
    SourceQuery, StreamBase, StreamFacts, StreamOn,
};
