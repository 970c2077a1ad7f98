//! What may be done with the connections of an organization's sign-in.

use serde_json::json;

use super::store::{self, Changed};
use super::{SsoConnection, SsoConnectionNew, SsoConnectionPatch};
use crate::access::{OrganizationCaller, Right, Role};
use crate::app::App;
use crate::audit::ops::{Entry, record_in_organization};
use crate::db::OrganizationTx;
use crate::domain;
use crate::error::{Code, Error, Result};
use crate::id::{SecretId, SsoConnectionId, UserId};
use crate::page::{Page, PageRequest};
use crate::settings::Secret;

/// Domains that a connection speaks for, at most.
const DOMAINS_MAX: usize = 100;

/// A page of the organization's connections, newest first.
///
/// # Errors
/// `auth.scope_missing`.
pub async fn list(app: &App, caller: &OrganizationCaller, page: PageRequest) -> Result<Page<SsoConnection>> {
    caller.may(Right::SsoRead, None)?;
    let mut tx = app.db.organization(caller.organization).await?;
    Ok(Page::of(store::list(&mut tx, page).await?, page, |connection: &SsoConnection| connection.id.uuid()))
}

/// One connection.
///
/// # Errors
/// `request.not_found`, `auth.scope_missing`.
pub async fn get(app: &App, caller: &OrganizationCaller, id: SsoConnectionId) -> Result<SsoConnection> {
    caller.may(Right::SsoRead, None)?;
    let mut tx = app.db.organization(caller.organization).await?;
    store::get(&mut tx, id).await?.ok_or_else(not_found)
}

/// Makes a connection. Nobody is asked yet: the first who signs in by it shows whether it works.
///
/// # Errors
/// `auth.scope_missing`, also for a role that could do more than the caller; `request.invalid`; `request.conflict` for the
/// name; `request.not_found` for a workspace of somebody else's.
pub async fn create(app: &App, caller: &OrganizationCaller, new: &SsoConnectionNew) -> Result<SsoConnection> {
    caller.may(Right::SsoWrite, None)?;
    may_become(caller, new.default_role)?;
    let issuer = issuer(new)?;
    let id = SsoConnectionId::new();
    let mut tx = app.db.organization(caller.organization).await?;
    let domains = proved(&mut tx, &new.domains).await?;
    let made = store::insert(&mut tx, id, new, &issuer, &domains).await?;
    set_secret(app, &mut tx, id, &new.client_secret.0).await?;
    let changes = json!({
        "name": made.name, "kind": made.kind, "issuer": made.issuer, "domains": made.domains,
        "default_role": made.default_role, "default_workspace": made.default_workspace_id,
    });
    record_in_organization(&mut tx, caller, entry("sso_connection.created", id, changes)).await?;
    tx.commit().await?;
    Ok(made)
}

/// Changes what is named, if nobody has changed the connection since version `version`.
///
/// # Errors
/// As [`create`], and `request.precondition_failed`; `request.wrong_state` when it is to be enforced and no owner came in by
/// it, or nobody could come in without it.
pub async fn update(
    app: &App,
    caller: &OrganizationCaller,
    id: SsoConnectionId,
    version: i64,
    patch: &SsoConnectionPatch,
) -> Result<SsoConnection> {
    caller.may(Right::SsoWrite, None)?;
    let mut tx = app.db.organization(caller.organization).await?;
    // Held: an owner who breaks the glass stays one while this decides.
    crate::organization::store::lock(&mut tx).await?;
    let before = store::get(&mut tx, id).await?.ok_or_else(not_found)?;
    if let Some(role) = patch.default_role {
        may_become(caller, role)?;
    }
    let domains = match &patch.domains {
        Some(domains) => proved(&mut tx, domains).await?,
        None => before.domains.clone(),
    };
    if let Some(user) = patch.break_glass_user_id {
        let mut person = app.db.person(user).await?;
        if store::proofs(&mut person, caller.organization).await?.is_none() {
            return Err(Error::invalid("/break_glass_user_id", "must be an owner of the whole organization"));
        }
    }
    let enforce = patch.enforce.unwrap_or(before.enforce);
    let break_glass = patch.break_glass_user_id.or(before.break_glass_user_id);
    if enforce {
        refuse_lockout(app, caller, &before, break_glass).await?;
    }
    let changed = Changed {
        name: patch.name.as_deref().unwrap_or(&before.name).trim(),
        client_id: patch.client_id.as_deref().unwrap_or(&before.client_id).trim(),
        domains: &domains,
        default_role: patch.default_role.unwrap_or(before.default_role),
        enforce,
        break_glass,
    };
    let after = store::update(&mut tx, id, version, &changed)
        .await?
        .ok_or_else(|| Error::new(Code::PreconditionFailed, "the sign-in connection was changed meanwhile"))?;
    if let Some(secret) = &patch.client_secret {
        set_secret(app, &mut tx, id, &secret.0).await?;
    }
    let changes = json!({
        "name": patch.name, "client_id": patch.client_id, "domains": patch.domains, "default_role": patch.default_role,
        "enforce": patch.enforce, "break_glass_user": patch.break_glass_user_id,
        "client_secret": patch.client_secret.as_ref().map(|_| "changed"),
    });
    let action = match (before.enforce, after.enforce) {
        (false, true) => "sso_connection.enforced",
        (true, false) => "sso_connection.released",
        (true, true) | (false, false) => "sso_connection.updated",
    };
    record_in_organization(&mut tx, caller, entry(action, id, changes)).await?;
    tx.commit().await?;
    Ok(after)
}

/// Archives a connection: nobody comes in by it any more. Who came in by it stays.
///
/// # Errors
/// `auth.scope_missing`, `request.not_found`; `request.wrong_state` while it is enforced.
pub async fn archive(app: &App, caller: &OrganizationCaller, id: SsoConnectionId) -> Result<()> {
    caller.may(Right::SsoWrite, None)?;
    let mut tx = app.db.organization(caller.organization).await?;
    let before = store::get(&mut tx, id).await?.ok_or_else(not_found)?;
    if before.enforce {
        return Err(Error::new(Code::WrongState, "the connection is enforced; release the organization first"));
    }
    store::archive(&mut tx, id).await?;
    record_in_organization(&mut tx, caller, entry("sso_connection.archived", id, json!({}))).await?;
    tx.commit().await
}

/// Opens an organization for passwords again; how many connections were enforced. For the command line, when nobody comes
/// in any more.
///
/// # Errors
/// `auth.scope_missing`.
pub async fn release(app: &App, caller: &OrganizationCaller) -> Result<usize> {
    caller.may(Right::SsoWrite, None)?;
    let mut tx = app.db.organization(caller.organization).await?;
    let released = store::release(&mut tx).await?;
    for id in &released {
        record_in_organization(&mut tx, caller, entry("sso_connection.released", *id, json!({ "enforce": false })))
            .await?;
    }
    tx.commit().await?;
    Ok(released.len())
}

/// Nobody comes to own an organization by an issuer's word alone, nor to do more than the one who says so.
fn may_become(caller: &OrganizationCaller, role: Role) -> Result<()> {
    if role == Role::Owner {
        return Err(Error::invalid("/default_role", "must be among viewer, operator, editor, admin"));
    }
    caller.may_give(role)
}

fn issuer(new: &SsoConnectionNew) -> Result<String> {
    let wrong = |told: &str| Error::invalid("/issuer", told);
    let issuer = new.issuer.as_deref().map(str::trim).filter(|issuer| !issuer.is_empty());
    let issuer = match (new.kind, issuer) {
        (super::SsoKind::Google, Some(issuer)) if Some(issuer) != new.kind.usual_issuer() => {
            return Err(wrong("must be Google's own, or not given"));
        }
        (_, Some(issuer)) => issuer,
        (kind, None) => kind.usual_issuer().ok_or_else(|| wrong("must be given"))?,
    };
    let told = "must be an address of the form https://host/path, as the issuer's metadata say it";
    let url = super::dial::parse(issuer).map_err(|_| wrong(told))?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong(told));
    }
    // OpenID Connect takes it to the letter; of GitHub's server it is a prefix.
    let issuer = match new.kind {
        super::SsoKind::Github => issuer.trim_end_matches('/'),
        super::SsoKind::Oidc | super::SsoKind::Google => issuer,
    };
    Ok(issuer.to_owned())
}

/// The domains, each of them the organization's.
async fn proved(tx: &mut OrganizationTx, domains: &[String]) -> Result<Vec<String>> {
    if domains.len() > DOMAINS_MAX {
        return Err(Error::invalid("/domains", format!("must be {DOMAINS_MAX} at most")));
    }
    let mut domains: Vec<_> = domains.iter().map(|domain| domain.trim().to_ascii_lowercase()).collect();
    domains.sort();
    domains.dedup();
    let known = domain::store::verified(tx, &domains).await?;
    match domains.iter().find(|domain| !known.contains(domain)) {
        None => Ok(domains),
        Some(_) => Err(Error::invalid("/domains", "must be proved domains of the organization")),
    }
}

/// Before the issuer's word is asked for, an owner must have come in by it, and another must be able to come in without it.
async fn refuse_lockout(
    app: &App,
    caller: &OrganizationCaller,
    connection: &SsoConnection,
    break_glass: Option<UserId>,
) -> Result<()> {
    let wrong = |told: &str| Err(Error::new(Code::WrongState, told));
    if connection.owner_signed_in_at.is_none() {
        return wrong("no owner has signed in by this connection yet; one who has shows that it works");
    }
    let Some(user) = break_glass else {
        return wrong("nobody could come in when the issuer fails; name an owner in `break_glass_user_id`");
    };
    let mut person = app.db.person(user).await?;
    match store::proofs(&mut person, caller.organization).await? {
        None => wrong("the one who is to come in when the issuer fails is no owner of the organization"),
        // What is set while the address is not proved is forgotten when an issuer proves it.
        Some(owner) if !owner.has_proved_address => wrong(
            "the owner who is to come in when the issuer fails needs a proved address first: by mail, or by linking",
        ),
        Some(owner) if owner.has_password && owner.has_second_factor => Ok(()),
        Some(_) => {
            wrong("the owner who is to come in when the issuer fails needs a password and a second factor first")
        }
    }
}

async fn set_secret(app: &App, tx: &mut OrganizationTx, connection: SsoConnectionId, secret: &Secret) -> Result<()> {
    let text = secret.expose().trim();
    if text.is_empty() || text.len() > 1_000 {
        return Err(Error::invalid("/client_secret", "must have 1 to 1000 characters"));
    }
    let id = SecretId::new();
    let sealed = app.vault.seal(tx.organization(), id, text)?;
    store::set_secret(tx, connection, id, &sealed).await
}

/// The client's secret. Where people sign in, like their second factors, and nowhere else.
pub(super) async fn open_secret(app: &App, tx: &mut OrganizationTx, connection: SsoConnectionId) -> Result<Secret> {
    let row = store::secret(tx, connection).await?.ok_or_else(not_found)?;
    let text = app.vault.open(tx.organization(), row.id, &row.sealed)?;
    Ok(text.parse().unwrap_or_default())
}

fn not_found() -> Error {
    Error::not_found("sign-in connection")
}

fn entry(action: &str, id: SsoConnectionId, changes: serde_json::Value) -> Entry<'_> {
    Entry { action, target_kind: "sso_connection", target: id.uuid(), changes }
}
