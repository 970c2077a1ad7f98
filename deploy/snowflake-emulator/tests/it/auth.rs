//! Key pairs, tokens, OAuth.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::bench::{Bench, read};

const ONE: (&str, &str) = (include_str!("keys/one.p8"), include_str!("keys/one.pub"));
const TWO: (&str, &str) = (include_str!("keys/two.p8"), include_str!("keys/two.pub"));

fn der(pem: &str) -> Vec<u8> {
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(body).expect("base64")
}

/// A JWT as the Snowflake CLI makes it.
fn jwt((private, public): (&str, &str), subject: &str, issued_s: i64, expires_s: i64) -> String {
    let fingerprint = STANDARD.encode(Sha256::digest(der(public)));
    let claims =
        json!({"iss": format!("{subject}.SHA256:{fingerprint}"), "sub": subject, "iat": issued_s, "exp": expires_s});
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(&json!({"alg": "RS256", "typ": "JWT"})), encode(&claims));
    let pair = RsaKeyPair::from_pkcs8(&der(private)).expect("a key");
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).expect("a signature");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Status and code of `select 1` with a token.
async fn call(bench: &Bench, token: &str, kind: Option<&str>) -> (u16, String) {
    let mut request = bench
        .http
        .post(format!("{}/api/v2/statements", bench.url))
        .bearer_auth(token)
        .header("accept", "application/json")
        .header("user-agent", "tests/1")
        .json(&json!({"statement": "select current_user()"}));
    if let Some(kind) = kind {
        request = request.header("x-snowflake-authorization-token-type", kind);
    }
    let (status, body) = read(request.send().await.expect("an answer")).await;
    (status.as_u16(), body["code"].as_str().unwrap_or_default().to_owned())
}

fn refused(code: &str) -> (u16, String) {
    (401, code.to_owned())
}

fn taken() -> (u16, String) {
    (200, "090001".to_owned())
}

async fn set_key(bench: &Bench, pem: &str, slot: u8) {
    bench.admin(reqwest::Method::POST, "/emulator/users/jdoe/keys", &json!({"pem": pem, "slot": slot})).await;
}

#[tokio::test]
async fn a_key_pair_jwt_is_taken_for_either_slot() {
    let bench = Bench::new().await;
    let now = bench.emulator.clock.now_ms() / 1000;
    let token = |keys| jwt(keys, "TEST-ACCOUNT.JDOE", now, now + 3000);
    set_key(&bench, ONE.1, 1).await;

    assert_eq!(call(&bench, &token(ONE), Some("KEYPAIR_JWT")).await, taken());
    assert_eq!(call(&bench, &token(ONE), None).await, taken());
    assert_eq!(call(&bench, &token(TWO), Some("KEYPAIR_JWT")).await, refused("390144"));
    set_key(&bench, TWO.1, 2).await;
    assert_eq!(call(&bench, &token(TWO), Some("KEYPAIR_JWT")).await, taken());
    assert_eq!(call(&bench, &token(ONE), Some("KEYPAIR_JWT")).await, taken());
}

#[tokio::test]
async fn a_jwt_is_refused_for_another_account_another_user_another_time_or_a_changed_claim() {
    let bench = Bench::new().await;
    let now = bench.emulator.clock.now_ms() / 1000;
    set_key(&bench, ONE.1, 1).await;
    let good = jwt(ONE, "TEST-ACCOUNT.JDOE", now, now + 3000);
    let other = jwt(ONE, "TEST-ACCOUNT.JDOE", now - 1, now + 3000);
    let (head, rest) = good.split_once('.').expect("three parts");
    let (_, signature) = rest.split_once('.').expect("three parts");
    let claims = other.split('.').nth(1).expect("three parts");
    let forged = format!("{head}.{claims}.{signature}");

    for token in [
        jwt(ONE, "OTHER.JDOE", now, now + 3000),
        jwt(ONE, "TEST-ACCOUNT.NOBODY", now, now + 3000),
        jwt(ONE, "test-account.jdoe", now, now + 3000),
        jwt(ONE, "TEST-ACCOUNT.JDOE", now - 7200, now - 3600),
        jwt(ONE, "TEST-ACCOUNT.JDOE", now - 4000, now + 86_400),
        jwt(ONE, "TEST-ACCOUNT.JDOE", now + 600, now + 3000),
        forged,
        "a.b.c".to_owned(),
    ] {
        assert_eq!(call(&bench, &token, Some("KEYPAIR_JWT")).await, refused("390144"), "{token}");
    }
    // Milliseconds are taken too, and a long life is cut at an hour.
    assert_eq!(call(&bench, &jwt(ONE, "TEST-ACCOUNT.JDOE", now * 1000, (now + 86_400) * 1000), None).await, taken());
    bench.admin(reqwest::Method::POST, "/emulator/clock", &json!({"advance_ms": 3_700_000})).await;
    assert_eq!(call(&bench, &good, None).await, refused("390144"));
}

#[tokio::test]
async fn an_access_token_is_taken_until_it_expires() {
    let bench = Bench::new().await;
    let made = bench.admin(reqwest::Method::POST, "/emulator/users/jdoe/tokens", &json!({"lifetime_s": 100})).await;
    let token = made["token"].as_str().expect("a token");

    assert_eq!(call(&bench, token, Some("PROGRAMMATIC_ACCESS_TOKEN")).await, taken());
    assert_eq!(call(&bench, token, None).await, taken());
    assert_eq!(call(&bench, token, Some("OAUTH")).await, refused("390303"));
    assert_eq!(call(&bench, "nonsense", Some("PROGRAMMATIC_ACCESS_TOKEN")).await, refused("390303"));
    bench.admin(reqwest::Method::POST, "/emulator/clock", &json!({"advance_ms": 101_000})).await;
    assert_eq!(call(&bench, token, Some("PROGRAMMATIC_ACCESS_TOKEN")).await, refused("390318"));
}

#[tokio::test]
async fn a_call_without_a_token_is_refused() {
    let bench = Bench::new().await;

    let answer = bench
        .http
        .post(format!("{}/api/v2/statements", bench.url))
        .json(&json!({"statement": "select 1"}))
        .send()
        .await;

    assert_eq!(answer.expect("an answer").status(), 401);
}

#[tokio::test]
async fn another_users_handle_is_unknown() {
    let bench = Bench::new().await;
    let done = bench.run("select 1").await;
    bench.emulator.create_user("OTHER", None, None, None, None).await.expect("a user");
    let token = bench.emulator.create_token("OTHER", "programmatic", 100, "").await.expect("a token");
    let other = Bench { token, ..bench };

    let (status, _) =
        other.get(&format!("/api/v2/statements/{}", done["statementHandle"].as_str().expect("a handle"))).await;

    assert_eq!(status, 422);
}

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const BACK: &str = "http://127.0.0.1:9/back";

/// Goes through the consent; returns the code.
async fn consent(bench: &Bench, single_use: bool) -> String {
    let client =
        json!({"client_id": "id+1", "client_secret": "s:e/c", "redirect_uri": BACK, "single_use_refresh": single_use});
    bench.admin(reqwest::Method::POST, "/emulator/oauth/clients", &client).await;
    let http = snowflake_emulator::http_client().redirect(reqwest::redirect::Policy::none()).build().expect("a client");
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
    let url = format!(
        "{}/oauth/authorize?client_id=id%2B1&response_type=code&redirect_uri={BACK}&state=a%26b\
         &scope=refresh_token%20session:role:R&code_challenge={challenge}&code_challenge_method=S256",
        bench.url
    );
    let answer = http.get(url).send().await.expect("an answer");
    let location = answer.headers()["location"].to_str().expect("text").to_owned();
    assert_eq!(answer.status(), 302);
    assert!(location.ends_with("&state=a%26b"), "{location}");
    location.split("code=").nth(1).and_then(|rest| rest.split('&').next()).expect("a code").to_owned()
}

async fn token(bench: &Bench, form: &[(&str, &str)]) -> (u16, Value) {
    let basic = STANDARD.encode("id%2B1:s%3Ae%2Fc");
    let body = form.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&");
    let request = bench
        .http
        .post(format!("{}/oauth/token-request", bench.url))
        .header("authorization", format!("Basic {basic}"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body);
    let (status, body) = read(request.send().await.expect("an answer")).await;
    (status.as_u16(), body)
}

#[tokio::test]
async fn oauth_gives_tokens_for_a_code_and_new_ones_for_a_refresh_token() {
    let bench = Bench::new().await;
    let code = consent(&bench, false).await;
    let exchange = [
        ("grant_type", "authorization_code"),
        ("code", code.as_str()),
        ("redirect_uri", BACK),
        ("code_verifier", VERIFIER),
    ];

    let (status, granted) = token(&bench, &exchange).await;
    assert_eq!((status, &granted["expires_in"], &granted["username"]), (200, &json!(600), &json!("JDOE")));
    assert_eq!(call(&bench, granted["access_token"].as_str().expect("text"), Some("OAUTH")).await, taken());
    assert_eq!(token(&bench, &exchange).await.1["error"], "invalid_grant");
    bench.admin(reqwest::Method::POST, "/emulator/clock", &json!({"advance_ms": 601_000})).await;
    assert_eq!(call(&bench, granted["access_token"].as_str().expect("text"), Some("OAUTH")).await, refused("390318"));

    let refresh = granted["refresh_token"].as_str().expect("text");
    let (status, again) = token(&bench, &[("grant_type", "refresh_token"), ("refresh_token", refresh)]).await;
    assert_eq!(status, 200);
    assert!(again.get("refresh_token").is_none());
    assert_eq!(call(&bench, again["access_token"].as_str().expect("text"), Some("OAUTH")).await, taken());
}

#[tokio::test]
async fn a_single_use_refresh_token_that_comes_back_ends_everything() {
    let bench = Bench::new().await;
    let code = consent(&bench, true).await;
    let (_, granted) =
        token(&bench, &[("grant_type", "authorization_code"), ("code", &code), ("code_verifier", VERIFIER)]).await;
    let first = granted["refresh_token"].as_str().expect("text");

    let (status, second) = token(&bench, &[("grant_type", "refresh_token"), ("refresh_token", first)]).await;
    assert_eq!(status, 200);
    assert_eq!(token(&bench, &[("grant_type", "refresh_token"), ("refresh_token", first)]).await.0, 400);

    let newest = second["refresh_token"].as_str().expect("text");
    assert_eq!(token(&bench, &[("grant_type", "refresh_token"), ("refresh_token", newest)]).await.0, 400);
    assert_eq!(call(&bench, second["access_token"].as_str().expect("text"), Some("OAUTH")).await, refused("390303"));
}

#[tokio::test]
async fn oauth_refuses_a_wrong_verifier_a_wrong_client_and_a_wrong_redirect() {
    let bench = Bench::new().await;
    let code = consent(&bench, false).await;

    assert_eq!(
        token(&bench, &[("grant_type", "authorization_code"), ("code", &code), ("code_verifier", "wrong")]).await.0,
        400
    );
    let stranger = bench
        .http
        .post(format!("{}/oauth/token-request", bench.url))
        .header("content-type", "application/x-www-form-urlencoded")
        .body("grant_type=refresh_token&refresh_token=x&client_id=id%2B1&client_secret=wrong");
    let (status, body) = read(stranger.send().await.expect("an answer")).await;
    assert_eq!((status.as_u16(), &body["error"], &body["success"]), (401, &json!("invalid_client"), &json!(false)));
    let (status, _) =
        bench.get("/oauth/authorize?client_id=id%2B1&response_type=code&redirect_uri=http://127.0.0.1:9/evil").await;
    assert_eq!(status, 400);
}
