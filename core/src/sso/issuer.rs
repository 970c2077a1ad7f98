//! What is asked of an issuer, and what its answers must be like.
//!
//! | is checked | how |
//! |---|---|
//! | metadata | its issuer is the connection's, to the letter; kept for ten minutes |
//! | token | signed by the issuer's own key with an asymmetric algorithm; `iss`, `aud`, `azp`, `exp`, `iat`, `nonce`, `at_hash` |
//! | what comes back with the code | `iss` of RFC 9207, where it is sent or announced |
//! | GitHub | has no token: the numeric id, and the primary address if it is verified, from its own API |

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use oauth2::basic::BasicClient;
use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreClaimName, CoreClaimType, CoreClient, CoreClientAuthMethod, CoreGrantType,
    CoreIdTokenVerifier, CoreJsonWebKey, CoreJweContentEncryptionAlgorithm, CoreJweKeyManagementAlgorithm,
    CoreJwsSigningAlgorithm, CoreResponseMode, CoreResponseType, CoreSubjectIdentifierType, CoreUserInfoClaims,
};
use openidconnect::{
    AccessToken, AccessTokenHash, AdditionalProviderMetadata, AsyncHttpClient, AuthType, AuthUrl, AuthenticationFlow,
    AuthorizationCode, ClaimsVerificationError, ClientId, ClientSecret, CsrfToken, EndpointMaybeSet, EndpointNotSet,
    EndpointSet, IssuerUrl, Nonce, OAuth2TokenResponse, PkceCodeChallenge, PkceCodeVerifier, ProviderMetadata,
    RedirectUrl, Scope, SignatureVerificationError, TokenResponse, TokenUrl,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::dial::{Dial, parse};
use super::{SsoConnection, SsoKind};
use crate::app::App;
use crate::clock::Clock;
use crate::egress::Egress;
use crate::error::{Code, Error, Result};
use crate::settings::Secret;

/// How long an issuer's metadata and keys are kept; a token by an unknown key has them read again.
const KEPT: Duration = Duration::from_secs(600);
/// Issuers of which they are kept at once, at most: half a MiB each, in the worst case.
const KEPT_MAX: usize = 200;
/// How far an issuer's clock may be from ours.
const SKEW_MINUTES: i64 = 5;
/// How long ago a person may have proved to the issuer that it is them, where they were asked to.
const PROVED_MINUTES: i64 = 5;
/// What a token may be signed with: nothing that the client's secret could sign, and not nothing.
const ALGORITHMS: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// What belongs to one sign-in: the same on the way there and on the way back.
pub(super) struct Attempt {
    /// Comes back with the code.
    pub(super) state: String,
    /// Comes back in the token.
    pub(super) nonce: String,
    /// Shows, at the exchange, that it is us who asked.
    pub(super) verifier: String,
    /// Where the issuer sends the browser back to, to the letter.
    pub(super) redirect_url: String,
    /// Whether the person is to prove anew to the issuer that it is them.
    pub(super) again: bool,
}

/// Whom an issuer vouches for.
#[derive(Debug)]
pub(super) struct Vouch {
    /// Whom it knows them as.
    pub(super) subject: String,
    /// Their address, if it says one that it has proved.
    pub(super) email: Option<String>,
    /// Their name, if it says one.
    pub(super) name: Option<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Extra {
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}
impl AdditionalProviderMetadata for Extra {}

type Metadata = ProviderMetadata<
    Extra,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;
type Client =
    CoreClient<EndpointSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointMaybeSet, EndpointMaybeSet>;

/// Where the browser goes.
pub(super) async fn url(app: &App, connection: &SsoConnection, attempt: &Attempt) -> Result<String> {
    let challenge = || PkceCodeChallenge::from_code_verifier_sha256(&PkceCodeVerifier::new(attempt.verifier.clone()));
    let state = CsrfToken::new(attempt.state.clone());
    let url = match connection.kind {
        SsoKind::Oidc | SsoKind::Google => {
            let metadata = metadata(app, connection, false).await?;
            let client = client(connection, &metadata, &Secret::default(), attempt)?;
            let nonce = Nonce::new(attempt.nonce.clone());
            let flow = AuthenticationFlow::<CoreResponseType>::AuthorizationCode;
            let mut request = client
                .authorize_url(flow, || state, || nonce)
                .add_scope(Scope::new("email".into()))
                .add_scope(Scope::new("profile".into()))
                .set_pkce_challenge(challenge());
            if attempt.again {
                request = request.set_max_age(Duration::ZERO).add_prompt(CoreAuthPrompt::Login);
            }
            request.url().0
        }
        SsoKind::Github => {
            let endpoint = AuthUrl::new(format!("{}/login/oauth/authorize", connection.issuer)).map_err(unreadable)?;
            BasicClient::new(ClientId::new(connection.client_id.clone()))
                .set_auth_uri(endpoint)
                .set_redirect_uri(redirect(attempt)?)
                .authorize_url(|| state)
                .add_scope(Scope::new("user:email".into()))
                .set_pkce_challenge(challenge())
                .url()
                .0
        }
    };
    // The browser goes there, and not we; but where it goes is not to be `javascript:` either.
    parse(url.as_str())?;
    Ok(url.into())
}

/// Checks who says that it sends the browser back: an issuer that is not the connection's got hold of the attempt.
///
/// # Errors
/// `auth.sso_refused`.
pub(super) async fn check_sender(app: &App, connection: &SsoConnection, iss: Option<&str>) -> Result<()> {
    let refused = || Error::new(Code::SsoRefused, "another issuer than the connection's sent the browser back");
    match (connection.kind, iss) {
        (SsoKind::Github, _) => Ok(()),
        (_, Some(iss)) if iss == connection.issuer => Ok(()),
        (_, Some(_)) => Err(refused()),
        (_, None) => {
            let announced = metadata(app, connection, false).await?;
            let is_announced = announced.additional_metadata().authorization_response_iss_parameter_supported;
            if is_announced { Err(refused()) } else { Ok(()) }
        }
    }
}

/// Exchanges a code, and reads whom the issuer vouches for.
///
/// # Errors
/// `auth.sso_refused` when the issuer refuses the code, or what it sends is not what was asked for; `auth.issuer_failed`
/// when it does not answer as one.
pub(super) async fn vouch(
    app: &App,
    connection: &SsoConnection,
    secret: &Secret,
    attempt: &Attempt,
    code: &Secret,
) -> Result<Vouch> {
    match connection.kind {
        SsoKind::Oidc | SsoKind::Google => by_token(app, connection, secret, attempt, code).await,
        SsoKind::Github => by_github(app, connection, secret, attempt, code).await,
    }
}

async fn by_token(
    app: &App,
    connection: &SsoConnection,
    secret: &Secret,
    attempt: &Attempt,
    code: &Secret,
) -> Result<Vouch> {
    let dial = Dial::new(&app.egress)?;
    let mut metadata = metadata(app, connection, false).await?;
    let mut client_of = client(connection, &metadata, secret, attempt)?;
    let answer = client_of
        .exchange_code(AuthorizationCode::new(code.expose().to_owned()))
        .map_err(unreadable)?
        .set_pkce_verifier(PkceCodeVerifier::new(attempt.verifier.clone()))
        .request_async(&dial)
        .await
        .map_err(unexchanged)?;
    let token = answer.id_token().ok_or_else(|| refused("the issuer sends no ID token"))?;
    let nonce = Nonce::new(attempt.nonce.clone());
    let unknown_key = ClaimsVerificationError::SignatureVerification(SignatureVerificationError::NoMatchingKey);
    let first = token.claims(&verifier(app, &client_of), &nonce);
    if first.as_ref().is_err_and(|error| error.to_string() == unknown_key.to_string()) {
        // The issuer has turned its keys over since they were read.
        metadata = self::metadata(app, connection, true).await?;
        client_of = client(connection, &metadata, secret, attempt)?;
    }
    let verifier = verifier(app, &client_of);
    let claims =
        token.claims(&verifier, &nonce).map_err(|error| refused("the ID token is refused").caused_by(error))?;
    // The library leaves this to us.
    if claims.authorized_party().is_some_and(|party| party.as_str() != connection.client_id) {
        return Err(refused("the ID token is refused: it is for another party"));
    }
    if let Some(hash) = claims.access_token_hash() {
        let algorithm = token.signing_alg().map_err(|error| refused("the ID token is refused").caused_by(error))?;
        let key = token.signing_key(&verifier).map_err(|error| refused("the ID token is refused").caused_by(error))?;
        let made = AccessTokenHash::from_token(answer.access_token(), algorithm, key);
        if made.map_err(|error| refused("the ID token is refused").caused_by(error))? != *hash {
            return Err(refused("the ID token is for another access token"));
        }
    }
    if attempt.again {
        let at = claims.auth_time().ok_or_else(|| refused("the issuer does not say when you proved that it is you"))?;
        if app.clock.now() - at > TimeDelta::minutes(PROVED_MINUTES) {
            return Err(refused("the issuer did not ask you to prove anew that it is you"));
        }
    }
    let mut vouch = Vouch {
        subject: claims.subject().to_string(),
        email: proved(claims.email().map(|email| email.as_str()), claims.email_verified()),
        name: claims.name().and_then(|name| name.get(None)).map(|name| name.to_string()),
    };
    // Many put the address into the token only where there is no other place to ask for it.
    if claims.email().is_none() && metadata.userinfo_endpoint().is_some() {
        let asked = client_of.user_info(answer.access_token().clone(), Some(claims.subject().clone()));
        let told: CoreUserInfoClaims = asked
            .map_err(unreadable)?
            .request_async(&dial)
            .await
            .map_err(|error| failed("the issuer does not tell the person's address").caused_by(error))?;
        vouch.email = proved(told.email().map(|email| email.as_str()), told.email_verified());
        vouch.name = vouch.name.or(told.name().and_then(|name| name.get(None)).map(|name| name.to_string()));
    }
    Ok(vouch)
}

fn proved(email: Option<&str>, is_verified: Option<bool>) -> Option<String> {
    email.filter(|_| is_verified == Some(true)).map(str::to_owned)
}

fn client(connection: &SsoConnection, metadata: &Metadata, secret: &Secret, attempt: &Attempt) -> Result<Client> {
    let methods = metadata.token_endpoint_auth_methods_supported();
    let takes_basic = methods.is_none_or(|methods| methods.contains(&CoreClientAuthMethod::ClientSecretBasic));
    let client = CoreClient::from_provider_metadata(
        metadata.clone(),
        ClientId::new(connection.client_id.clone()),
        Some(ClientSecret::new(secret.expose().to_owned())),
    );
    let auth_type = if takes_basic { AuthType::BasicAuth } else { AuthType::RequestBody };
    Ok(client.set_auth_type(auth_type).set_redirect_uri(redirect(attempt)?))
}

fn redirect(attempt: &Attempt) -> Result<RedirectUrl> {
    let told = |error| Error::new(Code::Settings, "FRESHET_PUBLIC_URL is no address").caused_by(error);
    RedirectUrl::new(attempt.redirect_url.clone()).map_err(told)
}

fn verifier<'a>(app: &App, client: &'a Client) -> CoreIdTokenVerifier<'a> {
    let (expiry, issue): (Clock, Clock) = (app.clock.clone(), app.clock.clone());
    client
        .id_token_verifier()
        .set_allowed_algs(ALGORITHMS)
        .set_time_fn(move || expiry.now())
        .set_issue_time_verifier_fn(move |at: DateTime<Utc>| {
            let age = issue.now() - at;
            if age.abs() <= TimeDelta::minutes(SKEW_MINUTES) { Ok(()) } else { Err("issued at another time".into()) }
        })
}

/// The issuer's metadata and keys, kept for a while.
async fn metadata(app: &App, connection: &SsoConnection, anew: bool) -> Result<Metadata> {
    type Kept = HashMap<(usize, String), (Weak<Egress>, Instant, Metadata)>;
    static KEPT_OF: LazyLock<Mutex<Kept>> = LazyLock::new(Mutex::default);
    // Under another policy it would be dialled, or not: what was read under one is kept for that one.
    let key = (Arc::as_ptr(&app.egress) as usize, connection.issuer.clone());
    if !anew {
        let kept = KEPT_OF.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = kept.get(&key).filter(|(policy, at, _)| policy.strong_count() > 0 && at.elapsed() < KEPT);
        if let Some((_, _, metadata)) = fresh {
            return Ok(metadata.clone());
        }
    }
    parse(&connection.issuer)?;
    let issuer = IssuerUrl::new(connection.issuer.clone()).map_err(unreadable)?;
    let dial = Dial::new(&app.egress)?;
    let read = Metadata::discover_async(issuer, &dial).await;
    let read = read.map_err(|error| failed("the issuer does not answer as one").caused_by(error))?;
    let mut kept = KEPT_OF.lock().unwrap_or_else(PoisonError::into_inner);
    kept.retain(|_, (policy, at, _)| policy.strong_count() > 0 && at.elapsed() < KEPT);
    if kept.len() >= KEPT_MAX {
        kept.clear();
    }
    kept.insert(key, (Arc::downgrade(&app.egress), Instant::now(), read.clone()));
    Ok(read)
}

#[derive(Deserialize)]
struct GithubUser {
    id: u64,
    login: String,
    name: Option<String>,
}

#[derive(Deserialize)]
struct GithubEmail {
    email: String,
    primary: bool,
    verified: bool,
}

async fn by_github(
    app: &App,
    connection: &SsoConnection,
    secret: &Secret,
    attempt: &Attempt,
    code: &Secret,
) -> Result<Vouch> {
    if attempt.again {
        return Err(refused("GitHub does not ask anybody to prove anew that it is them; use your password"));
    }
    let dial = Dial::new(&app.egress)?;
    let endpoint = TokenUrl::new(format!("{}/login/oauth/access_token", connection.issuer)).map_err(unreadable)?;
    let answer = BasicClient::new(ClientId::new(connection.client_id.clone()))
        .set_client_secret(ClientSecret::new(secret.expose().to_owned()))
        .set_auth_type(AuthType::RequestBody)
        .set_token_uri(endpoint)
        .set_redirect_uri(redirect(attempt)?)
        .exchange_code(AuthorizationCode::new(code.expose().to_owned()))
        .set_pkce_verifier(PkceCodeVerifier::new(attempt.verifier.clone()))
        .request_async(&dial)
        .await
        .map_err(unexchanged)?;
    let api = match connection.issuer.as_str() {
        "https://github.com" => "https://api.github.com".to_owned(),
        server => format!("{server}/api/v3"),
    };
    let user: GithubUser = github(&dial, &format!("{api}/user"), answer.access_token()).await?;
    let emails: Vec<GithubEmail> = github(&dial, &format!("{api}/user/emails"), answer.access_token()).await?;
    let email = emails.into_iter().find(|email| email.primary && email.verified).map(|email| email.email);
    Ok(Vouch { subject: user.id.to_string(), email, name: user.name.or(Some(user.login)) })
}

async fn github<T: DeserializeOwned>(dial: &Dial, url: &str, token: &AccessToken) -> Result<T> {
    let request = http::Request::get(url)
        .header(http::header::ACCEPT, "application/vnd.github+json")
        .header(http::header::AUTHORIZATION, format!("Bearer {}", token.secret()))
        .body(Vec::new())
        .map_err(unreadable)?;
    let answer = dial.call(request).await?;
    if answer.status() != http::StatusCode::OK {
        return Err(failed("GitHub does not tell who the person is"));
    }
    serde_json::from_slice(answer.body()).map_err(|_| failed("GitHub's answer does not read"))
}

fn refused(what: &str) -> Error {
    Error::new(Code::SsoRefused, what)
}

fn failed(what: &str) -> Error {
    Error::new(Code::SsoIssuer, what)
}

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    failed("an address of the issuer does not read").caused_by(error)
}

/// An issuer that refuses the code says so in its own way; what it says is not repeated, for it is a stranger's text.
fn unexchanged<T>(error: oauth2::RequestTokenError<Error, T>) -> Error
where
    T: oauth2::ErrorResponse + 'static,
{
    match error {
        oauth2::RequestTokenError::Request(error) => failed("the issuer does not answer as one").caused_by(error),
        // GitHub refuses with status 200 and a body that is no token.
        oauth2::RequestTokenError::ServerResponse(_)
        | oauth2::RequestTokenError::Parse(..)
        | oauth2::RequestTokenError::Other(_) => refused("the issuer refuses the code"),
    }
}
