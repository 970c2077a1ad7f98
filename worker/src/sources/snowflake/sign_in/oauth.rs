//! Snowflake OAuth with a customer's own integration: consent with PKCE, tokens, their renewal.
//!
//! A refresh token may be good for one use: each renewal then brings a new one, and using an old one again revokes
//! them all. So the token is taken from a [`RefreshTokens`] under its lock, and the new one is stored before the
//! access token that came with it is used.

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use freshet_core::clock::Clock;
use freshet_core::error::{Code, Error, Result};
use oauth2::basic::{BasicClient, BasicErrorResponseType, BasicTokenResponse};
use oauth2::{
    AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken, HttpRequest, HttpResponse, PkceCodeChallenge,
    PkceCodeVerifier, RedirectUrl, RefreshToken, RequestTokenError, Scope, TokenResponse, TokenUrl,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;

use crate::sources::snowflake::client::blocked;

/// A token is renewed when less than this is left of it.
const RENEW_BEFORE_S: i64 = 60;
/// How long an access token lives when Snowflake does not say; the default of an integration.
const ACCESS_TOKEN_S: i64 = 600;

/// Where a connection's refresh token lies.
#[async_trait]
pub trait RefreshTokens: Send + Sync {
    /// Takes the token and keeps every other renewal out until the lock is dropped.
    ///
    /// # Errors
    /// What the store failed with.
    async fn lock(&self) -> Result<Box<dyn LockedToken>>;
}

/// A refresh token whose lock is held: nobody else can use it until this is dropped.
#[async_trait]
pub trait LockedToken: Send {
    /// The token.
    fn token(&self) -> SecretString;

    /// Stores the token that takes its place, for good, and lets go of the lock.
    ///
    /// # Errors
    /// What the store failed with; the connection is lost then, for the old token is spent.
    async fn replace(self: Box<Self>, token: SecretString) -> Result<()>;
}

/// A refresh token that is good for many uses; what replaces it is kept in memory alone.
pub struct KeptToken(Arc<Mutex<SecretString>>);

impl KeptToken {
    /// Keeps `token`.
    #[must_use]
    pub fn new(token: SecretString) -> Self {
        Self(Arc::new(Mutex::new(token)))
    }
}

struct KeptLock(tokio::sync::OwnedMutexGuard<SecretString>);

#[async_trait]
impl RefreshTokens for KeptToken {
    async fn lock(&self) -> Result<Box<dyn LockedToken>> {
        Ok(Box::new(KeptLock(self.0.clone().lock_owned().await)))
    }
}

#[async_trait]
impl LockedToken for KeptLock {
    fn token(&self) -> SecretString {
        self.0.clone()
    }

    async fn replace(mut self: Box<Self>, token: SecretString) -> Result<()> {
        *self.0 = token;
        Ok(())
    }
}

/// A security integration of the customer's account.
#[derive(Clone)]
pub struct OAuthApp {
    /// `https://<account>.snowflakecomputing.com`, without a slash at its end.
    pub base_url: String,
    /// From `SYSTEM$SHOW_OAUTH_CLIENT_SECRETS`.
    pub client_id: String,
    /// From there too.
    pub client_secret: SecretString,
}

/// Where to send a person for consent, and what to keep until they come back.
pub struct Consent {
    /// The address of Snowflake's page.
    pub url: String,
    /// Must come back unchanged with the code.
    pub state: String,
    /// Proves at the exchange that we asked.
    pub verifier: SecretString,
}

/// What an exchange or a renewal brings.
pub struct Tokens {
    /// For requests.
    pub access: SecretString,
    /// Until when.
    pub expires_at: DateTime<Utc>,
    /// For the next renewal; none if the old one goes on.
    pub refresh: Option<SecretString>,
}

type Client = BasicClient<
    oauth2::EndpointSet,
    oauth2::EndpointNotSet,
    oauth2::EndpointNotSet,
    oauth2::EndpointNotSet,
    oauth2::EndpointSet,
>;

impl OAuthApp {
    fn client(&self) -> Result<Client> {
        let bad = |error| Error::invalid("/settings/host", "does not make an address").caused_by(error);
        Ok(BasicClient::new(ClientId::new(self.client_id.clone()))
            .set_client_secret(ClientSecret::new(self.client_secret.expose_secret().to_owned()))
            .set_auth_uri(AuthUrl::new(format!("{}/oauth/authorize", self.base_url)).map_err(bad)?)
            .set_token_uri(TokenUrl::new(format!("{}/oauth/token-request", self.base_url)).map_err(bad)?))
    }

    /// Begins a consent: for `role`, as `SHOW ROLES` writes it, or for the user's default role.
    ///
    /// # Errors
    /// `request.invalid` for an address that is none.
    pub fn consent(&self, redirect_url: &str, role: Option<&str>) -> Result<Consent> {
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let client = self.client()?.set_redirect_uri(redirect(redirect_url)?);
        let mut request = client
            .authorize_url(CsrfToken::new_random)
            .add_scope(Scope::new("refresh_token".into()))
            .set_pkce_challenge(challenge);
        if let Some(role) = role {
            request = request.add_scope(Scope::new(role_scope(role)));
        }
        let (url, state) = request.url();
        Ok(Consent {
            url: url.into(),
            state: state.into_secret(),
            verifier: SecretString::from(verifier.into_secret()),
        })
    }

    /// Gives the code of a consent for tokens.
    ///
    /// # Errors
    /// `snowflake.consent_expired` for a code that is spent or not ours, `snowflake.login_failed` for a client that
    /// Snowflake does not know, `snowflake.unreachable`.
    pub async fn exchange(
        &self,
        http: &reqwest::Client,
        now: DateTime<Utc>,
        code: &SecretString,
        verifier: &SecretString,
        redirect_url: &str,
    ) -> Result<Tokens> {
        let client = self.client()?.set_redirect_uri(redirect(redirect_url)?);
        let answer = client
            .exchange_code(AuthorizationCode::new(code.expose_secret().to_owned()))
            .set_pkce_verifier(PkceCodeVerifier::new(verifier.expose_secret().to_owned()))
            .request_async(&Http(http.clone()))
            .await;
        answer.map(|answer| tokens(&answer, now)).map_err(refused)
    }

    /// Gives a refresh token for a new access token.
    ///
    /// # Errors
    /// As [`OAuthApp::exchange`].
    pub async fn renew(&self, http: &reqwest::Client, now: DateTime<Utc>, token: &SecretString) -> Result<Tokens> {
        let token = RefreshToken::new(token.expose_secret().to_owned());
        let client = self.client()?;
        let answer = client.exchange_refresh_token(&token).request_async(&Http(http.clone())).await;
        answer.map(|answer| tokens(&answer, now)).map_err(refused)
    }
}

fn redirect(url: &str) -> Result<RedirectUrl> {
    RedirectUrl::new(url.to_owned()).map_err(|error| Error::invalid("/redirect_url", "is no address").caused_by(error))
}

/// A role's scope; a name with other characters than letters, digits and `_` goes percent-encoded.
fn role_scope(role: &str) -> String {
    if role.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_') {
        format!("session:role:{role}")
    } else {
        let encoded: String = url::form_urlencoded::byte_serialize(role.as_bytes()).collect();
        format!("session:role-encoded:{}", encoded.replace('+', "%20"))
    }
}

fn tokens(answer: &BasicTokenResponse, now: DateTime<Utc>) -> Tokens {
    let lives_s = answer.expires_in().and_then(|lives| i64::try_from(lives.as_secs()).ok()).unwrap_or(ACCESS_TOKEN_S);
    Tokens {
        access: SecretString::from(answer.access_token().secret().clone()),
        expires_at: now + TimeDelta::try_seconds(lives_s).unwrap_or_default(),
        refresh: answer.refresh_token().map(|token| SecretString::from(token.secret().clone())),
    }
}

/// Bytes of a token endpoint's answer, at most.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("an answer of more than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    #[error(transparent)]
    Answer(#[from] http::Error),
}

/// Our HTTP client in the form that the oauth2 crate takes.
struct Http(reqwest::Client);

impl<'c> oauth2::AsyncHttpClient<'c> for Http {
    type Error = CallError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, CallError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let mut answer = self.0.execute(request.try_into()?).await?;
            let mut response = http::Response::builder().status(answer.status());
            for (name, value) in answer.headers() {
                response = response.header(name, value);
            }
            let mut body = Vec::new();
            while let Some(piece) = answer.chunk().await? {
                body.extend_from_slice(&piece);
                if body.len() > ANSWER_BYTES_MAX {
                    return Err(CallError::TooLong);
                }
            }
            Ok(response.body(body)?)
        })
    }
}

type TokenError = RequestTokenError<CallError, oauth2::StandardErrorResponse<BasicErrorResponseType>>;

fn refused(error: TokenError) -> Error {
    let (code, told) = match &error {
        RequestTokenError::ServerResponse(answer) if *answer.error() == BasicErrorResponseType::InvalidGrant => {
            (Code::SnowflakeConsent, "Snowflake takes the refresh token or the code no more".to_owned())
        }
        RequestTokenError::ServerResponse(answer) => {
            (Code::SnowflakeLogin, format!("Snowflake refuses the OAuth client: {}", answer.error().as_ref()))
        }
        RequestTokenError::Request(error) => match blocked(error) {
            Some(blocked) => return blocked,
            None => (Code::SnowflakeUnreachable, "the token request found no answer".to_owned()),
        },
        RequestTokenError::Parse(..) | RequestTokenError::Other(_) => {
            (Code::SnowflakeUnreachable, "the answer to the token request does not read".to_owned())
        }
    };
    // The cause may hold the answer's body, and that a token: it is not kept.
    Error::new(code, told)
}

/// Access tokens, renewed when they run out.
pub struct OAuth {
    app: OAuthApp,
    store: Box<dyn RefreshTokens>,
    access: Mutex<Option<(SecretString, DateTime<Utc>)>>,
}

impl OAuth {
    /// Renews with the refresh token of `store`.
    #[must_use]
    pub fn new(app: OAuthApp, store: Box<dyn RefreshTokens>) -> Self {
        Self { app, store, access: Mutex::default() }
    }

    /// The access token in use, or a new one.
    ///
    /// # Errors
    /// As [`OAuthApp::exchange`], and what the store failed with.
    pub async fn token(&self, http: &reqwest::Client, clock: &Clock) -> Result<SecretString> {
        let mut access = self.access.lock().await;
        if let Some((token, until)) = access.as_ref()
            && (*until - clock.now()).num_seconds() > RENEW_BEFORE_S
        {
            return Ok(token.clone());
        }
        let locked = self.store.lock().await?;
        let tokens = self.app.renew(http, clock.now(), &locked.token()).await?;
        if let Some(refresh) = tokens.refresh {
            locked.replace(refresh).await?;
        }
        *access = Some((tokens.access.clone(), tokens.expires_at));
        Ok(tokens.access)
    }

    /// Forgets an access token that was refused.
    pub async fn forget(&self) {
        *self.access.lock().await = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consent_asks_for_a_refresh_token_and_the_role_and_proves_itself_with_pkce() {
        let app = OAuthApp {
            base_url: "https://a.snowflakecomputing.com".into(),
            client_id: "id=".into(),
            client_secret: SecretString::from("secret"),
        };

        let consent = app.consent("https://freshet.example/callback", Some("LOADER")).unwrap();

        let url = url::Url::parse(&consent.url).unwrap();
        let asked: std::collections::BTreeMap<_, _> = url.query_pairs().into_owned().collect();
        assert_eq!(url.path(), "/oauth/authorize");
        assert_eq!(asked["response_type"], "code");
        assert_eq!(asked["client_id"], "id=");
        assert_eq!(asked["scope"], "refresh_token session:role:LOADER");
        assert_eq!(asked["code_challenge_method"], "S256");
        assert_eq!(asked["state"], consent.state);
        assert!(!consent.url.contains("secret"));
        assert_eq!(role_scope("a b"), "session:role-encoded:a%20b");
    }
}
