//! Attacks on pages by their names; `SECURITY.md` lists them with those that are tried elsewhere.

use freshet_core::access::Role;
use freshet_core::member;
use freshet_core::page::PageRequest;

use crate::browser::{Browser, PASSWORD, bench};
use crate::routes;

/// Forms of people who have no session yet: there is no token of one to ask for, and their origin is all.
const WITHOUT_SESSION: [&str; 8] =
    ["/sign-in", "/second-factor", "/set-up", "/sign-up", "/invitation", "/forgot", "/reset", "/verify"];

/// Fields of a form, or headers.
type Pairs<'a> = &'a [(&'a str, &'a str)];

#[tokio::test]
async fn csrf_on_every_form_that_the_router_takes() {
    let bench = bench(&[("sign_up", "open")]).await;
    let mut browser = Browser::new(&bench);
    browser.set_up().await;
    let token = browser.get("/account").await.form("/account/name")["form_token"].clone();
    let (cookie, own) = (browser.cookie.clone(), ("sec-fetch-site", "same-origin"));
    let known = routes::of(browser.router());
    let forms: Vec<String> = known.iter().filter_map(|route| route.strip_prefix("POST ").map(str::to_owned)).collect();
    let others: Vec<_> =
        known.iter().filter(|route| !route.starts_with("GET ") && !route.starts_with("POST ")).collect();
    assert!(others.is_empty() && forms.len() >= 17, "{forms:?} {others:?}");
    let mut refused = 0;

    for form in &forms {
        let id = match form.split('/').nth(2) {
            Some("tokens") => "pat_01m8567bj3eqpb3ep3wwxgctvy",
            Some("identities") => "idn_01m8567bj3eqpb3ep3wwxgctvy",
            _ => "ses_01m8567bj3eqpb3ep3wwxgctvy",
        };
        let path = form.replace("{id}", id).replace("{connection}", "sso_01m8567bj3eqpb3ep3wwxgctvy");
        let good = [("form_token", token.as_str()), ("name", "Mallory"), ("email", "mallory@evil.example")];
        let without = &good[1..];
        let wrong = [("form_token", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), ("name", "Mallory")];
        let foreign: [(&str, Pairs<'_>, Pairs<'_>); 8] = [
            ("from another site", &good, &[("sec-fetch-site", "cross-site")]),
            ("from another host of the site", &good, &[("sec-fetch-site", "same-site")]),
            ("typed", &good, &[("sec-fetch-site", "none")]),
            ("from another origin", &good, &[("origin", "https://evil.example")]),
            ("from nowhere", &good, &[("origin", "null")]),
            ("from who says nothing", &good, &[]),
            ("as text", &good, &[own, ("content-type", "text/plain")]),
            ("as JSON", &good, &[own, ("content-type", "application/json")]),
        ];
        let tokenless = [("without a token", without, &[own][..]), ("with another's token", &wrong[..], &[own][..])];
        let tokenless = if WITHOUT_SESSION.contains(&form.as_str()) { &tokenless[..0] } else { &tokenless[..] };
        for (how, fields, headers) in foreign.iter().chain(tokenless) {
            browser.cookie.clone_from(&cookie);
            let answer = browser.send("POST", &path, fields, headers).await;
            let wanted: &[u16] = match *how {
                how if how.starts_with("as ") => &[415],
                // The form once more, which says so.
                how if how.starts_with("with") => &[403, 422],
                _ => &[403],
            };
            assert!(wanted.contains(&answer.status), "{form} {how}: {}", answer.status);
            assert_eq!(browser.cookie, cookie, "{form} {how} changed the session");
            refused += 1;
        }
    }

    browser.cookie.clone_from(&cookie);
    assert!(browser.get("/").await.text.contains("Good to see you, Ada"), "nothing of it was done");
    println!("{} forms, {refused} requests refused", forms.len());
}

#[tokio::test]
async fn html_in_names_is_shown_as_text() {
    let evil = "<script>alert(1)</script>\"><img src=x onerror=alert(1)>";
    let bench = bench(&[]).await;
    let mut browser = Browser::new(&bench);
    let word = freshet_core::user::ops::draw_set_up_word(&bench.app, false).await.unwrap().unwrap();
    let page = browser.get("/set-up").await;
    let typed = [
        ("word", word.expose()),
        ("email", "ada@acme.example"),
        ("name", evil),
        ("password", PASSWORD),
        ("organization", evil),
    ];
    let done = browser.fill(&page, "/set-up", &typed).await;
    assert_eq!(done.status, 303, "{}", done.text);
    let account = browser.get("/account").await;
    browser.fill(&account, "/account/tokens", &[("name", evil), ("days", "30")]).await;
    let signing_in = browser.get("/sign-in").await;
    let mut hostile = Browser::new(&bench);
    let fields: Vec<_> = [("email", "ada@acme.example"), ("password", PASSWORD), ("next", "/")].into_iter().collect();
    let headers = [("sec-fetch-site", "same-origin"), ("user-agent", evil)];
    assert_eq!(hostile.send("POST", "/sign-in", &fields, &headers).await.status, 303);

    let query = "%3Cscript%3Ealert(1)%3C/script%3E%22%3E%3Cimg%20src=x%20onerror=alert(1)%3E";
    let echo = [("email", evil), ("password", "wrong, and long"), ("next", evil)];
    let mut pages = vec![
        ("the wrong sign-in", browser.send("POST", "/sign-in", &echo, &[("sec-fetch-site", "same-origin")]).await),
        ("the sign-in", signing_in),
    ];
    for path in [
        "/".to_owned(),
        "/account".to_owned(),
        format!("/{query}"),
        format!("/sign-in?next=/{query}"),
        format!("/reset?word={query}"),
        format!("/verify?word={query}"),
        format!("/invitation?word={query}"),
        format!("/prove?next=/{query}"),
        format!("/account?{query}"),
    ] {
        pages.push(("a page", browser.get(&path).await));
    }
    for (what, page) in &pages {
        assert!(!page.text.contains("<script") && !page.text.contains("<img src=x"), "{what}: {}", page.text);
    }
    let account = pages.iter().find(|(_, page)| page.text.contains("&#60;script&#62;alert(1)")).map(|(what, _)| what);
    assert!(account.is_some(), "the names are on no page: nothing was tried");
}

#[tokio::test]
async fn stolen_session_after_role_removal() {
    let bench = bench(&[]).await;
    let organization = bench.caller.in_organization().unwrap();
    let made = member::ops::invite(&bench.app, &organization, "bob@acme.example", None, Role::Admin).await.unwrap();
    let url = made.url.unwrap();
    let path = url.expose().strip_prefix(&bench.app.settings.public_url()).unwrap().to_owned();
    let mut browser = Browser::new(&bench);
    let page = browser.get(&path).await;
    browser.fill(&page, "/invitation", &[("name", "Bob"), ("password", PASSWORD)]).await;
    let mut thief = Browser::new(&bench);
    thief.cookie.clone_from(&browser.cookie);
    assert!(thief.get("/").await.text.contains(&bench.caller.workspace.to_string()));

    let page = PageRequest::new(None, None).unwrap();
    let members = member::ops::list(&bench.app, &organization, page).await.unwrap().data;
    let bob = members.iter().find(|member| member.email == "bob@acme.example").unwrap();
    member::ops::remove(&bench.app, &organization, bob.id).await.unwrap();

    let after = thief.get("/").await;
    assert!(after.text.contains("You belong to no workspace yet"), "{}", after.text);
    assert!(!after.text.contains(&bench.caller.workspace.to_string()) && !after.text.contains("acme</td>"));
}

#[tokio::test]
async fn invitation_token_reuse() {
    let bench = bench(&[]).await;
    let organization = bench.caller.in_organization().unwrap();
    let made = member::ops::invite(&bench.app, &organization, "bob@acme.example", None, Role::Admin).await.unwrap();
    let url = made.url.unwrap();
    let path = url.expose().strip_prefix(&bench.app.settings.public_url()).unwrap().to_owned();
    let mut bob = Browser::new(&bench);
    let page = bob.get(&path).await;
    let joined = bob.fill(&page, "/invitation", &[("name", "Bob"), ("password", PASSWORD)]).await;
    assert_eq!(joined.status, 303);

    let mut mallory = Browser::new(&bench);
    let again = mallory.fill(&page, "/invitation", &[("name", "Mallory"), ("password", PASSWORD)]).await;

    assert_eq!(again.status, 422, "{}", again.text);
    assert!(mallory.cookie.is_empty(), "nobody was let in");
    assert_eq!(mallory.get(&path).await.status, 422);
}

#[tokio::test]
async fn session_fixation_and_old_ids_after_each_change_of_privilege() {
    let bench = bench(&[("public_url", "https://freshet.acme.example")]).await;
    let mut browser = Browser::new(&bench);
    // A session that somebody else put into the browser comes to be nobody's.
    browser.cookie = "__Host-fr_s=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned();
    let planted = browser.cookie.clone();
    browser.set_up().await;
    let first = browser.cookie.clone();
    assert_ne!(first, planted);

    let page = browser.get("/prove?next=/account").await;
    browser.fill(&page, "/prove", &[("proof", PASSWORD)]).await;
    let second = browser.cookie.clone();
    assert_ne!(second, first, "a proof is another session");

    let opens = async |browser: &mut Browser<'_>, cookie: &str| {
        browser.cookie = cookie.to_owned();
        browser.get("/account").await.status == 200
    };
    assert!(!opens(&mut browser, &planted).await && !opens(&mut browser, &first).await);
    assert!(opens(&mut browser, &second).await);
    let other = "violet tractor mumbling 10";
    let mut elsewhere = Browser::new(&bench);
    let page = elsewhere.get("/sign-in").await;
    elsewhere.fill(&page, "/sign-in", &[("email", "ada@acme.example"), ("password", PASSWORD)]).await;
    let third = elsewhere.cookie.clone();
    browser.cookie.clone_from(&second);
    let account = browser.get("/account").await;
    let changed = browser.fill(&account, "/account/password", &[("password", other)]).await;
    assert_eq!(changed.header("location"), "/account", "{}", changed.text);
    assert!(!opens(&mut elsewhere, &third).await, "a new password ends every other session");
}
