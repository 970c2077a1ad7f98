//! There and back: a browser is sent to an issuer, and what it comes back with makes somebody known.
//!
//! ~~~text
//! word in the browser's cookie ──hash──► state, nonce, verifier        the database holds a hash of the state alone
//!
//! (issuer, subject) is somebody's ───────────────────────────────────────────────► them
//!                   is nobody's ─► the issuer proved the address, and the organization has its domain
//!                                    ├─ the address is somebody's ─► theirs from now on (what was set before the
//!                                    │                               address was proved is forgotten)
//!                                    └─ nobody's ─► somebody new
//! ~~~
//!
//! Who is no member becomes one, as the connection says, on the same condition. A person with a second factor is asked for
//! it whichever way they come. A session opens the other organizations of its person only where the issuer speaks for the
//! domain of the person's own address: nobody's issuer opens what is another's.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use serde_json::json;
use subtle::ConstantTimeEq;

use super::issuer::{self, Attempt, Vouch};
use super::ops::open_secret;
use super::store::{self, InsertAttempt, TakenAttempt, Wanted};
use super::{CALLBACK, Door, SsoConnection};
use crate::access::{Actor, Credential, OrganizationCaller, Role};
use crate::app::App;
use crate::audit::ops::{Entry, record_in_organization};
use crate::db::{OrganizationTx, PersonTx};
use crate::domain;
use crate::error::{Code, Error, Result};
use crate::id::{MembershipId, OrganizationId, RequestId, SsoConnectionId, UserId};
use crate::identity;
use crate::key_text;
use crate::limit::{self, Limit};
use crate::member;
use crate::organization;
use crate::session::{self, Begun, Known, Origin, Vouched};
use crate::settings::Secret;
use crate::user::{self, ops as person, store::InsertUser};

/// How long a person may take at the issuer.
const MINUTES: i64 = 10;

/// What somebody goes to an issuer for.
#[derive(Debug, Clone, Copy)]
pub enum Purpose<'a> {
    /// To come in.
    SignIn,
    /// To have the issuer's word open their account from now on.
    Link(&'a Known),
    /// To prove once more that it is them.
    Prove(&'a Known),
}

/// A sign-in on its way.
#[derive(Debug)]
pub struct Started {
    /// Where the browser goes.
    pub url: String,
    /// For a cookie of the browser: without it nothing comes of what comes back.
    pub word: Secret,
}

/// What a browser comes back with.
#[derive(Debug, Default)]
pub struct Returned<'a> {
    /// As it was sent there.
    pub state: &'a str,
    /// What the issuer gives for a token; empty where it refused.
    pub code: Secret,
    /// Who says to have sent the browser back (RFC 9207).
    pub iss: Option<&'a str>,
    /// Whether the issuer refused.
    pub error: Option<&'a str>,
}

/// What came of it.
#[derive(Debug)]
pub enum Came {
    /// Somebody came in.
    In(Begun),
    /// The identity is linked; the session has another token.
    Linked(Secret),
    /// It is still them; the session has another token.
    Proved(Secret),
}

/// The connections for the domain of an address.
///
/// # Errors
/// `auth.sso_refused` where no organization has the domain.
pub async fn doors_for(app: &App, email: &str) -> Result<Vec<Door>> {
    let domain = domain::of_address(email).unwrap_or_default();
    let wanted = Wanted { domain: Some(&domain), ..Wanted::default() };
    some(store::doors(&app.db, &wanted).await?, "with addresses like this one")
}

/// The connections of an organization, by its slug.
///
/// # Errors
/// `auth.sso_refused` where it has none, or is not.
pub async fn doors_of(app: &App, slug: &str) -> Result<Vec<Door>> {
    some(store::doors(&app.db, &Wanted { slug: Some(slug), ..Wanted::default() }).await?, "under this name")
}

/// The connections of a person's organizations.
///
/// # Errors
/// [`Code::Database`].
pub async fn doors_of_person(app: &App, user: UserId) -> Result<Vec<Door>> {
    let mut tx = app.db.person(user).await?;
    store::doors_of(&mut tx).await
}

fn some(found: Vec<store::FoundDoor>, how: &str) -> Result<Vec<Door>> {
    if found.is_empty() {
        let told = format!("no organization here signs in by an issuer of its own {how}");
        return Err(Error::new(Code::SsoRefused, told));
    }
    Ok(found.into_iter().map(|found| found.door).collect())
}

/// Starts a sign-in, a link or a proof; `next` is where the browser goes afterwards.
///
/// # Errors
/// `request.not_found`; `auth.issuer_failed`.
pub async fn start(app: &App, id: SsoConnectionId, purpose: Purpose<'_>, next: &str) -> Result<Started> {
    let not_found = || Error::not_found("sign-in connection");
    let found = store::doors(&app.db, &Wanted { id: Some(id), ..Wanted::default() }).await?;
    let organization = found.first().ok_or_else(not_found)?.organization_id;
    let (word, known) = match purpose {
        Purpose::SignIn => ("sign_in", None),
        Purpose::Link(known) => ("link", Some(known)),
        Purpose::Prove(known) => ("prove", Some(known)),
    };
    if let Some(known) = known {
        let mut tx = app.db.person(known.user).await?;
        if !store::is_member(&mut tx, organization).await? {
            return Err(not_found());
        }
    }
    let mut tx = app.db.organization(organization).await?;
    let connection = store::get(&mut tx, id).await?.ok_or_else(not_found)?;
    drop(tx);
    let drawn = key_text::draw_word();
    let attempt = attempt(app, &drawn, matches!(purpose, Purpose::Prove(_)));
    let dialling = organization::ops::dialling_for(app, organization).await?;
    let url = issuer::url(&dialling, &connection, &attempt).await?;
    let mut tx = app.db.organization(organization).await?;
    let insert = InsertAttempt {
        connection: id,
        state_hash: &key_text::hash(&attempt.state),
        purpose: word,
        user: known.map(|known| known.user),
        session: known.map(|known| known.session),
        next,
        expires_at: app.clock.now() + TimeDelta::minutes(MINUTES),
    };
    store::insert_attempt(&mut tx, RequestId::new().uuid(), &insert).await?;
    tx.commit().await?;
    Ok(Started { url, word: drawn })
}

/// What belongs to the sign-in of a browser's word.
fn attempt(app: &App, word: &Secret, again: bool) -> Attempt {
    let part = |name: &str| URL_SAFE_NO_PAD.encode(key_text::hash(&format!("sso {name} {}", word.expose())));
    let redirect_url = format!("{}{CALLBACK}", app.settings.public_url());
    Attempt { state: part("state"), nonce: part("nonce"), verifier: part("verifier"), redirect_url, again }
}

/// Takes what a browser comes back with: `word` is its cookie's, `known` whose session it has. Where it goes next comes
/// with it.
///
/// # Errors
/// `auth.sso_refused` for whatever is not as it was sent there, and for somebody whom the issuer's word does not let in;
/// `auth.issuer_failed` when the issuer does not answer as one.
pub async fn come_back(
    app: &App,
    word: &Secret,
    returned: &Returned<'_>,
    known: Option<&Known>,
    origin: &Origin,
) -> Result<(Came, String)> {
    let expected = attempt(app, word, false).state;
    let is_ours = !word.expose().is_empty() && bool::from(expected.as_bytes().ct_eq(returned.state.as_bytes()));
    if !is_ours {
        let told = "this sign-in was not started in this browser, or another was started after it";
        return Err(Error::new(Code::SsoRefused, told));
    }
    let taken = store::take_attempt(&app.db, &key_text::hash(returned.state)).await?;
    let told = format!("the sign-in was finished already, or took longer than {MINUTES} minutes");
    let taken = taken.ok_or_else(|| Error::new(Code::SsoRefused, told))?;
    let came = finish(app, word, returned, known, origin, &taken).await;
    if let Err(error) = &came
        && matches!(error.code, Code::SsoRefused | Code::SsoIssuer)
    {
        write_refused(app, &taken, origin, error).await?;
    }
    Ok((came?, taken.next))
}

async fn finish(
    app: &App,
    word: &Secret,
    returned: &Returned<'_>,
    known: Option<&Known>,
    origin: &Origin,
    taken: &TakenAttempt,
) -> Result<Came> {
    let known = match (taken.user_id, known) {
        (None, known) => known,
        (Some(user), Some(known)) if known.user == user && Some(known.session) == taken.session_id => Some(known),
        (Some(_), _) => return Err(refused("another session started this; sign in and repeat it")),
    };
    let mut tx = app.db.organization(taken.organization_id).await?;
    let found = store::get(&mut tx, taken.connection_id).await?;
    let connection = found.ok_or_else(|| refused("the connection was archived meanwhile"))?;
    let secret = open_secret(app, &mut tx, connection.id).await?;
    drop(tx);
    let dialling = organization::ops::dialling_for(app, taken.organization_id).await?;
    issuer::check_sender(&dialling, &connection, returned.iss).await?;
    if returned.error.is_some() || returned.code.expose().is_empty() {
        return Err(refused("the issuer did not let you in, or you turned back there"));
    }
    let attempt = attempt(app, word, taken.purpose == "prove");
    let vouch = issuer::vouch(&dialling, &connection, &secret, &attempt, &returned.code).await?;
    let at = Place { app, connection: &connection, organization: taken.organization_id, origin };
    match (taken.purpose.as_str(), known) {
        ("link", Some(known)) => at.link(known, &vouch).await.map(Came::Linked),
        ("prove", Some(known)) => at.prove(known, &vouch).await.map(Came::Proved),
        _ => at.come_in(known, &vouch).await.map(Came::In),
    }
}

/// Where somebody came by.
struct Place<'a> {
    app: &'a App,
    connection: &'a SsoConnection,
    organization: OrganizationId,
    origin: &'a Origin,
}

impl Place<'_> {
    async fn come_in(&self, known: Option<&Known>, vouch: &Vouch) -> Result<Begun> {
        let found = identity::store::find(&self.app.db, &self.connection.issuer, &vouch.subject).await?;
        if found.as_ref().is_some_and(|found| found.disabled) {
            return Err(refused("the person is disabled"));
        }
        let user = match found {
            Some(found) => {
                self.come_again(found.user_id, vouch).await?;
                found.user_id
            }
            None => self.come_first(vouch).await?,
        };
        self.note_owner(user).await?;
        let person = person::get(self.app, user).await?;
        let (mut amr, mut vouched) = (vec!["fed".to_owned()], Vouched::default());
        if !self.speaks_for(&person.email).await? {
            vouched.confined_to = Some(self.organization);
        }
        // Whoever is here already, and comes by another issuer, keeps what the session opens.
        let earlier = known.filter(|known| known.user == user);
        if let Some(known) = earlier {
            let mut tx = self.app.db.person(user).await?;
            if let Some(session) = session::store::get(&mut tx, known.session).await? {
                amr.extend(session.amr.into_iter().filter(|method| method != "fed"));
            }
            let before = session::store::vouched(&mut tx, known.session).await?;
            vouched.connections = before.connections;
            if before.confined_to.is_none() {
                vouched.confined_to = None;
            } else if before.confined_to != vouched.confined_to && vouched.confined_to.is_some() {
                vouched.connections.clear();
            }
            session::store::revoke(&mut tx, known.session).await?;
            tx.commit().await?;
        }
        vouched.connections.retain(|id| *id != self.connection.id);
        vouched.connections.push(self.connection.id);
        let amr: Vec<_> = amr.iter().map(String::as_str).collect();
        let pending = person.has_second_factor && !amr.iter().any(|method| ["otp", "kba"].contains(method));
        session::ops::begin(self.app, user, &amr, pending, self.origin, &vouched).await
    }

    /// Somebody whom the issuer has vouched for before.
    async fn come_again(&self, user: UserId, vouch: &Vouch) -> Result<()> {
        let mut tx = self.app.db.person(user).await?;
        let is_member = store::is_member(&mut tx, self.organization).await?;
        drop(tx);
        if !is_member {
            self.proved_address(vouch).await?;
        }
        let mut tx = self.app.db.person(user).await?;
        identity::store::note(&mut tx, &self.connection.issuer, &vouch.subject, vouch.email.as_deref()).await?;
        self.join(tx, is_member).await
    }

    /// Somebody whom it vouches for the first time.
    async fn come_first(&self, vouch: &Vouch) -> Result<UserId> {
        let email = self.proved_address(vouch).await?;
        let known = user::store::find(&self.app.db, &email).await?;
        if known.as_ref().is_some_and(|known| known.disabled) {
            return Err(refused("the person is disabled"));
        }
        let is_new = known.is_none();
        let mut tx = self.app.db.person(known.map_or_else(UserId::new, |known| known.id)).await?;
        if is_new {
            let name = vouch.name.as_deref().map(str::trim).filter(|name| !name.is_empty());
            let name: String = name.unwrap_or(&email).chars().filter(|letter| !letter.is_control()).take(200).collect();
            let verified_at = Some(self.app.clock.now());
            user::store::insert(
                &mut tx,
                &InsertUser { email: &email, name: &name, verified_at, instance_admin: false },
            )
            .await?;
        } else if user::store::get(&mut tx).await?.email_verified_at.is_none() {
            // Who set what is there never showed that the address is theirs.
            user::store::forget_proofs(&mut tx).await?;
            user::store::set_verified(&mut tx).await?;
        }
        let user = tx.user();
        identity::store::note(&mut tx, &self.connection.issuer, &vouch.subject, Some(&email)).await?;
        let is_member = store::is_member(&mut tx, self.organization).await?;
        self.join(tx, is_member).await?;
        let changes = json!({ "issuer": self.connection.issuer, "sso_connection": self.connection.id, "new": is_new });
        person::told_of(self.app, user, self.origin.request, "user.identity_linked", &changes).await?;
        Ok(user)
    }

    /// Ends the transaction of somebody who comes in, as a member of the organization.
    async fn join(&self, tx: PersonTx, is_member: bool) -> Result<()> {
        if is_member {
            return tx.commit().await;
        }
        let user = tx.user();
        let mut tx = tx.widen(self.organization).await?;
        let (id, role) = (MembershipId::new(), self.connection.default_role);
        let workspace = self.connection.default_workspace_id;
        organization::store::insert_member(&mut tx, id, user, workspace, role).await?;
        limit::ops::keep_organization_within(&mut tx, Limit::Members).await?;
        let changes = json!({
            "user": user, "role": role, "workspace": workspace, "sso_connection": self.connection.id,
        });
        let entry = Entry { action: "membership.created", target_kind: "membership", target: id.uuid(), changes };
        record_in_organization(&mut tx, &self.caller(user), entry).await?;
        tx.commit().await
    }

    /// The address, if the issuer has proved it and may speak for its domain.
    async fn proved_address(&self, vouch: &Vouch) -> Result<String> {
        let unproved = || refused("the issuer does not say that your address is proved");
        let email = vouch.email.as_deref().map(str::trim).ok_or_else(unproved)?;
        if self.speaks_for(email).await? {
            return Ok(email.to_owned());
        }
        Err(refused("the domain of your address is not among those that the issuer speaks for here"))
    }

    /// Whether the issuer speaks for the domain of an address: the connection names it, and the organization has it.
    async fn speaks_for(&self, email: &str) -> Result<bool> {
        let domain = domain::of_address(email).filter(|domain| self.connection.domains.contains(domain));
        let Some(domain) = domain else { return Ok(false) };
        let mut tx = self.app.db.organization(self.organization).await?;
        let proved = domain::store::verified(&mut tx, &[domain]).await?;
        Ok(!proved.is_empty())
    }

    async fn note_owner(&self, user: UserId) -> Result<()> {
        let mut tx = self.app.db.person(user).await?;
        let role = member::store::role_in(&mut tx, Credential::None, self.organization).await?;
        drop(tx);
        if role.is_some_and(|(role, _)| role == Role::Owner.as_str()) {
            let mut tx = self.app.db.organization(self.organization).await?;
            store::note_owner(&mut tx, self.connection.id).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    /// Has the issuer's word open the account of the person who asked for it.
    async fn link(&self, known: &Known, vouch: &Vouch) -> Result<Secret> {
        let found = identity::store::find(&self.app.db, &self.connection.issuer, &vouch.subject).await?;
        if found.is_some_and(|found| found.user_id != known.user) {
            return Err(refused("the issuer's account opens another person's account here already"));
        }
        let email = vouch.email.as_deref();
        let speaks = match email {
            Some(email) => self.speaks_for(email).await?,
            None => false,
        };
        let mut tx = self.app.db.person(known.user).await?;
        let is_new = identity::store::note(&mut tx, &self.connection.issuer, &vouch.subject, email).await?;
        let own = user::store::get(&mut tx).await?.email;
        let is_own = email.is_some_and(|email| email.trim().eq_ignore_ascii_case(&own));
        if is_own && speaks {
            user::store::set_verified(&mut tx).await?;
        }
        let token = self.rotate(&mut tx, known).await?;
        tx.commit().await?;
        if is_new {
            let changes =
                json!({ "issuer": self.connection.issuer, "sso_connection": self.connection.id, "new": false });
            person::told_of(self.app, known.user, known.request, "user.identity_linked", &changes).await?;
        }
        self.note_owner(known.user).await?;
        Ok(token)
    }

    /// Takes the issuer's word that it is still them.
    async fn prove(&self, known: &Known, vouch: &Vouch) -> Result<Secret> {
        let found = identity::store::find(&self.app.db, &self.connection.issuer, &vouch.subject).await?;
        if !found.is_some_and(|found| found.user_id == known.user && !found.disabled) {
            return Err(refused("the issuer vouches for somebody else than you"));
        }
        let mut tx = self.app.db.person(known.user).await?;
        let token = self.rotate(&mut tx, known).await?;
        tx.commit().await?;
        Ok(token)
    }

    async fn rotate(&self, tx: &mut PersonTx, known: &Known) -> Result<Secret> {
        let token = key_text::draw_word();
        session::store::rotate(tx, known.session, &key_text::hash(token.expose()), "fed").await?;
        session::store::vouch(tx, known.session, self.connection.id).await?;
        Ok(token)
    }

    fn caller(&self, user: UserId) -> OrganizationCaller {
        let actor = Actor::User { user, by: Credential::None };
        let mut caller = OrganizationCaller::new(self.organization, actor, Vec::new());
        caller.request = self.origin.request;
        caller
    }
}

/// Who was not let in is part of the audit: why, in our own words, and by which connection.
async fn write_refused(app: &App, taken: &TakenAttempt, origin: &Origin, error: &Error) -> Result<()> {
    tracing::info!(error = %error.chain(), "a sign-in by an issuer was refused");
    let mut tx: OrganizationTx = app.db.organization(taken.organization_id).await?;
    let actor = match taken.user_id {
        Some(user) => Actor::User { user, by: Credential::None },
        None => Actor::Stranger,
    };
    let mut caller = OrganizationCaller::new(taken.organization_id, actor, Vec::new());
    caller.request = origin.request;
    let changes = json!({ "reason": error.message, "ip": origin.ip });
    let (target_kind, target) = ("sso_connection", taken.connection_id.uuid());
    record_in_organization(&mut tx, &caller, Entry { action: "sso.refused", target_kind, target, changes }).await?;
    tx.commit().await
}

fn refused(told: &str) -> Error {
    Error::new(Code::SsoRefused, told)
}
