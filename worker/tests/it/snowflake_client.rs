//! The client of the SQL API against scripted answers over real HTTP: running, trouble, partitions, refusals.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use freshet_core::clock::Clock;
use freshet_core::connector::{BatchName, Row};
use freshet_core::error::{Code, Result};
use freshet_core::testing::EGRESS;
use freshet_worker::sources::snowflake::client::{Client, QueryTag, Statement, Submitted, http_client};
use freshet_worker::sources::snowflake::sign_in::SignIn;
use freshet_worker::sources::snowflake::sign_in::key_pair::{KeyPair, Signer};
use freshet_worker::sources::snowflake::sign_in::oauth::{LockedToken, OAuth, OAuthApp, RefreshTokens};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::snowflake::{Answer, Seen, Server, all, client_at, expected, result, rows};

fn is_submit(seen: &Seen) -> bool {
    seen.method == "POST" && seen.path.is_empty()
}

fn trouble(status: u16) -> Answer {
    Answer::json(status, &json!({"code": "390505", "message": "Too many requests."}))
}

fn refused(code: &str, state: &str, message: &str) -> Answer {
    let body = json!({"code": code, "sqlState": state, "message": message, "statementHandle": "h1"});
    Answer::json(422, &body)
}

/// A server whose statement `h1` has these partitions, each answered by `answer` first.
async fn partitioned(partitions: &'static [usize], answer: fn(&Seen, Answer) -> Answer) -> Server {
    Server::start(move |seen| match seen.partition() {
        None if is_submit(seen) => Answer::running("h1"),
        None => answer(seen, Answer::json(200, &result("h1", partitions)).gzip()),
        Some(number) => answer(seen, Answer::json(200, &json!({"data": rows(partitions, number)})).gzip()),
    })
    .await
}

#[tokio::test]
async fn a_statement_that_runs_is_polled_until_it_is_done() {
    let server = Server::start(|seen| match (is_submit(seen), seen.times) {
        (true, _) => Answer::running("h1"),
        (false, 0) => Answer::running("h1"),
        // Busy, and running still: not an error.
        (false, 1) => Answer::json(429, &json!({"code": "390505", "message": "busy", "statementHandle": "h1"})),
        (false, _) => Answer::json(200, &result("h1", &[2])),
    })
    .await;

    let found = server.client().rows(&Statement::large("select * from t")).await.unwrap();

    assert_eq!(all(found).await.unwrap(), expected(&[2]));
    let seen = server.seen();
    assert_eq!(seen.len(), 4);
    assert_eq!(seen[0].query["async"], "true");
    assert!(!seen[0].query.contains_key("retry") && !seen[0].query.contains_key("nullable"));
    for seen in &seen {
        assert_eq!(seen.headers["x-snowflake-authorization-token-type"], "PROGRAMMATIC_ACCESS_TOKEN");
        assert_eq!(seen.headers["authorization"], "Bearer token-1");
        assert_eq!(seen.headers["accept"], "application/json");
        assert_eq!(seen.headers["content-type"], "application/json");
        assert!(seen.headers["user-agent"].starts_with("freshet/"));
    }
}

#[tokio::test]
async fn a_request_says_where_it_runs_and_whose_it_is_and_sets_no_format() {
    let server = Server::start(|_| Answer::json(200, &result("h1", &[0]))).await;
    let name = BatchName { workspace: "ws_1".into(), sync: "snc_1".into(), run: "run_1".into(), seq: 7 };
    let request_id = Client::draw_request_id();
    let statement = Statement::large("select 1").tagged(QueryTag::of_batch(&name));

    let submitted = server.client().submit(request_id, &statement).await.unwrap();

    assert!(matches!(submitted, Submitted::Done(_)));
    let seen = &server.seen()[0];
    assert_eq!(seen.query["requestId"], request_id.to_string());
    let mut body = seen.json();
    let tag: Value = serde_json::from_str(body["parameters"]["query_tag"].take().as_str().unwrap()).unwrap();
    assert_eq!(tag, json!({"freshet": {"workspace": "ws_1", "sync": "snc_1", "run": "run_1", "batch": 7}}));
    assert_eq!(
        body,
        json!({"statement": "select 1", "timeout": 3600, "role": "LOADER", "warehouse": "WH", "database": "SHOP",
               "parameters": {"query_tag": null}})
    );
}

#[tokio::test]
async fn trouble_is_met_with_the_same_request_and_the_word_retry() {
    let server = Server::start(|seen| match seen.times {
        0 => trouble(503),
        1 => trouble(429),
        2 => Answer::running("h1").cut(10),
        _ => Answer::json(200, &result("h1", &[1])),
    })
    .await;

    let found = server.client().rows(&Statement::large("create table a as select 1")).await.unwrap();

    assert_eq!(all(found).await.unwrap(), expected(&[1]));
    let seen = server.seen();
    assert_eq!(seen.len(), 4);
    for repeat in &seen[1..] {
        assert_eq!(repeat.query["requestId"], seen[0].query["requestId"]);
        assert_eq!(repeat.query["retry"], "true");
        assert_eq!(repeat.body, seen[0].body);
    }
}

#[tokio::test]
async fn a_stored_request_is_sent_again_as_a_repeat() {
    let server = Server::start(|_| Answer::json(200, &result("h1", &[1]))).await;
    let request_id = Client::draw_request_id();

    let submitted = server.client().submit_again(request_id, &Statement::large("select 1")).await.unwrap();

    assert!(matches!(submitted, Submitted::Done(_)));
    let seen = &server.seen()[0];
    assert_eq!((seen.query["requestId"].clone(), seen.query["retry"].as_str()), (request_id.to_string(), "true"));
}

#[tokio::test]
async fn trouble_that_stays_ends_after_some_tries_with_its_code() {
    for (status, code) in [
        (429, Code::SnowflakeBusy),
        (500, Code::SnowflakeUnreachable),
        (502, Code::SnowflakeUnreachable),
        (503, Code::SnowflakeUnreachable),
        (504, Code::SnowflakeUnreachable),
    ] {
        let server = Server::start(move |_| trouble(status)).await;

        let error = server.client().run(&Statement::small("select 1")).await.unwrap_err();

        assert_eq!(error.code, code);
        assert_eq!(server.seen().len(), 4, "{status}");
    }
}

#[tokio::test]
async fn what_asking_again_does_not_change_is_asked_once() {
    for (answer, code) in [
        (refused("000904", "42000", "invalid identifier 'A'"), Code::ModelObjectMissing),
        (refused("001003", "42000", "syntax error"), Code::ModelSyntax),
        (refused("100038", "22018", "Numeric value 'secret' is not recognized"), Code::SnowflakeQuery),
        (Answer::json(408, &json!({"code": "000630", "statementHandle": "h1"})), Code::SnowflakeTimeout),
        (Answer::json(400, &json!({"code": "390142"})), Code::SnowflakeRequest),
        (Answer::new(405, ""), Code::SnowflakeRequest),
        (Answer::new(415, ""), Code::SnowflakeRequest),
        (Answer::new(404, "<html>"), Code::SnowflakeRefused),
        (Answer::new(307, ""), Code::SnowflakeRequest),
        (Answer::new(202, "{}"), Code::SnowflakeAnswer),
    ] {
        let server = Server::start(move |_| answer.clone()).await;

        let error = server.client().run(&Statement::small("select 1")).await.unwrap_err();

        assert_eq!(error.code, code, "{error}");
        assert!(!error.message.contains("secret"));
        assert_eq!(server.seen().len(), 1, "{error}");
    }
}

#[tokio::test]
async fn partitions_come_in_order_and_no_more_than_three_are_fetched_ahead() {
    const PARTITIONS: &[usize] = &[3, 0, 5, 1, 2, 4, 1, 1, 7];
    let server = partitioned(PARTITIONS, |_, answer| answer).await;
    let mut found = server.client().rows(&Statement::large("select * from t")).await.unwrap();

    let mut row = Row::default();
    assert!(found.next(&mut row).await.unwrap());
    let ahead = server.seen().iter().filter_map(Seen::partition).max();
    assert!(ahead.is_none_or(|number| number <= 3), "{ahead:?}");

    assert_eq!(all(found).await.unwrap(), expected(PARTITIONS)[1..]);
    let mut asked: Vec<_> = server.seen().iter().filter_map(Seen::partition).collect();
    asked.sort_unstable();
    assert_eq!(asked, [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[tokio::test]
async fn a_partition_that_breaks_off_is_fetched_again_without_a_gap_or_a_repeat() {
    const PARTITIONS: &[usize] = &[400, 900, 300];
    let server = partitioned(PARTITIONS, |seen, answer| match (seen.partition(), seen.times) {
        (None, 0) => answer.cut(700),
        (Some(1), 0) => answer.cut(900),
        (Some(1), 1) => answer.cut(30),
        (Some(2), 0) => trouble(503),
        _ => answer,
    })
    .await;

    let found = server.client().rows(&Statement::large("select * from t")).await.unwrap();

    assert_eq!(all(found).await.unwrap(), expected(PARTITIONS));
}

#[tokio::test]
async fn a_partition_that_breaks_off_every_time_ends_the_read() {
    let server = partitioned(&[1, 500], |seen, answer| match seen.partition() {
        Some(1) => answer.cut(100),
        _ => answer,
    })
    .await;

    let found = server.client().rows(&Statement::large("select * from t")).await.unwrap();

    let error = all(found).await.unwrap_err();
    assert_eq!(error.code, Code::SnowflakeConnectionLost);
    assert!(error.message.contains("partition 1"), "{error}");
}

#[tokio::test]
async fn rows_that_are_not_as_announced_are_an_error_and_never_the_end() {
    let with = |change: fn(&mut Value)| {
        let mut body = result("h1", &[3]);
        change(&mut body);
        Answer::json(200, &body)
    };
    let cases = [
        (with(|body| drop(body["data"].as_array_mut().unwrap().pop())), Code::SnowflakeAnswer),
        (with(|body| body["data"].as_array_mut().unwrap().push(json!(["9", "x"]))), Code::SnowflakeAnswer),
        (with(|body| body["resultSetMetaData"]["numRows"] = 4.into()), Code::SnowflakeAnswer),
        (with(|body| body["data"][1] = json!(["1"])), Code::SnowflakeAnswer),
        (with(|body| body["data"][1][0] = 1.into()), Code::SnowflakeAnswer),
        (with(|body| body["data"][1][0] = "1,5".into()), Code::SnowflakeAnswer),
        (with(|body| drop(body.as_object_mut().unwrap().remove("resultSetMetaData"))), Code::SnowflakeAnswer),
        (with(|body| body["code"] = "391908".into()), Code::SnowflakeTooLarge),
        (with(|body| body["resultSetMetaData"]["rowType"][0]["type"] = "quark".into()), Code::ModelTypeUnsupported),
        (Answer::new(200, r#"{"code":"090001""#), Code::SnowflakeAnswer),
        (Answer::new(200, "not gzip").gzip().cut(12), Code::SnowflakeConnectionLost),
    ];
    for (answer, code) in cases {
        let server = Server::start(move |_| answer.clone()).await;

        let found = match server.client().rows(&Statement::small("select * from t")).await {
            Ok(found) => all(found).await,
            Err(error) => Err(error),
        };

        let error = found.unwrap_err();
        assert_eq!(error.code, code, "{error}");
    }
}

#[tokio::test]
async fn rows_that_come_before_their_columns_are_fetched_again() {
    const PARTITIONS: &[usize] = &[2, 1];
    let server = Server::start(|seen| match seen.partition() {
        None => {
            let whole = result("h1", PARTITIONS);
            let (data, meta) = (&whole["data"], &whole["resultSetMetaData"]);
            let body =
                format!(r#"{{"data":{data},"resultSetMetaData":{meta},"code":"090001","statementHandle":"h1"}}"#);
            Answer::new(200, body)
        }
        // A partition may also come as a bare array.
        Some(number) => Answer::json(200, &rows(PARTITIONS, number)),
    })
    .await;

    let found = server.client().rows(&Statement::small("select * from t")).await.unwrap();

    assert_eq!(all(found).await.unwrap(), expected(PARTITIONS));
}

#[tokio::test]
async fn a_refused_token_is_made_anew_once() {
    let key = KeyPair::draw().unwrap();
    let other = KeyPair::draw().unwrap();
    let prints = [key.fingerprint().to_owned(), other.fingerprint().to_owned()];
    let server = Server::start(|seen| match seen.times {
        0 => Answer::json(401, &json!({"code": "390144", "message": "JWT token is invalid."})),
        _ => Answer::json(200, &result("h1", &[1])),
    })
    .await;
    let client = server.client_with(SignIn::KeyPair(Signer::new("org-acct.eu", "loader", vec![key, other])));

    client.run(&Statement::small("select 1")).await.unwrap();

    let issuer = |seen: &Seen| {
        use base64::Engine as _;
        let token = seen.headers["authorization"].strip_prefix("Bearer ").unwrap().to_owned();
        let claims = base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        serde_json::from_slice::<Value>(&claims).unwrap()["iss"].as_str().unwrap().to_owned()
    };
    let issuers: Vec<_> = server.seen().iter().map(issuer).collect();
    assert_eq!(issuers, prints.map(|print| format!("ORG-ACCT.LOADER.{print}")));
    assert_eq!(server.seen()[0].headers["x-snowflake-authorization-token-type"], "KEYPAIR_JWT");
}

#[tokio::test]
async fn a_token_that_stays_refused_is_a_failed_sign_in() {
    for (status, code) in [(401, Code::SnowflakeLogin), (403, Code::SnowflakeRefused)] {
        let server = Server::start(move |_| Answer::json(status, &json!({"code": "390303"}))).await;

        let error = server.client().run(&Statement::small("select 1")).await.unwrap_err();

        assert_eq!(error.code, code);
        assert!(!error.chain().contains("token-1"));
        assert_eq!(server.seen().len(), 1);
    }
}

/// A store of single-use refresh tokens that writes down what happens.
#[derive(Clone)]
struct Ledger(Arc<Mutex<Vec<String>>>);

struct Taken(Ledger);

#[async_trait]
impl RefreshTokens for Ledger {
    async fn lock(&self) -> Result<Box<dyn LockedToken>> {
        Ok(Box::new(Taken(self.clone())))
    }
}

#[async_trait]
impl LockedToken for Taken {
    fn token(&self) -> SecretString {
        SecretString::from(self.0.0.lock().unwrap().last().unwrap().clone())
    }

    async fn replace(self: Box<Self>, token: SecretString) -> Result<()> {
        self.0.0.lock().unwrap().push(token.expose_secret().to_owned());
        Ok(())
    }
}

fn oauth(server: &Server, ledger: &Ledger) -> SignIn {
    let app = OAuthApp {
        base_url: server.url.clone(),
        client_id: "id=".into(),
        client_secret: SecretString::from("s/ecret"),
    };
    SignIn::OAuth(OAuth::new(app, Box::new(ledger.clone())))
}

#[tokio::test]
async fn an_access_token_is_renewed_and_the_new_refresh_token_is_stored_before_it_is_used() {
    let ledger = Ledger(Arc::new(Mutex::new(vec!["refresh-0".into()])));
    let stored = ledger.clone();
    let server = Server::start(move |seen| match (seen.path.as_str(), seen.times) {
        ("/oauth/token-request", times) => Answer::json(
            200,
            &json!({"access_token": format!("access-{times}"), "refresh_token": format!("refresh-{}", times + 1),
                    "expires_in": 600, "token_type": "Bearer", "username": "loader"}),
        ),
        (_, times) => {
            let token = format!("Bearer access-{times}");
            assert_eq!(stored.0.lock().unwrap().len(), times + 2, "the refresh token is stored by now");
            assert_eq!(seen.headers["authorization"], token);
            match times {
                0 => Answer::json(401, &json!({"code": "390318", "message": "OAuth access token expired."})),
                _ => Answer::json(200, &result("h1", &[1])),
            }
        }
    })
    .await;

    server.client_with(oauth(&server, &ledger)).run(&Statement::small("select 1")).await.unwrap();

    assert_eq!(*ledger.0.lock().unwrap(), ["refresh-0", "refresh-1", "refresh-2"]);
    let renewals: Vec<_> = server.seen().into_iter().filter(|seen| seen.path.starts_with("/oauth")).collect();
    assert!(renewals[0].body.contains("grant_type=refresh_token"), "{}", renewals[0].body);
    assert!(renewals[1].body.contains("refresh_token=refresh-1"), "{}", renewals[1].body);
    // RFC 6749, 2.3.1: id and secret are encoded before they are joined.
    use base64::Engine as _;
    let basic = renewals[0].headers["authorization"].strip_prefix("Basic ").unwrap();
    assert_eq!(base64::prelude::BASE64_STANDARD.decode(basic).unwrap(), b"id%3D:s%2Fecret");
}

#[tokio::test]
async fn a_spent_consent_is_said_so() {
    let server = Server::start(|_| Answer::json(400, &json!({"error": "invalid_grant", "message": "gone"}))).await;
    let ledger = Ledger(Arc::new(Mutex::new(vec!["refresh-0".into()])));

    let error = server.client_with(oauth(&server, &ledger)).run(&Statement::small("select 1")).await.unwrap_err();

    assert_eq!(error.code, Code::SnowflakeConsent);
    assert!(!error.chain().contains("refresh-0"));
}

#[tokio::test]
async fn a_code_is_exchanged_with_its_verifier() {
    let body = json!({"access_token": "access", "refresh_token": "refresh", "expires_in": 60, "token_type": "Bearer"});
    let server = Server::start(move |_| Answer::json(200, &body)).await;
    let app =
        OAuthApp { base_url: server.url.clone(), client_id: "id".into(), client_secret: "secret".to_owned().into() };
    let consent = app.consent("http://localhost/callback", None).unwrap();
    let now = Clock::system().now();

    let code = SecretString::from("code-1");
    let redirect = "http://localhost/callback";
    let http = http_client(&EGRESS, &server.url).unwrap();
    let tokens = app.exchange(&http, now, &code, &consent.verifier, redirect).await.unwrap();

    assert_eq!(tokens.refresh.unwrap().expose_secret(), "refresh");
    assert_eq!((tokens.expires_at - now).num_seconds(), 60);
    let asked = &server.seen()[0].body;
    assert!(asked.contains("code=code-1") && asked.contains("grant_type=authorization_code"), "{asked}");
    assert!(asked.contains(&format!("code_verifier={}", consent.verifier.expose_secret())), "{asked}");
}

#[tokio::test]
async fn a_script_gives_each_statements_result() {
    let server = Server::start(|seen| match seen.path.as_str() {
        "" => Answer::running("parent"),
        "/parent" => {
            let mut body = result("parent", &[1]);
            body["statementHandles"] = json!(["first", "second"]);
            Answer::json(200, &body)
        }
        _ => Answer::json(200, &result("second", &[2])),
    })
    .await;
    let client = server.client();

    let handles = client.script(&Statement::large("begin; select * from t"), 2).await.unwrap();

    assert_eq!(handles, ["first", "second"]);
    assert_eq!(server.seen()[0].json()["parameters"]["MULTI_STATEMENT_COUNT"], "2");
    assert_eq!(all(client.wait(&handles[1]).await.unwrap()).await.unwrap(), expected(&[2]));
    assert_eq!(client.script(&Statement::large("a; b; c"), 3).await.unwrap_err().code, Code::SnowflakeAnswer);
}

#[tokio::test]
async fn a_cancel_of_what_is_over_is_no_error() {
    let server = Server::start(|seen| match seen.path.as_str() {
        "/h1/cancel" => Answer::json(200, &json!({"code": "000604", "sqlState": "57014"})),
        _ => refused("000709", "02000", "Statement h2 not found"),
    })
    .await;

    server.client().cancel("h1").await.unwrap();
    server.client().cancel("h2").await.unwrap();

    assert!(server.seen().iter().all(|seen| seen.method == "POST"));
}

#[tokio::test]
async fn a_statement_that_nobody_waits_for_any_more_is_cancelled() {
    let server = Server::start(|_| Answer::running("h1")).await;
    let client = server.client();
    let waiting = tokio::spawn(async move { client.run(&Statement::large("select slow()")).await });
    until(&server, |seen| seen.path == "/h1").await;

    waiting.abort();

    until(&server, |seen| seen.path == "/h1/cancel").await;
}

/// Waits until the server has seen such a request.
async fn until(server: &Server, wanted: fn(&Seen) -> bool) {
    let seen = async {
        while !server.seen().iter().any(wanted) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), seen).await.expect("the request comes");
}

#[tokio::test]
async fn a_result_that_is_not_kept_any_more_has_its_code() {
    let server = partitioned(&[1, 1], |seen, answer| match seen.partition() {
        Some(_) => Answer::new(404, ""),
        None => answer,
    })
    .await;

    let found = server.client().rows(&Statement::large("select * from t")).await.unwrap();

    assert_eq!(all(found).await.unwrap_err().code, Code::SnowflakeResultGone);
}

#[tokio::test]
async fn a_host_that_does_not_answer_or_has_no_tls_is_told_apart() {
    let server = Server::start(|_| Answer::running("h1")).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let token = || SignIn::Token(SecretString::from("token-1"));

    let no_tls = client_at(&server.url.replace("http:", "https:"), token()).knock().await.unwrap_err();
    let no_answer = client_at(&closed, token()).knock().await.unwrap_err();

    assert_eq!(no_tls.code, Code::SnowflakeTls, "{}", no_tls.chain());
    assert_eq!(no_answer.code, Code::SnowflakeUnreachable);
    assert_eq!(server.seen().len(), 0);
}
