//! What comes back from an issuer and lets nobody in, each by the name of what is wrong with it.

use axum::http::StatusCode;
use freshet_core::audit::{AuditFilter, ops as audit};
use freshet_core::member;
use freshet_core::settings::Reach;
use freshet_core::sso::SsoKind;
use serde_json::{Value, json};

use crate::browser::{Browser, Page, bench};
use crate::issuers::{CLIENT, Hostile, Issuer, Says, connect, connect_of, encode, owner, path, query, with_query};
use crate::sso::{go, hostiles_answer, signed_up};

/// How a hostile issuer signs.
type Sign = fn(&str) -> String;

fn refused(page: &Page, told: &str) {
    assert!(page.status == 422 && page.text.contains(told), "{} instead of {told}: {}", page.status, page.text);
    assert!(page.header("set-cookie").contains("Max-Age=0"), "the attempt is over");
}

#[tokio::test]
async fn state_of_another_browser_or_none() {
    let bench = bench(&[]).await;
    let (mut issuer, connection) = signed_up(&bench).await;
    let start = format!("/sso/start?connection={}", connection.id);
    let (mut ada, mut mallory) = (Browser::new(&bench), Browser::new(&bench));
    let away = mallory.get(&start).await;
    let back = path(&issuer.sign_in(away.header("location"), "mallory@acme.example").await);

    // Mallory has Ada's browser come in as Mallory: without a sign-in of its own, and with one.
    refused(&ada.get(&back).await, "not started in this browser");
    ada.get(&start).await;
    refused(&ada.get(&back).await, "not started in this browser");
    ada.get(&start).await;
    let without = path(&with_query(&format!("http://h{back}"), "state", None));
    refused(&ada.get(&without).await, "not started in this browser");

    assert!(ada.cookie.is_empty());
    assert_eq!(mallory.get(&back).await.status, 303, "in the browser that started it, it is good");
}

#[tokio::test]
async fn a_code_replayed() {
    let bench = bench(&[]).await;
    let (mut issuer, connection) = signed_up(&bench).await;
    let start = format!("/sso/start?connection={}", connection.id);
    let mut browser = Browser::new(&bench);
    let away = browser.get(&start).await;
    let back = path(&issuer.sign_in(away.header("location"), "ada@acme.example").await);
    let attempt = browser.attempt.clone();
    assert_eq!(browser.get(&back).await.status, 303);

    // The same answer once more, from a browser that has kept its cookie; and its code in an answer of another sign-in.
    browser.attempt = attempt;
    refused(&browser.get(&back).await, "finished already");
    let away = browser.get(&start).await;
    let state = query(away.header("location"), "state").unwrap();
    let replayed = path(&with_query(&format!("http://h{back}"), "state", Some(&state)));
    refused(&browser.get(&replayed).await, "refuses the code");
}

#[tokio::test]
async fn a_code_of_another_verifier_or_asked_for_without_pkce() {
    let bench = bench(&[]).await;
    let (mut issuer, connection) = signed_up(&bench).await;
    let start = format!("/sso/start?connection={}", connection.id);
    let mut browser = Browser::new(&bench);

    let away = browser.get(&start).await;
    let others = encode(&[7; 32]);
    let url = with_query(away.header("location"), "code_challenge", Some(&others));
    let back = issuer.sign_in(&url, "ada@acme.example").await;
    refused(&browser.get(&path(&back)).await, "refuses the code");

    let away = browser.get(&start).await;
    let url = with_query(away.header("location"), "code_challenge", None);
    let back = issuer.sign_in(&with_query(&url, "code_challenge_method", None), "ada@acme.example").await;
    assert_eq!(query(&back, "error").as_deref(), Some("invalid_request"));
    refused(&browser.get(&path(&back)).await, "did not let you in");
}

#[tokio::test]
async fn a_redirect_uri_that_is_not_ours_to_the_letter() {
    let bench = bench(&[]).await;
    let (mut issuer, connection) = signed_up(&bench).await;
    let mut browser = Browser::new(&bench);
    let away = browser.get(&format!("/sso/start?connection={}", connection.id)).await;
    let ours = query(away.header("location"), "redirect_uri").unwrap();
    assert_eq!(ours, format!("{}/sso/callback", bench.app.settings.public_url()));

    for other in
        [format!("{ours}/"), format!("{ours}?next=/"), ours.replace("/sso", "/evil"), "http://evil.example/".into()]
    {
        let url = with_query(away.header("location"), "redirect_uri", Some(&other));
        match issuer.open(&url).await {
            crate::issuers::Stop::Page(_, text) => assert!(text.contains("redirect_uri"), "{other}: {text}"),
            crate::issuers::Stop::Elsewhere(url) => panic!("{other}: the issuer sends the browser to {url}"),
        }
    }
}

#[tokio::test]
async fn open_redirect_in_next() {
    let bench = bench(&[]).await;
    let (mut issuer, connection) = signed_up(&bench).await;
    for evil in ["//evil.example", "https:%2f%2fevil.example", "/%5cevil.example", "/%09/evil.example"] {
        let mut browser = Browser::new(&bench);
        let start = format!("/sso/start?connection={}&next={evil}", connection.id);

        let came = go(&mut browser, &mut issuer, &start, "ada@acme.example").await;

        assert_eq!((came.status, came.header("location")), (303, "/"), "{evil}");
    }
}

#[tokio::test]
async fn an_address_that_the_issuer_has_not_proved_or_may_not_speak_for() {
    let bench = bench(&[]).await;
    let (_, connection) = signed_up(&bench).await;
    let start = format!("/sso/start?connection={}", connection.id);
    Browser::new(&bench).set_up().await;
    for (login, told) in [
        ("unproved.ada@acme.example", "does not say that your address is proved"),
        ("nobody", "does not say that your address is proved"),
        ("ada@elsewhere.example", "the domain of your address"),
        ("ada@acme.example.evil.example", "the domain of your address"),
        ("ada@notacme.example", "the domain of your address"),
    ] {
        let mut browser = Browser::new(&bench);
        let came = go(&mut browser, &mut Issuer::new(), &start, login).await;
        refused(&came, told);
    }
    // Never by the address alone: the one who set Freshet up has an address of that domain, and nothing came of it.
    let members = member::ops::list(&bench.app, &owner(&bench), Default::default()).await.unwrap();
    assert!(members.data.is_empty());
    let filter = AuditFilter { action: Some("sso.refused".into()), ..AuditFilter::default() };
    let told = audit::list_in_organization(&bench.app, &owner(&bench), &filter, Default::default()).await.unwrap();
    assert_eq!(told.data.len(), 5);
    assert_eq!(told.data[0].actor_kind, "stranger");
}

#[tokio::test]
async fn idp_mix_up() {
    let bench = bench(&[]).await;
    let (honest, hostile) = (Hostile::start().await, Hostile::start().await);
    let connection = connect(&bench, SsoKind::Oidc, &honest.url(), CLIENT).await;
    connect(&bench, SsoKind::Oidc, &hostile.url(), CLIENT).await;
    let mut browser = Browser::new(&bench);
    let start = format!("/sso/start?connection={}", connection.id);
    let answer = async |browser: &mut Browser<'_>, iss: Option<&str>| {
        browser.get(&start).await;
        let attempt = browser.attempt.split_once('=').unwrap().1.to_owned();
        let url = format!("http://h{}", hostiles_answer(&honest, &attempt));
        browser.get(&path(&with_query(&url, "iss", iss))).await
    };
    let before = honest.requests();

    let of_another = answer(&mut browser, Some(&hostile.url())).await;
    let of_nobody = answer(&mut browser, None).await;

    refused(&of_another, "another issuer than the connection");
    refused(&of_nobody, "another issuer than the connection");
    assert!(honest.requests() <= before + 2, "the code was handed to nobody: its metadata and keys at most were read");
    assert_eq!(answer(&mut browser, Some(&honest.url())).await.status, 303);
    // An issuer that announces nothing need not say who it is.
    let silent = Hostile::start().await;
    silent.say(Says { metadata: json!({ "authorization_response_iss_parameter_supported": null }), ..Says::default() });
    let connection = connect(&bench, SsoKind::Oidc, &silent.url(), CLIENT).await;
    browser.get(&format!("/sso/start?connection={}", connection.id)).await;
    let attempt = browser.attempt.split_once('=').unwrap().1.to_owned();
    let url = format!("http://h{}", hostiles_answer(&silent, &attempt));
    assert_eq!(browser.get(&path(&with_query(&url, "iss", None))).await.status, 303);
}

/// What comes of a token in which this is said.
async fn with_token(bench: &freshet_core::testing::Bench, says: Says) -> Page {
    let hostile = Hostile::start().await;
    hostile.say(says);
    let connection = connect(bench, SsoKind::Oidc, &hostile.url(), CLIENT).await;
    let mut browser = Browser::new(bench);
    let start = browser.get(&format!("/sso/start?connection={}", connection.id)).await;
    if start.status != 303 {
        return start;
    }
    let attempt = browser.attempt.split_once('=').unwrap().1.to_owned();
    browser.get(&hostiles_answer(&hostile, &attempt)).await
}

#[tokio::test]
async fn an_id_token_that_is_not_what_was_asked_for() {
    let bench = bench(&[]).await;
    let now = freshet_core::clock::Clock::system().now().timestamp();
    let claims: [(&str, Value); 12] = [
        ("iss of another", json!({ "iss": "https://login.acme.example" })),
        ("aud of another", json!({ "aud": "somebody-else" })),
        ("aud of ours and others'", json!({ "aud": [CLIENT.0, "somebody-else"] })),
        ("aud of nobody", json!({ "aud": [] })),
        ("azp of another", json!({ "azp": "somebody-else" })),
        ("exp over", json!({ "exp": now - 1 })),
        ("no exp", json!({ "exp": null })),
        ("iat long ago", json!({ "iat": now - 3_600, "exp": now + 3_600 })),
        ("iat to come", json!({ "iat": now + 3_600, "exp": now + 7_200 })),
        ("nonce of another", json!({ "nonce": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" })),
        ("no nonce", json!({ "nonce": null })),
        ("at_hash of another", json!({ "at_hash": "AAAAAAAAAAAAAAAAAAAAAA" })),
    ];
    for (name, claims) in claims {
        let came = with_token(&bench, Says { claims, ..Says::default() }).await;
        // What does not even read as a token is no answer to the code.
        let told = if name == "no exp" { "refuses the code" } else { "ID token" };
        assert!(came.status == 422 && came.text.contains(told), "{name}: {} {}", came.status, came.text);
    }

    let by_secret = |signed: &str| {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, CLIENT.1.as_bytes());
        encode(ring::hmac::sign(&key, signed.as_bytes()).as_ref())
    };
    let headers: [(&str, Value, Option<Sign>); 4] = [
        ("alg none", json!({ "alg": "none", "kid": null }), Some(|_| String::new())),
        ("alg HS256 by the client's secret", json!({ "alg": "HS256", "kid": null }), Some(by_secret)),
        ("key of nobody", json!({ "kid": "unknown" }), None),
        ("signature of another text", json!({}), Some(|_| encode(&[7; 64]))),
    ];
    for (name, header, signature) in headers {
        let came = with_token(&bench, Says { header, signature, ..Says::default() }).await;
        assert!(came.status == 422 && came.text.contains("ID token"), "{name}: {} {}", came.status, came.text);
    }
    assert_eq!(with_token(&bench, Says::default()).await.status, 303, "the same without a fault lets in");
}

#[tokio::test]
async fn keys_that_an_issuer_turns_over_are_read_again() {
    let bench = bench(&[]).await;
    let hostile = Hostile::start().await;
    let connection = connect(&bench, SsoKind::Oidc, &hostile.url(), CLIENT).await;
    let mut browser = Browser::new(&bench);
    browser.get(&format!("/sso/start?connection={}", connection.id)).await;
    let attempt = browser.attempt.split_once('=').unwrap().1.to_owned();

    hostile.say(Says { key_id: Some("second"), ..Says::default() });
    let came = browser.get(&hostiles_answer(&hostile, &attempt)).await;

    assert_eq!(came.status, 303, "{}", came.text);
}

#[tokio::test]
async fn an_issuer_whose_documents_are_not_its_own() {
    let bench = bench(&[]).await;
    let long = format!("{{\"issuer\": \"{}\"}}", "x".repeat(300_000));
    let says = [
        ("issuer of another", Says { metadata: json!({ "issuer": "https://login.acme.example" }), ..Says::default() }),
        (
            "endpoint without TLS",
            Says { metadata: json!({ "token_endpoint": "http://10.0.0.1/token" }), ..Says::default() },
        ),
        ("long", Says { body: Some((StatusCode::OK, long)), ..Says::default() }),
        ("no JSON", Says { body: Some((StatusCode::OK, "<html>".into())), ..Says::default() }),
        ("failing", Says { body: Some((StatusCode::INTERNAL_SERVER_ERROR, String::new())), ..Says::default() }),
    ];
    for (name, says) in says {
        let came = with_token(&bench, says).await;
        assert!(came.status == 422 || came.status == 502, "{name}: {}", came.status);
    }
    let script = Says { metadata: json!({ "authorization_endpoint": "javascript:alert(1)" }), ..Says::default() };
    let hostile = Hostile::start().await;
    hostile.say(script);
    let connection = connect(&bench, SsoKind::Oidc, &hostile.url(), CLIENT).await;
    let start = Browser::new(&bench).get(&format!("/sso/start?connection={}", connection.id)).await;
    assert_eq!((start.status, start.header("location")), (502, ""));
}

/// A listener that nobody shall come to.
async fn victim() -> Hostile {
    Hostile::start().await
}

#[tokio::test]
async fn ssrf_by_the_issuer() {
    let victim = victim().await;
    let bench = bench(&[("egress_allow", "")]).await;
    let port = victim.url().rsplit(':').next().unwrap().to_owned();
    let mut pages = Vec::new();
    for (number, host) in [
        "http://127.0.0.1",
        "https://127.0.0.1",
        "https://localhost",
        "http://localhost",
        "https://[::1]",
        "https://[::ffff:127.0.0.1]",
        "https://0.0.0.0",
        "https://2130706433",
        "https://0x7f000001",
        "https://0177.0.0.1",
        "https://127.1",
        "https://169.254.169.254",
        "https://[64:ff9b::7f00:1]",
    ]
    .into_iter()
    .enumerate()
    {
        let connection = connect_of(
            &bench,
            &owner(&bench),
            "acme.example",
            SsoKind::Oidc,
            &format!("{host}:{port}/{number}"),
            CLIENT,
        )
        .await;
        let page = Browser::new(&bench).get(&format!("/sso/start?connection={}", connection.id)).await;
        assert_eq!(page.status, 502, "{host}: {}", page.text);
        pages.push(page.text);
    }
    assert_eq!(victim.requests(), 0);
    pages.dedup();
    assert_eq!(pages.len(), 1, "the same words, whatever is there: {pages:?}");
    for (number, none) in
        ["http://10.0.0.1", "ftp://acme.example", "https://user@acme.example", "acme", "https://a.example/?x"]
            .into_iter()
            .enumerate()
    {
        let new = freshet_core::sso::SsoConnectionNew {
            name: number.to_string(),
            kind: SsoKind::Oidc,
            issuer: Some(none.into()),
            client_id: "c".into(),
            client_secret: "s".to_owned().into(),
            domains: vec![],
            default_role: freshet_core::access::Role::Viewer,
            default_workspace_id: None,
        };
        let refused = freshet_core::sso::ops::create(&bench.app, &owner(&bench), &new).await.unwrap_err();
        assert_eq!(refused.fields[0].pointer, "/issuer", "{none}");
    }
}

#[tokio::test]
async fn ssrf_by_the_endpoints_of_an_issuers_metadata() {
    let victim = victim().await;
    // The issuer's own address may be dialled, and the victim's may not.
    let bench = bench(&[("egress_allow", "127.0.0.2")]).await;
    let url = victim.url();
    let ways = [
        ("jwks_uri", Says { metadata: json!({ "jwks_uri": format!("{url}/keys") }), ..Says::default() }),
        ("token_endpoint", Says { metadata: json!({ "token_endpoint": format!("{url}/token") }), ..Says::default() }),
        (
            "userinfo_endpoint",
            Says {
                metadata: json!({ "userinfo_endpoint": format!("{url}/userinfo") }),
                claims: json!({ "email": null }),
                ..Says::default()
            },
        ),
        ("redirect", Says { redirect: Some(format!("{url}/.well-known/openid-configuration")), ..Says::default() }),
        (
            "a name",
            Says {
                metadata: json!({ "token_endpoint": url.replace("127.0.0.1", "localhost") + "/token" }),
                ..Says::default()
            },
        ),
    ];
    for (name, says) in ways {
        let hostile = Hostile::start_at("127.0.0.2").await;
        hostile.say(says);
        let connection = connect(&bench, SsoKind::Oidc, &hostile.url(), CLIENT).await;
        let mut browser = Browser::new(&bench);
        let start = browser.get(&format!("/sso/start?connection={}", connection.id)).await;
        let page = if start.status == 303 {
            let attempt = browser.attempt.split_once('=').unwrap().1.to_owned();
            browser.get(&hostiles_answer(&hostile, &attempt)).await
        } else {
            start
        };
        assert_eq!((page.status, victim.requests()), (502, 0), "{name}: {}", page.text);
        assert!(hostile.requests() > 0, "{name}: the issuer itself was asked");
    }
}

#[tokio::test]
async fn ssrf_by_the_issuer_past_the_organizations_own_policy() {
    let bench = bench(&[]).await;
    let hostile = Hostile::start().await;
    let connection = connect(&bench, SsoKind::Oidc, &hostile.url(), CLIENT).await;
    let start = format!("/sso/start?connection={}", connection.id);
    let organization = owner(&bench).organization;
    let own = Some((Reach::Public, ""));
    freshet_core::organization::ops::set_egress(&bench.app, organization, own).await.unwrap();

    let closed = Browser::new(&bench).get(&start).await;

    assert_eq!((closed.status, hostile.requests()), (502, 0), "{}", closed.text);
    freshet_core::organization::ops::set_egress(&bench.app, organization, None).await.unwrap();
    assert_eq!(Browser::new(&bench).get(&start).await.status, 303, "the installation's opens it");
}
