//! Issuers: one that we did not write (`deploy/dev/people`), and one that does what no issuer should.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::{Form, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use freshet_core::access::{OrganizationCaller, Role};
use freshet_core::domain;
use freshet_core::sso::{self, SsoConnection, SsoKind};
use freshet_core::testing::{Bench, surroundings};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use url::Url;

/// What the hostile issuer's client is called, and its secret.
pub const CLIENT: (&str, &str) = ("freshet", "a secret of the client's");

/// Makes a connection of the bench's organization, which has `acme.example`.
pub async fn connect(bench: &Bench, kind: SsoKind, issuer: &str, client: (&str, &str)) -> SsoConnection {
    connect_of(bench, &owner(bench), "acme.example", kind, issuer, client).await
}

/// The bench's organization, with every right.
pub fn owner(bench: &Bench) -> OrganizationCaller {
    bench.caller.in_organization().unwrap()
}

pub async fn connect_of(
    bench: &Bench,
    caller: &OrganizationCaller,
    domain: &str,
    kind: SsoKind,
    issuer: &str,
    (client_id, secret): (&str, &str),
) -> SsoConnection {
    domain::ops::verify_by_hand(&bench.app, caller, domain).await.unwrap();
    let new = sso::SsoConnectionNew {
        name: format!("Acme's own {issuer}"),
        kind,
        issuer: Some(issuer.to_owned()),
        client_id: client_id.to_owned(),
        client_secret: secret.to_owned().into(),
        domains: vec![domain.to_owned()],
        default_role: Role::Editor,
        default_workspace_id: None,
    };
    sso::ops::create(&bench.app, caller, &new).await.unwrap()
}

fn http() -> reqwest::Client {
    // One TLS back end for all tests: whoever asks first installs it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap()
}

/// The issuer that we did not write, and the cookies that a browser has of it.
pub struct Issuer {
    pub url: String,
    http: reqwest::Client,
    cookies: BTreeMap<String, String>,
}

impl Issuer {
    pub fn new() -> Self {
        Self { url: surroundings("FRESHET_TEST_ISSUER"), http: http(), cookies: BTreeMap::new() }
    }

    /// A client of its own for a bench, as the issuer's administrator would make it.
    pub async fn register(&self, bench: &Bench) -> (String, String) {
        let body = json!({ "redirect_uris": [format!("{}/sso/callback", bench.app.settings.public_url())] });
        let made: Value =
            self.http.post(format!("{}/reg", self.url)).json(&body).send().await.unwrap().json().await.unwrap();
        let text = |name: &str| made[name].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
        (text("client_id"), text("client_secret"))
    }

    /// Signs in on the issuer's own pages, and lets Freshet know who one is; where the browser is sent back to.
    pub async fn sign_in(&mut self, url: &str, login: &str) -> String {
        let mut at = self.open(url).await;
        for _ in 0..8 {
            match at {
                Stop::Page(url, text) => {
                    let prompt = if text.contains("name=\"prompt\" value=\"login\"") { "login" } else { "consent" };
                    let action = text.split("action=\"").nth(1).unwrap_or_else(|| panic!("no form: {text}"));
                    let action = Url::parse(&url).unwrap().join(action.split('"').next().unwrap()).unwrap();
                    let form = [("prompt", prompt), ("login", login), ("password", "any")];
                    let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
                    let request = self.http.post(action.clone()).body(form);
                    let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
                    at = self.follow(action.to_string(), request).await;
                }
                Stop::Elsewhere(url) => return url,
            }
        }
        panic!("the issuer goes round in circles");
    }

    /// Where a page of the issuer's leads to, or its text.
    pub async fn open(&mut self, url: &str) -> Stop {
        let request = self.http.get(url);
        self.follow(url.to_owned(), request).await
    }

    async fn follow(&mut self, mut url: String, mut request: reqwest::RequestBuilder) -> Stop {
        loop {
            let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let answer = request.header(header::COOKIE, cookies.join("; ")).send().await.unwrap();
            for cookie in answer.headers().get_all(header::SET_COOKIE) {
                let pair = cookie.to_str().unwrap().split(';').next().unwrap();
                let (name, value) = pair.split_once('=').unwrap();
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
            let Some(location) = answer.headers().get(header::LOCATION) else {
                return Stop::Page(url, answer.text().await.unwrap());
            };
            url = Url::parse(&url).unwrap().join(location.to_str().unwrap()).unwrap().to_string();
            if !url.starts_with(&self.url) {
                return Stop::Elsewhere(url);
            }
            request = self.http.get(&url);
        }
    }
}

/// Where a browser stops at an issuer.
#[derive(Debug)]
pub enum Stop {
    /// A page of the issuer's: its address and text.
    Page(String, String),
    /// Somewhere else.
    Elsewhere(String),
}

/// An issuer that answers as a test says, and counts who comes.
#[derive(Clone)]
pub struct Hostile(Arc<Inner>);

struct Inner {
    address: SocketAddr,
    key: Ed25519KeyPair,
    says: Mutex<Says>,
    requests: AtomicUsize,
}

/// What it says.
#[derive(Clone, Default)]
pub struct Says {
    /// Over its honest metadata.
    pub metadata: Value,
    /// Over honest claims.
    pub claims: Value,
    /// Over an honest token's header.
    pub header: Value,
    /// The name of its key.
    pub key_id: Option<&'static str>,
    /// In place of a signature: of the key's own if none.
    pub signature: Option<fn(&str) -> String>,
    /// In place of the metadata's own body.
    pub body: Option<(StatusCode, String)>,
    /// Where the metadata's request is sent on to.
    pub redirect: Option<String>,
}

impl Hostile {
    pub async fn start() -> Self {
        Self::start_at("127.0.0.1").await
    }

    pub async fn start_at(ip: &str) -> Self {
        let listener = tokio::net::TcpListener::bind((ip, 0)).await.unwrap();
        let seed = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
        let hostile = Self(Arc::new(Inner {
            address: listener.local_addr().unwrap(),
            key: Ed25519KeyPair::from_pkcs8(seed.as_ref()).unwrap(),
            says: Mutex::default(),
            requests: AtomicUsize::new(0),
        }));
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(metadata))
            .route("/keys", get(keys))
            .route("/token", post(token))
            .route("/userinfo", get(async |State(hostile): State<Self>| Json(hostile.claims("", ""))))
            .route("/login/oauth/access_token", post(github_token))
            .route("/api/v3/user", get(async || Json(json!({ "id": 42, "login": "ada", "name": "Ada" }))))
            .route("/api/v3/user/emails", get(async |State(hostile): State<Self>| Json(hostile.says().claims)))
            .fallback(async || StatusCode::NOT_FOUND)
            .layer(axum::middleware::from_fn_with_state(hostile.clone(), count))
            .with_state(hostile.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        hostile
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    pub fn requests(&self) -> usize {
        self.0.requests.load(Ordering::SeqCst)
    }

    pub fn says(&self) -> Says {
        self.0.says.lock().unwrap().clone()
    }

    pub fn say(&self, says: Says) {
        *self.0.says.lock().unwrap() = says;
    }

    fn claims(&self, nonce: &str, audience: &str) -> Value {
        let now = freshet_core::clock::Clock::system().now().timestamp();
        let honest = json!({
            "iss": self.url(), "sub": "7", "aud": audience, "nonce": nonce, "iat": now, "exp": now + 300,
            "email": "ada@acme.example", "email_verified": true, "name": "Ada",
        });
        over(honest, &self.says().claims)
    }
}

/// One object over another; what is null there is not there.
fn over(mut below: Value, above: &Value) -> Value {
    for (name, value) in above.as_object().into_iter().flatten() {
        below[name] = value.clone();
        if value.is_null() {
            below.as_object_mut().unwrap().remove(name);
        }
    }
    below
}

async fn count(
    State(hostile): State<Hostile>,
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> Response {
    hostile.0.requests.fetch_add(1, Ordering::SeqCst);
    next.run(request).await
}

async fn metadata(State(hostile): State<Hostile>) -> Response {
    let (url, says) = (hostile.url(), hostile.says());
    if let Some(location) = says.redirect {
        return (StatusCode::FOUND, [(header::LOCATION, location)]).into_response();
    }
    if let Some((status, body)) = says.body {
        return (status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
    }
    let honest = json!({
        "issuer": url, "authorization_endpoint": format!("{url}/auth"), "token_endpoint": format!("{url}/token"),
        "jwks_uri": format!("{url}/keys"), "userinfo_endpoint": format!("{url}/userinfo"),
        "response_types_supported": ["code"], "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["EdDSA"],
        "authorization_response_iss_parameter_supported": true,
    });
    Json(over(honest, &says.metadata)).into_response()
}

async fn keys(State(hostile): State<Hostile>) -> Json<Value> {
    let id = hostile.says().key_id.unwrap_or("first");
    let x = encode(hostile.0.key.public_key().as_ref());
    Json(json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": id, "x": x }] }))
}

/// A code is the nonce that the token shall have.
async fn token(State(hostile): State<Hostile>, Form(form): Form<BTreeMap<String, String>>) -> Json<Value> {
    let says = hostile.says();
    let head = over(json!({ "alg": "EdDSA", "kid": says.key_id.unwrap_or("first") }), &says.header);
    let claims = hostile.claims(&form["code"], CLIENT.0);
    let signed = format!("{}.{}", encode(head.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
    let signature = match says.signature {
        Some(sign) => sign(&signed),
        None => encode(hostile.0.key.sign(signed.as_bytes()).as_ref()),
    };
    Json(json!({ "access_token": "a", "token_type": "Bearer", "id_token": format!("{signed}.{signature}") }))
}

/// As GitHub refuses: with status 200.
async fn github_token(Form(form): Form<BTreeMap<String, String>>) -> Json<Value> {
    if form["code"] == "good" && form["client_secret"] == CLIENT.1 {
        return Json(json!({ "access_token": "gho", "token_type": "bearer", "scope": "user:email" }));
    }
    Json(json!({ "error": "bad_verification_code" }))
}

pub fn encode(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

/// A part of an address's query.
pub fn query(url: &str, name: &str) -> Option<String> {
    Url::parse(url).unwrap().query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// The same address with another value in its query, or without it.
pub fn with_query(url: &str, name: &str, value: Option<&str>) -> String {
    let mut url = Url::parse(url).unwrap();
    let others: Vec<(String, String)> =
        url.query_pairs().filter(|(key, _)| key != name).map(|(key, value)| (key.into(), value.into())).collect();
    url.query_pairs_mut().clear().extend_pairs(others);
    if let Some(value) = value {
        url.query_pairs_mut().append_pair(name, value);
    }
    url.into()
}

/// The path and query of an address.
pub fn path(url: &str) -> String {
    let url = Url::parse(url).unwrap();
    format!("{}?{}", url.path(), url.query().unwrap_or_default())
}
