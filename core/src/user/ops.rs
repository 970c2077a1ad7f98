//! What people may do with what they are known by.

use chrono::TimeDelta;
use rand::Rng;
use serde_json::json;

use super::store::InsertUser;
use super::{NewSecondFactor, User, hash_password, store, totp};
use crate::access::{Actor, Credential};
use crate::app::App;
use crate::audit::ops::record_of_person;
use crate::db::PersonTx;
use crate::error::{Code, Error, Result};
use crate::id::{OrganizationId, RequestId, SecretId, UserId};
use crate::key_text;
use crate::mail::Mail;
use crate::organization;
use crate::settings::{Secret, SignUp};

/// How long a word that proves an address is good.
const VERIFY_HOURS: i64 = 48;
/// How long a word that resets a password is good.
const RESET_MINUTES: i64 = 30;
const RECOVERY_CODES: usize = 10;
/// Of the alphabet below, five bits each: a code has 50.
const RECOVERY_CODE_LETTERS: usize = 10;
const RECOVERY_ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Who wants to be known.
#[derive(Debug)]
pub struct NewUser<'a> {
    /// Their address.
    pub email: &'a str,
    /// Their name.
    pub name: &'a str,
    /// Their password; 12 characters at least.
    pub password: &'a Secret,
}

/// Draws the word that whoever signs up first must know; none once there are people, or while an earlier one is kept.
/// `again` draws one in an earlier one's place.
///
/// # Errors
/// [`Code::Database`].
pub async fn draw_set_up_word(app: &App, again: bool) -> Result<Option<Secret>> {
    if store::are_there_users(&app.db).await? {
        return Ok(None);
    }
    let word = key_text::draw_word();
    let kept = store::set_set_up_word(&app.db, &key_text::hash(word.expose()), again).await?;
    Ok(kept.then_some(word))
}

/// Whether nobody is known yet.
///
/// # Errors
/// [`Code::Database`].
pub async fn is_to_be_set_up(app: &App) -> Result<bool> {
    Ok(!store::are_there_users(&app.db).await?)
}

/// Makes the first person known, with an organization of their own; they see to the installation too.
///
/// # Errors
/// `auth.word_refused` for a wrong word, or one that was used; `request.invalid`.
pub async fn set_up(app: &App, word: &Secret, new: &NewUser<'_>, slug: &str, name: &str) -> Result<UserId> {
    let hash = hash_password(new.password, &[new.email, new.name]).await?;
    let mut tx = app.db.person(UserId::new()).await?;
    if !store::take_set_up_word(&mut tx, &key_text::hash(word.expose().trim())).await? {
        return Err(Error::new(Code::WordRefused, "this is not the set-up word, or it was used"));
    }
    let now = Some(app.clock.now());
    let insert = InsertUser { email: new.email.trim(), name: new.name.trim(), verified_at: now, instance_admin: true };
    store::insert(&mut tx, &insert).await?;
    store::set_password(&mut tx, &hash).await?;
    let user = tx.user();
    organization_of(tx, slug, name).await?;
    Ok(user)
}

/// Makes a person known who signs up, with an organization of their own. They prove their address before they sign in,
/// where there is mail. That the address is known already is told to the address alone.
///
/// # Errors
/// `auth.sign_up_closed` unless `sign_up` is `open`; `request.invalid`; `request.conflict` for the slug.
pub async fn sign_up(app: &App, new: &NewUser<'_>, slug: &str, name: &str) -> Result<()> {
    match app.settings.sign_up {
        SignUp::Open => {}
        SignUp::Closed => {
            return Err(Error::new(Code::SignUpClosed, "this installation takes people by invitation alone"));
        }
    }
    let hash = hash_password(new.password, &[new.email, new.name]).await?;
    if app.mailer.is_there() && store::find(&app.db, new.email.trim()).await?.is_some() {
        let text = "Somebody signed up for Freshet with this address, which is known already.\n\n\
                    If it was you: sign in, or reset your password. If not, there is nothing to do.\n";
        app.mailer.send(Mail {
            to: new.email.trim().to_owned(),
            subject: "You are known to Freshet already".into(),
            text: text.into(),
        });
        return Ok(());
    }
    let mut tx = app.db.person(UserId::new()).await?;
    let insert =
        InsertUser { email: new.email.trim(), name: new.name.trim(), verified_at: None, instance_admin: false };
    store::insert(&mut tx, &insert).await?;
    store::set_password(&mut tx, &hash).await?;
    let user = tx.user();
    organization_of(tx, slug, name).await?;
    send_verification(app, user).await
}

/// Makes the person's organization in the transaction that makes them known: both or neither.
async fn organization_of(tx: PersonTx, slug: &str, name: &str) -> Result<()> {
    let owner = tx.user();
    let mut tx = tx.widen(OrganizationId::new()).await?;
    organization::ops::insert(&mut tx, Some(owner), slug, name).await?;
    tx.commit().await
}

/// A person, as they see themselves.
///
/// # Errors
/// [`Code::Database`].
pub async fn get(app: &App, user: UserId) -> Result<User> {
    let mut tx = app.db.person(user).await?;
    store::get(&mut tx).await
}

/// Changes the name on the screen.
///
/// # Errors
/// `request.invalid` for none, or more than 200 characters.
pub async fn rename(app: &App, user: UserId, name: &str) -> Result<User> {
    let mut tx = app.db.person(user).await?;
    store::rename(&mut tx, name.trim()).await?;
    let renamed = store::get(&mut tx).await?;
    tx.commit().await?;
    Ok(renamed)
}

/// Sends a mail with a word that proves the address, unless it is proved.
///
/// # Errors
/// [`Code::Database`].
pub async fn send_verification(app: &App, user: UserId) -> Result<()> {
    let mut tx = app.db.person(user).await?;
    let person = store::get(&mut tx).await?;
    if person.email_verified_at.is_some() || !app.mailer.is_there() {
        return Ok(());
    }
    let word = key_text::draw_word();
    let until = app.clock.now() + TimeDelta::hours(VERIFY_HOURS);
    store::insert_mailed(&mut tx, &key_text::hash(word.expose()), "verify", until).await?;
    tx.commit().await?;
    let text = format!(
        "Welcome to Freshet.\n\nProve that this address is yours:\n\n{}/verify?word={}\n\n\
         The link is good for {VERIFY_HOURS} hours. If you did not sign up, there is nothing to do.\n",
        app.settings.public_url(),
        word.expose(),
    );
    app.mailer.send(Mail { to: person.email, subject: "Prove your address".into(), text });
    Ok(())
}

/// Takes the word of such a mail.
///
/// # Errors
/// `auth.word_refused`.
pub async fn verify(app: &App, word: &Secret) -> Result<UserId> {
    let mut tx = take_word(app, word, "verify").await?;
    store::set_verified(&mut tx).await?;
    let user = tx.user();
    tx.commit().await?;
    told_of(app, user, None, "user.verified", &json!({})).await?;
    Ok(user)
}

/// Sends a mail with a word that resets the password, if the address is somebody's. The answer is the same if not.
///
/// # Errors
/// `request.wrong_state` where there is no mail; [`Code::Database`].
pub async fn ask_reset(app: &App, email: &str) -> Result<()> {
    if !app.mailer.is_there() {
        let told = "this installation sends no mail; ask whoever runs it for `freshet user reset-password`";
        return Err(Error::new(Code::WrongState, told));
    }
    let app = app.clone();
    let email = email.trim().to_owned();
    // In the background: from the time it takes nobody learns whether there is such a person.
    tokio::spawn(async move {
        if let Err(error) = send_reset(&app, &email).await {
            tracing::error!(error = %error.chain(), "a reset could not be sent");
        }
    });
    Ok(())
}

async fn send_reset(app: &App, email: &str) -> Result<()> {
    let Some(found) = store::find(&app.db, email).await?.filter(|found| !found.disabled) else { return Ok(()) };
    let mut tx = app.db.person(found.id).await?;
    let person = store::get(&mut tx).await?;
    let is_barred = store::password_use(&mut tx, &[]).await?.is_barred;
    drop(tx);
    if is_barred {
        let text = format!(
            "Somebody asked to reset your password of Freshet.\n\n\
             Your organization takes its own issuer's word alone, and no password. Sign in with your organization:\n\n\
             {}/sso\n\nIf it was not you, there is nothing to do.\n",
            app.settings.public_url(),
        );
        app.mailer.send(Mail { to: person.email, subject: "Sign in with your organization".into(), text });
        return Ok(());
    }
    let word = draw_reset_word(app, found.id).await?;
    let text = format!(
        "Somebody asked to reset your password of Freshet.\n\nChoose a new one:\n\n{}/reset?word={}\n\n\
         The link is good for {RESET_MINUTES} minutes. If it was not you, there is nothing to do.\n",
        app.settings.public_url(),
        word.expose(),
    );
    app.mailer.send(Mail { to: person.email, subject: "Reset your password".into(), text });
    Ok(())
}

async fn draw_reset_word(app: &App, user: UserId) -> Result<Secret> {
    let word = key_text::draw_word();
    let until = app.clock.now() + TimeDelta::minutes(RESET_MINUTES);
    let mut tx = app.db.person(user).await?;
    store::insert_mailed(&mut tx, &key_text::hash(word.expose()), "reset", until).await?;
    tx.commit().await?;
    Ok(word)
}

/// Draws a word that resets the password of an address; for the command line.
///
/// # Errors
/// `request.not_found`.
pub async fn reset_word(app: &App, email: &str) -> Result<Secret> {
    let found = store::find(&app.db, email).await?.ok_or_else(|| Error::not_found("person"))?;
    draw_reset_word(app, found.id).await
}

/// Takes a word that was mailed for a purpose; who it was mailed to.
pub(crate) async fn take_word(app: &App, word: &Secret, purpose: &str) -> Result<PersonTx> {
    let refused = || Error::new(Code::WordRefused, "the link is unknown, was used, or its time is over");
    let hash = key_text::hash(word.expose().trim());
    let user = store::find_mailed(&app.db, &hash, purpose).await?.ok_or_else(refused)?;
    let mut tx = app.db.person(user).await?;
    if store::take_mailed(&mut tx, &hash, purpose).await? { Ok(tx) } else { Err(refused()) }
}

/// Draws a second factor; it counts when [`confirm_second_factor`] has seen a code of it.
///
/// # Errors
/// `request.wrong_state` when there is one already.
pub async fn begin_second_factor(app: &App, user: UserId) -> Result<NewSecondFactor> {
    let mut tx = app.db.person(user).await?;
    let person = store::get(&mut tx).await?;
    if person.has_second_factor {
        return Err(Error::new(Code::WrongState, "there is a second factor; remove it first"));
    }
    let (id, secret) = (SecretId::new(), totp::draw());
    store::set_factor(&mut tx, id, &app.vault.seal(user, id, &secret)?).await?;
    tx.commit().await?;
    let url = totp::url(&secret, &person.email)?.parse().unwrap_or_default();
    Ok(NewSecondFactor { secret: secret.parse().unwrap_or_default(), url })
}

/// Takes the factor's first code; returns the recovery codes, which are not to be had again.
///
/// # Errors
/// `auth.code_refused`.
pub async fn confirm_second_factor(app: &App, user: UserId, code: &str) -> Result<Vec<String>> {
    let mut tx = app.db.person(user).await?;
    take_totp(app, &mut tx, code, false).await?;
    let codes = draw_recovery_codes();
    let hashes: Vec<_> = codes.iter().map(|code| key_text::hash(code).to_vec()).collect();
    store::set_recovery_codes(&mut tx, &hashes).await?;
    tx.commit().await?;
    told_of(app, user, None, "user.second_factor_added", &json!({})).await?;
    Ok(codes)
}

/// Takes the second factor away, with its recovery codes.
///
/// # Errors
/// `request.wrong_state` for the owner who breaks an organization's glass; that it is really them was proved before.
pub async fn remove_second_factor(app: &App, user: UserId) -> Result<()> {
    let mut tx = app.db.person(user).await?;
    if store::breaks_glass(&mut tx).await? {
        let told =
            "you are the owner who comes in when your organization's issuer fails, and that wants a second factor";
        return Err(Error::new(Code::WrongState, told));
    }
    store::remove_factor(&mut tx).await?;
    tx.commit().await?;
    told_of(app, user, None, "user.second_factor_removed", &json!({})).await
}

/// Takes a code of the second factor or a recovery code, each good once; says which it was, by its word of RFC 8176.
pub(crate) async fn take_code(app: &App, user: UserId, code: &str) -> Result<&'static str> {
    let key = key_text::hash(&format!("second factor of {user}"));
    refuse_too_soon(app, &key).await?;
    let mut tx = app.db.person(user).await?;
    let spelled = code.trim().to_lowercase();
    let method = if spelled.contains('-') {
        if store::take_recovery_code(&mut tx, &key_text::hash(&spelled)).await? {
            Ok("kba")
        } else {
            Err(code_refused())
        }
    } else {
        take_totp(app, &mut tx, code, true).await.map(|()| "otp")
    };
    if method.is_ok() {
        tx.commit().await?;
    }
    store::note_sign_in(&app.db, &key, method.is_ok()).await?;
    method
}

pub(crate) async fn refuse_too_soon(app: &App, key: &[u8]) -> Result<()> {
    let wait_s = store::sign_in_wait(&app.db, key).await?;
    if wait_s > 0.0 {
        let told = format!("too many tries; the next is taken in {wait_s:.0} s");
        return Err(Error::new(Code::Limited, told));
    }
    Ok(())
}

async fn take_totp(app: &App, tx: &mut PersonTx, code: &str, confirmed: bool) -> Result<()> {
    let factor = store::factor(tx).await?.filter(|factor| factor.confirmed_at.is_some() == confirmed);
    let factor = factor.ok_or_else(code_refused)?;
    let secret = app.vault.open(tx.user(), factor.id, &factor.sealed)?;
    let step = totp::step_of(&secret, code, app.clock.now().timestamp())?;
    let step = step.filter(|step| *step > factor.last_step).ok_or_else(code_refused)?;
    store::note_step(tx, step).await
}

fn code_refused() -> Error {
    Error::new(Code::CodeRefused, "the code is wrong, was used, or its time is over")
}

fn draw_recovery_codes() -> Vec<String> {
    let mut rng = rand::rng();
    let mut letters = |count: usize| -> String {
        (0..count).map(|_| char::from(RECOVERY_ALPHABET[rng.random_range(0..RECOVERY_ALPHABET.len())])).collect()
    };
    let half = RECOVERY_CODE_LETTERS / 2;
    (0..RECOVERY_CODES).map(|_| format!("{}-{}", letters(half), letters(half))).collect()
}

/// Tells every organization of a person what they did to themselves.
pub(crate) async fn told_of(
    app: &App,
    user: UserId,
    request: Option<RequestId>,
    action: &str,
    changes: &serde_json::Value,
) -> Result<()> {
    let mut tx = app.db.person(user).await?;
    let organizations = store::organizations(&mut tx).await?;
    drop(tx);
    let actor = Actor::User { user, by: Credential::None };
    record_of_person(app, &organizations, actor, request, (action, "user", user.uuid()), changes).await
}
