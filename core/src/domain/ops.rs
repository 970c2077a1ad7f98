//! What may be done with domains.

use serde_json::json;

use super::{Domain, dns, store};
use crate::access::{OrganizationCaller, Right};
use crate::app::App;
use crate::audit::ops::{Entry, record_in_organization};
use crate::error::{Code, Error, Result};
use crate::id::DomainId;
use crate::key_text;
use crate::page::{Page, PageRequest};

/// A page of the organization's domains, newest first.
///
/// # Errors
/// `auth.scope_missing`.
pub async fn list(app: &App, caller: &OrganizationCaller, page: PageRequest) -> Result<Page<Domain>> {
    caller.may(Right::SsoRead, None)?;
    let mut tx = app.db.organization(caller.organization).await?;
    Ok(Page::of(store::list(&mut tx, page).await?, page, |domain: &Domain| domain.id.uuid()))
}

/// One domain.
///
/// # Errors
/// `request.not_found`, `auth.scope_missing`.
pub async fn get(app: &App, caller: &OrganizationCaller, id: DomainId) -> Result<Domain> {
    caller.may(Right::SsoRead, None)?;
    let mut tx = app.db.organization(caller.organization).await?;
    store::get(&mut tx, id).await?.ok_or_else(|| Error::not_found("domain"))
}

/// Claims a domain; it says nothing yet.
///
/// # Errors
/// `auth.scope_missing`; `request.invalid` for no domain; `request.conflict` when it is claimed already.
pub async fn claim(app: &App, caller: &OrganizationCaller, name: &str) -> Result<Domain> {
    caller.may(Right::SsoWrite, None)?;
    let name = normal(name);
    let mut tx = app.db.organization(caller.organization).await?;
    let domain = store::insert(&mut tx, DomainId::new(), &name, key_text::draw_word().expose()).await?;
    record_in_organization(&mut tx, caller, entry("domain.claimed", domain.id, json!({ "name": name }))).await?;
    tx.commit().await?;
    Ok(domain)
}

/// Looks for the proof, and has the organization have the domain. Harmless when repeated.
///
/// # Errors
/// `auth.scope_missing`, `request.not_found`; `domain.unproved` without the record; `request.conflict` when another
/// organization proved it first.
pub async fn verify(app: &App, caller: &OrganizationCaller, id: DomainId) -> Result<Domain> {
    caller.may(Right::SsoWrite, None)?;
    let domain = get(app, caller, id).await?;
    if domain.verified_at.is_some() {
        return Ok(domain);
    }
    // No transaction is open while somebody else is asked.
    let texts = dns::texts(&app.settings.dns_server, &domain.record_name).await?;
    if !texts.iter().any(|text| text.trim() == domain.record_text) {
        let told = format!("no TXT record at `{}` says `{}`", domain.record_name, domain.record_text);
        return Err(Error::new(Code::DomainUnproved, told));
    }
    set_verified(app, caller, &domain, "dns").await
}

/// Takes the word of whoever runs the installation for it; claims the domain first if nobody did. For the command line.
///
/// # Errors
/// `auth.scope_missing`; `request.conflict` when it is another organization's.
pub async fn verify_by_hand(app: &App, caller: &OrganizationCaller, name: &str) -> Result<Domain> {
    caller.may(Right::SsoWrite, None)?;
    let mut tx = app.db.organization(caller.organization).await?;
    let found = store::find(&mut tx, &normal(name)).await?;
    drop(tx);
    let domain = match found {
        Some(domain) => domain,
        None => claim(app, caller, name).await?,
    };
    if domain.verified_at.is_some() {
        return Ok(domain);
    }
    set_verified(app, caller, &domain, "command").await
}

/// As it is kept: in lower case, without a dot at its end.
fn normal(name: &str) -> String {
    name.trim().trim_end_matches('.').to_ascii_lowercase()
}

async fn set_verified(app: &App, caller: &OrganizationCaller, domain: &Domain, by: &str) -> Result<Domain> {
    let mut tx = app.db.organization(caller.organization).await?;
    let verified = store::set_verified(&mut tx, domain.id).await?.ok_or_else(|| Error::not_found("domain"))?;
    let changes = json!({ "name": domain.name, "by": by });
    record_in_organization(&mut tx, caller, entry("domain.verified", domain.id, changes)).await?;
    tx.commit().await?;
    Ok(verified)
}

/// Gives a domain up: no issuer's word counts for it any more. Harmless to those who are known already.
///
/// # Errors
/// `auth.scope_missing`, `request.not_found`; `request.in_use` while a connection names it.
pub async fn delete(app: &App, caller: &OrganizationCaller, id: DomainId) -> Result<()> {
    caller.may(Right::SsoWrite, None)?;
    let mut tx = app.db.organization(caller.organization).await?;
    let domain = store::get(&mut tx, id).await?.ok_or_else(|| Error::not_found("domain"))?;
    let used_by = store::used_by(&mut tx, &domain.name).await?;
    if !used_by.is_empty() {
        let told = format!("the domain is named by the sign-in connections {}", used_by.join(", "));
        return Err(Error::new(Code::InUse, told));
    }
    store::delete(&mut tx, id).await?;
    record_in_organization(&mut tx, caller, entry("domain.deleted", id, json!({ "name": domain.name }))).await?;
    tx.commit().await
}

fn entry(action: &str, id: DomainId, changes: serde_json::Value) -> Entry<'_> {
    Entry { action, target_kind: "domain", target: id.uuid(), changes }
}
