//! The chain over an organization's audit log, so that a line that is changed, removed or slipped in shows.
//!
//! ~~~text
//! line 1 ─► hash 1 = SHA-256(zeros  ‖ line 1)
//! line 2 ─► hash 2 = SHA-256(hash 1 ‖ line 2)   … an export and one hash kept elsewhere prove the whole log
//! ~~~
//!
//! A line is the JSON array of [`line_of`], without spaces. Lines are linked within seconds of their commit, in the order
//! in which they are found: whoever is to change the past unseen must rewrite every link after it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::ops::{Entry, record_in_organization};
use super::{AuditRow, store};
use crate::access::{OrganizationCaller, Right};
use crate::app::App;
use crate::error::{Code, Error, Result};
use crate::id::OrganizationId;

/// Lines linked in one transaction, and links read at a time.
const ROWS: i64 = 500;
/// Organizations seen to at a time.
const ORGANIZATIONS: i32 = 50;
const ZEROS: [u8; 32] = [0; 32];

/// What the last check of a chain found.
#[derive(Debug, Clone, Serialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct Checked {
    /// When; none before the first check.
    pub checked_at: Option<DateTime<Utc>>,
    /// Links that were checked.
    pub links: Option<i64>,
    /// What is wrong, and where; none when nothing is.
    pub finding: Option<String>,
    /// The last link's number.
    pub head_seq: Option<i64>,
    /// The last link's hash, in hexadecimal: kept elsewhere it proves all before it.
    pub head_hash: Option<String>,
}

/// A link with its line, if that is there.
pub(crate) struct Linked {
    pub(crate) seq: i64,
    pub(crate) hash: Vec<u8>,
    pub(crate) line: Option<AuditRow>,
}

/// The text that is hashed: version, organization, and every field of the line, in this order.
fn line_of(organization: OrganizationId, row: &AuditRow) -> Result<String> {
    let fields = (
        1,
        organization,
        row.workspace_id,
        row.id,
        row.at.timestamp_micros(),
        &row.actor_kind,
        row.actor_id,
        &row.action,
        &row.target_kind,
        row.target_id,
        row.request_id,
        &row.changes,
    );
    serde_json::to_string(&fields)
        .map_err(|error| Error::new(Code::Internal, "an audit line cannot be written").caused_by(error))
}

fn next(before: &[u8], line: &str) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(before);
    digest.update(line.as_bytes());
    digest.finalize().into()
}

/// Links lines that have no place yet, of every organization; how many.
///
/// # Errors
/// [`Code::Database`].
pub async fn link(app: &App) -> Result<usize> {
    let mut linked = 0;
    for organization in store::to_chain(&app.db, ORGANIZATIONS).await? {
        loop {
            let mut tx = app.db.organization(organization).await?;
            let (mut seq, mut hash) = store::hold_head(&mut tx).await?.unwrap_or((0, ZEROS.to_vec()));
            let rows = store::unlinked(&mut tx, ROWS).await?;
            let mut links = Vec::with_capacity(rows.len());
            for row in &rows {
                seq += 1;
                hash = next(&hash, &line_of(organization, row)?).to_vec();
                links.push((seq, row.id, hash.clone()));
            }
            store::insert_links(&mut tx, &links).await?;
            tx.commit().await?;
            linked += links.len();
            if (links.len() as i64) < ROWS {
                break;
            }
        }
    }
    Ok(linked)
}

/// Checks the chains that were not checked for an hour; what is wrong with any of them.
///
/// # Errors
/// [`Code::Database`].
pub async fn check_due(app: &App) -> Result<Vec<(OrganizationId, String)>> {
    let mut findings = Vec::new();
    for organization in store::to_check(&app.db, ORGANIZATIONS).await? {
        findings.extend(check(app, organization).await?.map(|finding| (organization, finding)));
    }
    Ok(findings)
}

/// Checks an organization's whole chain, and writes down what it found.
///
/// # Errors
/// [`Code::Database`].
pub async fn check(app: &App, organization: OrganizationId) -> Result<Option<String>> {
    let mut tx = app.db.organization(organization).await?;
    store::hold_from_pruning(&mut tx, true).await?;
    let (mut seq, mut hash) = store::pruned(&mut tx).await?.unwrap_or((0, ZEROS.to_vec()));
    let (mut links, mut finding) = (0, None);
    while finding.is_none() {
        let page = store::links(&mut tx, seq, ROWS).await?;
        for link in &page {
            finding = wrong(organization, seq, &hash, link)?;
            if finding.is_some() {
                break;
            }
            (seq, hash) = (link.seq, link.hash.clone());
            links += 1;
        }
        if (page.len() as i64) < ROWS {
            break;
        }
    }
    if finding.is_none()
        && let Some(late) = store::left_out(&mut tx).await?
    {
        finding = Some(format!("line {late} is older than an hour and has no link"));
    }
    store::note_check(&mut tx, links, finding.as_deref()).await?;
    tx.commit().await?;
    Ok(finding)
}

/// Prunes an organization's log of what was written before a moment; how many lines. What is left is a chain still: it
/// begins with the number and the hash of the last link that went, and a line says so. The newest line stays, and one that
/// is missing or has no link stops the pruning: that is the check's to find.
///
/// # Errors
/// [`Code::Database`].
pub async fn prune(app: &App, organization: OrganizationId, before: DateTime<Utc>) -> Result<i64> {
    let (mut gone, mut reached) = (0, None);
    loop {
        let mut tx = app.db.organization(organization).await?;
        store::hold_from_pruning(&mut tx, false).await?;
        let (seq, _) = store::pruned(&mut tx).await?.unwrap_or((0, Vec::new()));
        let page = store::links(&mut tx, seq, ROWS).await?;
        let old = |link: &&Linked| link.line.as_ref().is_some_and(|line| line.at < before);
        let mut old: Vec<_> = page.iter().take_while(old).collect();
        if old.len() == page.len() && (page.len() as i64) < ROWS {
            old.pop();
        }
        let Some(last) = old.last() else { break };
        gone += store::prune(&mut tx, last.seq).await?;
        reached = Some((last.seq, last.hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>()));
        tx.commit().await?;
        if (old.len() as i64) < ROWS {
            break;
        }
    }
    if let Some((seq, hash)) = reached {
        let changes = json!({ "lines": gone, "seq": seq, "hash": hash });
        let target = organization.uuid();
        let entry = Entry { action: "audit.pruned", target_kind: "organization", target, changes };
        let mut tx = app.db.organization(organization).await?;
        record_in_organization(&mut tx, &OrganizationCaller::command(organization), entry).await?;
        tx.commit().await?;
    }
    Ok(gone)
}

fn wrong(organization: OrganizationId, seq: i64, before: &[u8], link: &Linked) -> Result<Option<String>> {
    if link.seq != seq + 1 {
        return Ok(Some(format!("links {} to {} are missing", seq + 1, link.seq - 1)));
    }
    let Some(line) = &link.line else {
        return Ok(Some(format!("the line of link {} is missing", link.seq)));
    };
    let same = next(before, &line_of(organization, line)?).as_slice() == link.hash;
    Ok((!same).then(|| format!("line {} of link {} is not what was linked", line.id, link.seq)))
}

/// What the last check found, and where the chain ends.
///
/// # Errors
/// `auth.scope_missing`.
pub async fn last_check(app: &App, caller: &OrganizationCaller) -> Result<Checked> {
    caller.may(Right::AuditRead, None)?;
    let mut tx = app.db.organization(caller.organization).await?;
    store::last_check(&mut tx).await
}
