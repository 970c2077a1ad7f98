//! Coming in, staying, going out.

use crate::browser::{Browser, PASSWORD, bench};

#[tokio::test]
async fn the_first_start_leads_to_the_set_up_and_then_to_the_start() {
    let bench = bench(&[]).await;
    let mut browser = Browser::new(&bench);

    let first = browser.get("/").await;
    assert_eq!((first.status, first.header("location")), (303, "/set-up"));
    browser.set_up().await;

    let start = browser.get("/").await;
    assert!(start.text.contains("Good to see you, Ada") && start.text.contains("Lovelace &#38; Co"), "{}", start.text);
    let again = browser.get("/set-up").await;
    assert_eq!((again.status, again.header("location")), (303, "/"));
}

#[tokio::test]
async fn a_wrong_form_comes_back_with_what_was_wrong_and_what_was_typed() {
    let bench = bench(&[]).await;
    let mut browser = Browser::new(&bench);
    let word = freshet_core::user::ops::draw_set_up_word(&bench.app, false).await.unwrap().unwrap();
    let page = browser.get("/set-up").await;
    let typed = [
        ("word", word.expose()),
        ("email", "ada@acme.example"),
        ("name", "<b>Ada</b>"),
        ("password", "password1234"),
        ("organization", "Lovelace"),
    ];

    let weak = browser.fill(&page, "/set-up", &typed).await;

    assert_eq!(weak.status, 422);
    assert!(weak.text.contains("href=\"#password\"") && weak.text.contains("aria-invalid=\"true\""), "{}", weak.text);
    assert_eq!(weak.form("/set-up")["email"], "ada@acme.example");
    assert!(weak.text.contains("&#60;b&#62;Ada") && !weak.text.contains("<b>Ada"));
    assert!(!weak.text.contains("password1234"), "a secret is not written into a page");
}

#[tokio::test]
async fn every_page_has_the_headers_and_none_has_script_or_inline_style() {
    let bench = bench(&[("public_url", "https://freshet.acme.example")]).await;
    let mut browser = Browser::new(&bench);
    for path in ["/set-up", "/sign-in", "/forgot", "/reset?word=a", "/verify?word=a", "/invitation?word=a", "/nothing"]
    {
        let page = browser.get(path).await;
        assert!(page.header("content-security-policy").starts_with("default-src 'none'; style-src 'self'"), "{path}");
        assert_eq!(page.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(page.header("referrer-policy"), "no-referrer", "{path}");
        assert_eq!(page.header("cache-control"), "no-store", "{path}");
        assert!(page.header("strict-transport-security").contains("max-age"), "{path}");
        assert!(!page.text.contains("<script") && !page.text.contains("style=\""), "{path}");
        assert!(page.text.contains("<html lang=\"en\">") && page.text.matches("<h1>").count() == 1, "{path}");
    }
    browser.set_up().await;
    assert!(browser.cookie.starts_with("__Host-fr_s="));
    let account = browser.get("/account").await;
    assert!(account.status == 200 && !account.text.contains("<script") && !account.text.contains("style=\""));
}

#[tokio::test]
async fn the_cookie_is_the_hosts_alone() {
    let bench = bench(&[("public_url", "https://freshet.acme.example")]).await;
    let mut browser = Browser::new(&bench);
    browser.set_up().await;
    browser.cookie.clear();
    let page = browser.get("/sign-in").await;

    let signed_in = browser.fill(&page, "/sign-in", &[("email", "ada@acme.example"), ("password", PASSWORD)]).await;

    let cookie = signed_in.header("set-cookie");
    for part in ["__Host-fr_s=", "; Path=/", "; HttpOnly", "; SameSite=Lax", "; Secure"] {
        assert!(cookie.contains(part), "{part} in {}", cookie.split('=').next().unwrap());
    }
    assert!(!cookie.contains("Domain"));
}

#[tokio::test]
async fn a_form_of_another_sites_page_is_refused() {
    let bench = bench(&[]).await;
    let mut browser = Browser::new(&bench);
    browser.set_up().await;
    let account = browser.get("/account").await;
    let form = account.form("/account/name");
    let good: Vec<_> = form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let without: Vec<_> = good.iter().copied().filter(|(name, _)| *name != "form_token").collect();
    let origin = bench.app.settings.public_url();

    for (headers, fields, status) in [
        (&[("sec-fetch-site", "cross-site")][..], &good, 403),
        (&[("sec-fetch-site", "same-site")], &good, 403),
        (&[("sec-fetch-site", "none")], &good, 403),
        (&[("origin", "https://evil.example")], &good, 403),
        (&[("origin", "null")], &good, 403),
        (&[], &good, 403),
        (&[("sec-fetch-site", "same-origin")], &without, 403),
        (&[("origin", origin.as_str())], &good, 303),
        (&[("sec-fetch-site", "same-origin")], &good, 303),
    ] {
        let answer = browser.send("POST", "/account/name", fields, headers).await;
        assert_eq!(answer.status, status, "{headers:?}");
    }
    for form in ["/sign-in", "/forgot", "/set-up", "/sign-out", "/invitation"] {
        let answer = browser.send("POST", form, &[], &[("sec-fetch-site", "cross-site")]).await;
        assert_eq!(answer.status, 403, "{form}");
    }
}

#[tokio::test]
async fn signing_in_leads_on_to_where_one_wanted_to_go_and_nowhere_else() {
    let bench = bench(&[]).await;
    let mut browser = Browser::new(&bench);
    browser.set_up().await;
    browser.cookie.clear();

    let asked = browser.get("/account").await;
    assert_eq!((asked.status, asked.header("location")), (303, "/sign-in?next=/account"));
    for (next, location) in [("/account", "/account"), ("//evil.example", "/"), ("https://evil.example/", "/")] {
        let page = browser.get("/sign-in").await;
        let typed = [("email", "ada@acme.example"), ("password", PASSWORD), ("next", next)];
        let answer = browser.fill(&page, "/sign-in", &typed).await;
        assert_eq!((answer.status, answer.header("location")), (303, location));
    }
}

#[tokio::test]
async fn a_session_is_another_after_each_sign_in_and_gone_after_sign_out() {
    let bench = bench(&[]).await;
    let mut browser = Browser::new(&bench);
    browser.set_up().await;
    let first = browser.cookie.clone();
    let page = browser.get("/sign-in").await;
    browser.fill(&page, "/sign-in", &[("email", "ada@acme.example"), ("password", PASSWORD)]).await;
    let second = browser.cookie.clone();
    assert_ne!(first, second, "the cookie that was there before does not come to be somebody's");

    let account = browser.get("/account").await;
    assert_eq!(account.text.matches("/end\"").count(), 1, "two sessions, one of them this one");
    let out = browser.fill(&account, "/sign-out", &[]).await;

    assert_eq!((out.status, out.header("location")), (303, "/sign-in"));
    assert!(out.header("clear-site-data").contains("cookies"));
    for (cookie, status) in [(&second, 303), (&first, 200)] {
        browser.cookie.clone_from(cookie);
        assert_eq!(browser.get("/account").await.status, status);
    }
}

#[tokio::test]
async fn a_second_factor_stands_between_the_password_and_the_account() {
    let bench = bench(&[]).await;
    let mut browser = Browser::new(&bench);
    browser.set_up().await;
    let page = browser.get("/account/second-factor").await;
    let secret = page.text.split("<code class=\"secret\">").nth(1).unwrap().split('<').next().unwrap();
    let bytes = totp_rs::Secret::Encoded(secret.to_owned()).to_bytes().unwrap();
    let totp = totp_rs::TOTP::new(totp_rs::Algorithm::SHA1, 6, 1, 30, bytes, None, "a".into()).unwrap();
    let now = bench.app.clock.now().timestamp().unsigned_abs();

    let on = browser.fill(&page, "/account/second-factor", &[("code", &totp.generate(now))]).await;
    assert!(on.text.contains("Your second factor is on") && on.text.matches("<li><code>").count() == 10, "{}", on.text);
    browser.cookie.clear();
    let page = browser.get("/sign-in").await;
    let half = browser.fill(&page, "/sign-in", &[("email", "ada@acme.example"), ("password", PASSWORD)]).await;
    assert_eq!(half.header("location"), "/second-factor?next=/");
    assert_eq!(browser.get("/account").await.status, 303, "half signed in opens nothing");

    let page = browser.get("/second-factor").await;
    let wrong = browser.fill(&page, "/second-factor", &[("code", "000000")]).await;
    let through = browser.fill(&wrong, "/second-factor", &[("code", &totp.generate(now + 30))]).await;
    assert_eq!((wrong.status, through.status, through.header("location")), (422, 303, "/"));
    assert_eq!(browser.get("/account").await.status, 200);
}

#[tokio::test]
async fn an_invitation_makes_somebody_a_member_once() {
    let bench = bench(&[]).await;
    let organization = bench.caller.in_organization().unwrap();
    let role = freshet_core::access::Role::Editor;
    let made = freshet_core::member::ops::invite(&bench.app, &organization, "bob@acme.example", None, role);
    let url = made.await.unwrap().url.unwrap();
    let path = url.expose().strip_prefix(&bench.app.settings.public_url()).unwrap().to_owned();
    let mut browser = Browser::new(&bench);

    let page = browser.get(&path).await;
    assert!(page.text.contains("Join acme") && page.text.contains("as editor"), "{}", page.text);
    let joined = browser.fill(&page, "/invitation", &[("name", "Bob"), ("password", PASSWORD)]).await;

    assert_eq!((joined.status, joined.header("location")), (303, "/"), "{}", joined.text);
    assert!(browser.get("/").await.text.contains("acme"));
    let reused = browser.get(&path).await;
    assert_eq!(reused.status, 422);
    assert!(reused.text.contains("was used"));
}

#[tokio::test]
async fn a_token_is_made_with_a_recent_proof_and_shown_once() {
    let mut bench = bench(&[]).await;
    bench.app.clock = freshet_core::clock::Clock::standing(bench.app.clock.now());
    let mut browser = Browser::new(&bench);
    browser.set_up().await;
    let account = browser.get("/account").await;

    let made = browser.fill(&account, "/account/tokens", &[("name", "notebook"), ("days", "30")]).await;
    let token = made.text.split("<code class=\"secret\">").nth(1).unwrap().split('<').next().unwrap().to_owned();
    assert!(token.starts_with("fr_user_"));
    assert!(!browser.get("/account").await.text.contains(&token));
    bench.app.clock.wind(chrono::TimeDelta::minutes(16));
    let late = browser.fill(&account, "/account/tokens", &[("name", "late"), ("days", "30")]).await;
    assert_eq!(late.header("location"), "/prove?next=/account");
    let page = browser.get("/prove?next=/account").await;
    let before = browser.cookie.clone();
    let proved = browser.fill(&page, "/prove", &[("proof", PASSWORD)]).await;
    assert_eq!((proved.status, proved.header("location")), (303, "/account"));
    assert_ne!(browser.cookie, before, "a proof changes the session's token");
}
