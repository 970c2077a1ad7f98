//! Signing in and out.

use chrono::TimeDelta;
use serde_json::json;

use super::store::{self, InsertSession};
use super::{Begun, Known, Origin, Session, Vouched};
use crate::access::{OrganizationCaller, Right};
use crate::app::App;
use crate::audit::ops::{Entry, record_in_organization};
use crate::db::PersonTx;
use crate::error::{Code, Error, Result};
use crate::id::{OrganizationId, RequestId, SessionId, UserId};
use crate::key_text;
use crate::mail::Mail;
use crate::organization;
use crate::settings::Secret;
use crate::user::{self, hash_password, ops as person, verify_password};

/// How long the second factor may take.
const PENDING_MINUTES: i64 = 10;

/// Signs a person in by address and password. A wrong address, a wrong password and a disabled person get one and the
/// same answer, after the same time.
///
/// # Errors
/// `auth.sign_in_refused`; `request.limited` after many failures; `auth.address_unproved` where there is mail and the address
/// was not proved: another mail is sent.
pub async fn sign_in(app: &App, email: &str, password: &Secret, origin: &Origin) -> Result<Begun> {
    let email = email.trim();
    let key = key_text::hash(&format!("sign-in of {}", email.to_lowercase()));
    person::refuse_too_soon(app, &key).await?;
    let found = user::store::find(&app.db, email).await?.filter(|found| !found.disabled);
    let stored = match &found {
        Some(found) => {
            let mut tx = app.db.person(found.id).await?;
            user::store::password(&mut tx).await?
        }
        None => None,
    };
    let same = verify_password(password, stored).await?;
    user::store::note_sign_in(&app.db, &key, same).await?;
    let Some(found) = found.filter(|_| same) else {
        return Err(Error::new(Code::SignInRefused, "address or password is wrong"));
    };
    let known = person::get(app, found.id).await?;
    if known.email_verified_at.is_none() && app.mailer.is_there() {
        person::send_verification(app, found.id).await?;
        let told = "the address is not proved yet; a mail with a link is on its way";
        return Err(Error::new(Code::AddressUnproved, told));
    }
    refuse_barred(&mut app.db.person(found.id).await?).await?;
    begin(app, found.id, &["pwd"], known.has_second_factor, origin, &Vouched::default()).await
}

/// Refuses a password that opens nothing: every organization of the person takes its own issuer's word alone.
async fn refuse_barred(tx: &mut PersonTx) -> Result<()> {
    if user::store::password_use(tx, &[]).await?.is_barred {
        return Err(Error::new(Code::SsoRequired, "your organization takes its own issuer's word alone"));
    }
    Ok(())
}

/// Opens a pending session by a code of the second factor or a recovery code; it gets another token.
///
/// # Errors
/// `auth.code_refused`; `auth.sign_in_refused` when the token is of no pending session; `request.limited`.
pub async fn give_code(app: &App, token: &Secret, code: &str, origin: &Origin) -> Result<Begun> {
    let refused = || Error::new(Code::SignInRefused, "the time for the second factor is over; sign in again");
    let found = store::find(&app.db, &key_text::hash(token.expose())).await?;
    let found = found.filter(|found| found.pending).ok_or_else(refused)?;
    let method = person::take_code(app, found.user_id, code).await?;
    let mut tx = app.db.person(found.user_id).await?;
    let first = store::get(&mut tx, found.id).await?.ok_or_else(refused)?;
    let vouched = store::vouched(&mut tx, found.id).await?;
    store::revoke(&mut tx, found.id).await?;
    tx.commit().await?;
    let mut amr: Vec<_> = first.amr.iter().map(String::as_str).collect();
    amr.push(method);
    begin(app, found.user_id, &amr, false, origin, &vouched).await
}

/// Begins a session of a person who has proved who they are by `amr`.
pub(crate) async fn begin(
    app: &App,
    user: UserId,
    amr: &[&str],
    pending: bool,
    origin: &Origin,
    vouched: &Vouched,
) -> Result<Begun> {
    let mut tx = app.db.person(user).await?;
    let (idle_hours, hours) = store::hours(&mut tx).await?;
    let span = if pending { TimeDelta::minutes(PENDING_MINUTES) } else { TimeDelta::hours(hours.into()) };
    let (token, expires_at) = (key_text::draw_word(), app.clock.now() + span);
    let hash = key_text::hash(token.expose());
    let id = SessionId::new();
    let origin = Origin {
        user_agent: origin
            .user_agent
            .as_ref()
            .map(|text| text.chars().filter(|letter| !letter.is_control()).take(300).collect()),
        ..origin.clone()
    };
    let insert = InsertSession { id, hash: &hash, pending, amr, idle_hours, expires_at, origin: &origin, vouched };
    store::insert(&mut tx, &insert).await?;
    let glass = user::store::password_use(&mut tx, &vouched.connections).await?.breaks_glass_of;
    tx.commit().await?;
    if !pending {
        let changes = json!({
            "session": id, "amr": amr, "ip": origin.ip, "sso_connections": vouched.connections,
        });
        person::told_of(app, user, origin.request, "user.signed_in", &changes).await?;
        if amr.contains(&"pwd") {
            for organization in glass {
                tell_broken_glass(app, user, organization, id, &origin).await?;
            }
        }
    }
    Ok(Begun { user, token, pending, expires_at })
}

/// An owner came in past the issuer: the log says so loudly, and every owner gets a mail.
async fn tell_broken_glass(
    app: &App,
    user: UserId,
    organization: OrganizationId,
    session: SessionId,
    origin: &Origin,
) -> Result<()> {
    tracing::warn!(user.id = %user, organization.id = %organization, "the glass was broken: an owner came in by password");
    let who = person::get(app, user).await?;
    let mut tx = app.db.organization(organization).await?;
    let actor = crate::access::Actor::User { user, by: crate::access::Credential::Session(session) };
    let mut caller = OrganizationCaller::new(organization, actor, Vec::<Right>::new());
    caller.request = origin.request;
    let changes = json!({ "session": session, "ip": origin.ip });
    let entry = Entry { action: "sso.glass_broken", target_kind: "user", target: user.uuid(), changes };
    record_in_organization(&mut tx, &caller, entry).await?;
    let name = organization::store::get(&mut tx).await?.name;
    let owners = store::owners(&mut tx).await?;
    tx.commit().await?;
    let subject = format!("Somebody broke the glass of {}", name.replace(char::is_control, " "));
    let text = format!(
        "{} signed in to {name} on Freshet by password, past the issuer that {name} otherwise asks for.\n\n\
         From: {}\n\nIf this was not agreed on, end their sessions, and change who may break the glass.\n",
        who.email,
        origin.ip.as_deref().unwrap_or("unknown"),
    );
    for to in owners {
        app.mailer.send(Mail { to, subject: subject.clone(), text: text.clone() });
    }
    Ok(())
}

/// Who holds this token; none for one of no open session.
///
/// # Errors
/// [`Code::Database`].
pub async fn find(app: &App, token: &Secret, request: Option<RequestId>) -> Result<Option<Known>> {
    if token.expose().is_empty() {
        return Ok(None);
    }
    let Some(found) = store::find(&app.db, &key_text::hash(token.expose())).await?.filter(|found| !found.pending)
    else {
        return Ok(None);
    };
    let mut tx = app.db.person(found.user_id).await?;
    let Some((auth_at, confined_to)) = store::standing(&mut tx, found.id).await? else { return Ok(None) };
    Ok(Some(Known { user: found.user_id, session: found.id, auth_at, confined_to, request }))
}

/// Whether the token is of a session that waits for the second factor.
///
/// # Errors
/// [`Code::Database`].
pub async fn is_pending(app: &App, token: &Secret) -> Result<bool> {
    let found = store::find(&app.db, &key_text::hash(token.expose())).await?;
    Ok(found.is_some_and(|found| found.pending))
}

/// Takes a proof that it is still them: the password, or, of a person without one, a code. The session gets another
/// token, which is returned.
///
/// # Errors
/// `auth.sign_in_refused`, `auth.code_refused`, `request.limited`.
pub async fn prove_again(app: &App, known: &Known, proof: &Secret) -> Result<Secret> {
    let mut tx = app.db.person(known.user).await?;
    let stored = user::store::password(&mut tx).await?;
    drop(tx);
    let method = if stored.is_some() {
        let key = key_text::hash(&format!("proof of {}", known.user));
        person::refuse_too_soon(app, &key).await?;
        let same = verify_password(proof, stored).await?;
        user::store::note_sign_in(&app.db, &key, same).await?;
        if !same {
            return Err(Error::new(Code::SignInRefused, "the password is wrong"));
        }
        "pwd"
    } else {
        person::take_code(app, known.user, proof.expose()).await?
    };
    let token = key_text::draw_word();
    let mut tx = app.db.person(known.user).await?;
    let before = store::get(&mut tx, known.session).await?.map(|session| session.amr).unwrap_or_default();
    let vouched = store::vouched(&mut tx, known.session).await?.connections;
    store::rotate(&mut tx, known.session, &key_text::hash(token.expose()), method).await?;
    let glass = user::store::password_use(&mut tx, &vouched).await?.breaks_glass_of;
    tx.commit().await?;
    // With the second factor of before, the password now opens what it would have opened at sign-in.
    let had = |method: &str| before.iter().any(|one| one == method);
    if method == "pwd" && !had("pwd") && (had("otp") || had("kba")) {
        let origin = Origin { request: known.request, ..Origin::default() };
        for organization in glass {
            tell_broken_glass(app, known.user, organization, known.session, &origin).await?;
        }
    }
    Ok(token)
}

/// A person's open sessions, newest first.
///
/// # Errors
/// [`Code::Database`].
pub async fn list(app: &App, user: UserId) -> Result<Vec<Session>> {
    let mut tx = app.db.person(user).await?;
    store::list(&mut tx).await
}

/// Ends one of a person's sessions at once. Harmless when repeated.
///
/// # Errors
/// `request.not_found`.
pub async fn revoke(app: &App, user: UserId, id: SessionId) -> Result<()> {
    let mut tx = app.db.person(user).await?;
    store::get(&mut tx, id).await?.ok_or_else(|| Error::not_found("session"))?;
    let ended = store::revoke(&mut tx, id).await?;
    tx.commit().await?;
    if ended {
        person::told_of(app, user, None, "user.session_ended", &json!({ "session": id })).await?;
    }
    Ok(())
}

/// Ends every session of a person but the one they act by; how many.
///
/// # Errors
/// [`Code::Database`].
pub async fn revoke_others(app: &App, known: &Known) -> Result<u64> {
    let mut tx = app.db.person(known.user).await?;
    let ended = store::revoke_others(&mut tx, Some(known.session)).await?;
    tx.commit().await?;
    person::told_of(app, known.user, known.request, "user.other_sessions_ended", &json!({ "ended": ended })).await?;
    Ok(ended)
}

/// Sets another password, and ends every other session.
///
/// # Errors
/// `request.invalid` for a weak one; that it is really them was proved by [`Known::must_be_recent`].
pub async fn change_password(app: &App, known: &Known, new: &Secret) -> Result<()> {
    let known_as = person::get(app, known.user).await?;
    let hash = hash_password(new, &[&known_as.email, &known_as.name]).await?;
    let mut tx = app.db.person(known.user).await?;
    user::store::set_password(&mut tx, &hash).await?;
    store::revoke_others(&mut tx, Some(known.session)).await?;
    tx.commit().await?;
    person::told_of(app, known.user, known.request, "user.password_changed", &json!({})).await
}

/// Sets a password by the word of such a mail, and ends every session: whoever had the old one is out.
///
/// # Errors
/// `auth.word_refused`; `request.invalid` for a weak password, which does not spend the word.
pub async fn reset(app: &App, word: &Secret, new: &Secret) -> Result<UserId> {
    let hash = hash_password(new, &[]).await?;
    let mut tx = person::take_word(app, word, "reset").await?;
    refuse_barred(&mut tx).await?;
    user::store::set_password(&mut tx, &hash).await?;
    // The mail came to the address.
    user::store::set_verified(&mut tx).await?;
    store::revoke_others(&mut tx, None).await?;
    let user = tx.user();
    tx.commit().await?;
    person::told_of(app, user, None, "user.password_reset", &json!({})).await?;
    Ok(user)
}

/// Asks that the person of a session proved who they are within the last 15 minutes.
///
/// # Errors
/// `auth.proof_too_old`, `request.not_found`.
pub async fn must_be_recent(app: &App, user: UserId, session: SessionId) -> Result<()> {
    let mut tx = app.db.person(user).await?;
    let standing = store::standing(&mut tx, session).await?;
    super::refuse_old(app, standing.ok_or_else(|| Error::not_found("session"))?.0)
}
