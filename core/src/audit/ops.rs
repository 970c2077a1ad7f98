//! Writing the audit log.

use serde_json::Value;
use uuid::Uuid;

use super::store;
use crate::access::Caller;
use crate::db::TenantTx;
use crate::error::Result;

/// One line: `connection.created` on a target, with the changes that its kind's allow-list lets through.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Noun and deed.
    pub action: &'a str,
    /// The noun.
    pub target_kind: &'a str,
    /// The row.
    pub target: Uuid,
    /// What changed; never a secret, a row value or a model's SQL.
    pub changes: Value,
}

/// Writes one line in the deed's own transaction: there is no deed without its line.
///
/// # Errors
/// [`crate::error::Code::Database`].
pub async fn record(tx: &mut TenantTx, caller: &Caller, entry: Entry<'_>) -> Result<()> {
    store::insert(tx, caller, entry).await
}
