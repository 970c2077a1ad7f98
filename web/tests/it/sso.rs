//! Signing in with an issuer that we did not write.

use freshet_core::access::{Credential, Role};
use freshet_core::error::Code;
use freshet_core::member::{self, ops::At};
use freshet_core::secret::turnover;
use freshet_core::sso::{SsoConnection, SsoKind};
use freshet_core::testing::{Bench, workspace};
use freshet_core::{domain, identity, limit, sso};

use crate::browser::{Browser, PASSWORD, Page, bench};
use crate::issuers::{CLIENT, Hostile, Issuer, Says, connect, connect_of, owner, path, query};

/// A bench whose organization signs in by the issuer.
pub async fn signed_up(bench: &Bench) -> (Issuer, SsoConnection) {
    let issuer = Issuer::new();
    let (id, secret) = issuer.register(bench).await;
    let connection = connect(bench, SsoKind::Oidc, &issuer.url, (&id, &secret)).await;
    (issuer, connection)
}

/// Goes to the issuer, signs in there and comes back.
pub async fn go(browser: &mut Browser<'_>, issuer: &mut Issuer, start: &str, login: &str) -> Page {
    let away = browser.get(start).await;
    assert_eq!(away.status, 303, "{}", away.text);
    let back = issuer.sign_in(away.header("location"), login).await;
    browser.get(&path(&back)).await
}

#[tokio::test]
async fn an_address_leads_to_the_organizations_issuer_and_from_there_in() {
    let bench = bench(&[]).await;
    let (mut issuer, connection) = signed_up(&bench).await;
    let mut browser = Browser::new(&bench);

    let asked = browser.get("/sso?email=Ada%40ACME.example&next=%2Faccount").await;
    let start = format!("/sso/start?connection={}&#38;next=/account", connection.id);
    assert!(asked.text.contains(&format!("content=\"0; url={start}\"")), "{}", asked.text);
    let away = browser.get(&start.replace("&#38;", "&")).await;
    let url = away.header("location").to_owned();
    assert!(url.starts_with(&issuer.url) && away.header("set-cookie").contains("HttpOnly; SameSite=Lax"));
    for (name, value) in [("response_type", "code"), ("code_challenge_method", "S256")] {
        assert_eq!(query(&url, name).as_deref(), Some(value));
    }
    for name in ["state", "nonce", "code_challenge"] {
        assert_eq!(query(&url, name).unwrap().len(), 43, "{name}: 256 bits");
    }
    let back = issuer.sign_in(&url, "ada@acme.example").await;
    let came = browser.get(&path(&back)).await;

    assert_eq!((came.status, came.header("location")), (303, "/account"), "{}", came.text);
    assert!(browser.attempt.is_empty(), "the word is good once");
    let account = browser.get("/account").await;
    assert!(account.text.contains("ada@acme.example") && account.text.contains(&issuer.url), "{}", account.text);
    assert!(account.text.contains("✓ proved") && account.text.contains("you sign in with your organization"));
    assert!(browser.get("/").await.text.contains("<span class=\"badge\">editor</span>"));

    // The next time it is the same person, who was asked for nothing else.
    browser.cookie.clear();
    let again =
        go(&mut browser, &mut issuer, &format!("/sso/start?connection={}", connection.id), "ada@acme.example").await;
    assert_eq!((again.status, again.header("location")), (303, "/"));
    let members = member::ops::list(&bench.app, &owner(&bench), Default::default()).await.unwrap();
    assert_eq!(members.data.len(), 1);
}

#[tokio::test]
async fn somebody_new_is_not_let_past_the_limit_of_members() {
    let bench = bench(&[]).await;
    let (mut issuer, connection) = signed_up(&bench).await;
    let start = format!("/sso/start?connection={}", connection.id);
    let limits = |count: i64| [("members".to_owned(), Some(count))].into_iter().collect();
    let count = async || member::ops::list(&bench.app, &owner(&bench), Default::default()).await.unwrap().data.len();
    limit::ops::set(&bench.app, &owner(&bench), None, Some(&limits(1))).await.unwrap();

    let first = go(&mut Browser::new(&bench), &mut issuer, &start, "ada@acme.example").await;
    let second = go(&mut Browser::new(&bench), &mut Issuer::new(), &start, "bob@acme.example").await;
    let again = go(&mut Browser::new(&bench), &mut issuer, &start, "ada@acme.example").await;

    assert_eq!((first.status, again.status, count().await), (303, 303, 1));
    assert!(second.status != 303 && second.text.contains("members"), "{}: {}", second.status, second.text);
    limit::ops::set(&bench.app, &owner(&bench), None, Some(&limits(2))).await.unwrap();
    let third = go(&mut Browser::new(&bench), &mut Issuer::new(), &start, "bob@acme.example").await;
    assert_eq!((third.status, count().await), (303, 2));
}

#[tokio::test]
async fn a_link_with_the_organizations_short_name_leads_there_too() {
    let bench = bench(&[]).await;
    let (mut issuer, _) = signed_up(&bench).await;
    let mut browser = Browser::new(&bench);

    let came = go(&mut browser, &mut issuer, "/sso/start?organization=acme", "bob@acme.example").await;
    let nowhere = browser.get("/sso/start?organization=nobody").await;
    let unknown = browser.get("/sso?email=ada%40elsewhere.example").await;

    assert_eq!((came.status, came.header("location")), (303, "/"));
    assert_eq!((nowhere.status, unknown.status), (422, 422));
    assert!(unknown.text.contains("no organization here signs in"), "{}", unknown.text);
}

#[tokio::test]
async fn a_person_links_an_issuers_account_by_an_act_of_their_own_and_proves_by_it_again() {
    let mut bench = bench(&[]).await;
    bench.app.clock = freshet_core::clock::Clock::standing(bench.app.clock.now());
    let (mut issuer, connection) = signed_up(&bench).await;
    let mut browser = Browser::new(&bench);
    let made = member::ops::invite(&bench.app, &owner(&bench), "carl@home.example", None, Role::Viewer).await.unwrap();
    let page = browser.get(&path(made.url.unwrap().expose())).await;
    browser.fill(&page, "/invitation", &[("name", "Carl"), ("password", PASSWORD)]).await;
    let account = browser.get("/account").await;
    let action = format!("/account/identities/{}/link", connection.id);

    let forged = browser.send("POST", &action, &[], &[("sec-fetch-site", "same-origin")]).await;
    let leave = browser.fill(&account, &action, &[]).await;
    assert_eq!((forged.status, leave.status), (403, 200), "a form's answer is a page and no redirect to elsewhere");
    let url = leave.text.split("href=\"").find(|part| part.starts_with("http://")).unwrap();
    let url = url.split('"').next().unwrap().replace("&#38;", "&");
    let back = issuer.sign_in(&url, "carl.at.work@other.example").await;
    let linked = browser.get(&path(&back)).await;

    assert_eq!((linked.status, linked.header("location")), (303, "/account"), "{}", linked.text);
    assert!(browser.get("/account").await.text.contains("carl.at.work@other.example"));
    browser.cookie.clear();
    let start = format!("/sso/start?connection={}", connection.id);
    let came = go(&mut browser, &mut issuer, &start, "carl.at.work@other.example").await;
    assert_eq!(came.status, 303);
    let account = browser.get("/account").await;
    assert!(account.text.contains("carl@home.example"), "the address of his own stays");

    // Somebody else's account is not to be had by linking.
    let mut other = Browser::new(&bench);
    let made = member::ops::invite(&bench.app, &owner(&bench), "dora@home.example", None, Role::Viewer).await.unwrap();
    let page = other.get(&path(made.url.unwrap().expose())).await;
    other.fill(&page, "/invitation", &[("name", "Dora"), ("password", PASSWORD)]).await;
    let account = other.get("/account").await;
    let leave = other.fill(&account, &action, &[]).await;
    let url = leave.text.split("href=\"").find(|part| part.starts_with("http://")).unwrap();
    let url = url.split('"').next().unwrap().replace("&#38;", "&");
    let back = issuer.sign_in(&url, "carl.at.work@other.example").await;
    let refused = other.get(&path(&back)).await;
    assert_eq!(refused.status, 422);
    assert!(refused.text.contains("another person"), "{}", refused.text);
}

#[tokio::test]
async fn who_came_by_an_issuer_proves_by_it_that_it_is_still_them() {
    let mut bench = bench(&[]).await;
    let (mut issuer, connection) = signed_up(&bench).await;
    bench.app.clock = freshet_core::clock::Clock::standing(bench.app.clock.now());
    let mut browser = Browser::new(&bench);
    go(&mut browser, &mut issuer, &format!("/sso/start?connection={}", connection.id), "eve@acme.example").await;
    let account = browser.get("/account").await;
    bench.app.clock.wind(chrono::TimeDelta::minutes(16));
    let late = browser.fill(&account, "/account/tokens", &[("name", "late"), ("days", "30")]).await;
    assert_eq!(late.header("location"), "/prove?next=/account");
    let page = browser.get("/prove?next=/account").await;
    let start = format!("/sso/start?connection={}&again=1&next=/account", connection.id);
    assert!(
        page.text.contains(&start.replace('&', "&#38;")) && !page.text.contains("action=\"/prove\""),
        "{}",
        page.text
    );

    bench.app.clock.wind(chrono::TimeDelta::minutes(-16));
    let away = browser.get(&start).await;
    assert_eq!(query(away.header("location"), "max_age").as_deref(), Some("0"));
    let before = browser.cookie.clone();
    let back = issuer.sign_in(away.header("location"), "eve@acme.example").await;
    let proved = browser.get(&path(&back)).await;
    assert_eq!((proved.status, proved.header("location")), (303, "/account"), "{}", proved.text);
    assert_ne!(browser.cookie, before, "a proof changes the session's token");

    // Somebody else's proof is none.
    let away = browser.get(&start).await;
    let back = Issuer::new().sign_in(away.header("location"), "mallory@acme.example").await;
    let refused = browser.get(&path(&back)).await;
    assert!(refused.status == 422 && refused.text.contains("somebody else than you"), "{}", refused.text);
}

#[tokio::test]
async fn what_was_set_before_an_address_was_proved_does_not_outlive_the_proof() {
    let bench = bench(&[("sign_up", "open")]).await;
    let (mut issuer, connection) = signed_up(&bench).await;
    let mut squatter = Browser::new(&bench);
    squatter.set_up().await;
    squatter.cookie.clear();
    let page = squatter.get("/sign-up").await;
    let typed = [("email", "fay@acme.example"), ("name", "Not Fay"), ("password", PASSWORD), ("organization", "Squat")];
    squatter.fill(&page, "/sign-up", &typed).await;
    let sign_in = async |browser: &mut Browser<'_>| {
        let page = browser.get("/sign-in").await;
        browser.fill(&page, "/sign-in", &[("email", "fay@acme.example"), ("password", PASSWORD)]).await.status
    };
    assert_eq!(sign_in(&mut squatter).await, 303);

    let mut fay = Browser::new(&bench);
    let came = go(&mut fay, &mut issuer, &format!("/sso/start?connection={}", connection.id), "fay@acme.example").await;

    assert_eq!((came.status, came.header("location")), (303, "/"), "{}", came.text);
    assert_eq!(squatter.get("/account").await.status, 303, "the session is over");
    assert_eq!(sign_in(&mut squatter).await, 422, "and the password opens nothing");
}

#[tokio::test]
async fn an_organizations_issuer_opens_nothing_of_another_organization() {
    let bench = bench(&[]).await;
    let mut browser = Browser::new(&bench);
    browser.set_up().await;
    let (theirs, _) = workspace(&bench.app, "umbrella").await;
    let organization = theirs.in_organization().unwrap();
    let hostile = Hostile::start().await;
    let connection = connect_of(&bench, &organization, "umbrella.example", SsoKind::Oidc, &hostile.url(), CLIENT).await;
    let made = member::ops::invite(&bench.app, &organization, "ada@acme.example", None, Role::Viewer).await.unwrap();
    let page = browser.get(&path(made.url.unwrap().expose())).await;
    browser.fill(&page, "/invitation", &[]).await;
    // Ada links what Umbrella has for her; from then on Umbrella can say at any time that it is her.
    let account = browser.get("/account").await;
    browser.fill(&account, &format!("/account/identities/{}/link", connection.id), &[]).await;
    let attempt = browser.attempt.split_once('=').unwrap().1.to_owned();
    let linked = browser.get(&hostiles_answer(&hostile, &attempt)).await;
    assert_eq!((linked.status, linked.header("location")), (303, "/account"), "{}", linked.text);

    let mut umbrella = Browser::new(&bench);
    umbrella.get(&format!("/sso/start?connection={}", connection.id)).await;
    let attempt = umbrella.attempt.split_once('=').unwrap().1.to_owned();
    let came = umbrella.get(&hostiles_answer(&hostile, &attempt)).await;

    assert_eq!(came.status, 303, "{}", came.text);
    let known = freshet_core::session::ops::find(&bench.app, &token_of(&umbrella), None).await.unwrap().unwrap();
    let by = (known.user, Credential::Session(known.session));
    assert!(member::ops::caller(&bench.app, by, At::Named(theirs.workspace), None).await.is_ok());
    let places = member::ops::places(&bench.app, by).await.unwrap();
    let own = places.iter().find(|place| place.organization_name.contains("Lovelace")).unwrap();
    let refused = member::ops::caller(&bench.app, by, At::Named(own.workspace_id), None).await.unwrap_err();
    assert_eq!((refused.code, own.wants_sso), (Code::SsoRequired, true));
    let account = umbrella.get("/account").await;
    let token = umbrella.fill(&account, "/account/tokens", &[("name", "theft"), ("days", "1")]).await;
    let password = umbrella.fill(&account, "/account/password", &[("password", "another long password")]).await;
    for refused in [token, password] {
        assert_eq!((refused.status, refused.header("location")), (303, "/prove?next=/account"));
    }
    let proof = umbrella.get("/prove").await;
    assert!(!proof.text.contains("/sso/start"), "that issuer proves nothing about her: {}", proof.text);
}

/// What a browser is sent back with by the hostile issuer: its code is the nonce of the attempt.
pub fn hostiles_answer(hostile: &Hostile, word: &str) -> String {
    let part = |name: &str| crate::issuers::encode(&sha256(&format!("sso {name} {word}")));
    format!("/sso/callback?state={}&code={}&iss={}", part("state"), part("nonce"), hostile.url())
}

fn sha256(text: &str) -> Vec<u8> {
    ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref().to_vec()
}

/// The session's token in a browser's cookie.
pub fn token_of(browser: &Browser<'_>) -> freshet_core::settings::Secret {
    browser.cookie.split_once('=').unwrap().1.parse().unwrap()
}

#[tokio::test]
async fn github_vouches_by_its_number_and_its_primary_proved_address() {
    let bench = bench(&[]).await;
    let github = Hostile::start().await;
    let connection = connect(&bench, SsoKind::Github, &github.url(), CLIENT).await;
    let start = format!("/sso/start?connection={}", connection.id);
    let address = |email: &str, primary: bool, verified: bool| serde_json::json!({ "email": email, "primary": primary, "verified": verified });
    let come = async |code: &str, emails: Vec<serde_json::Value>| {
        github.say(Says { claims: emails.into(), ..Says::default() });
        let mut browser = Browser::new(&bench);
        let away = browser.get(&start).await;
        let url = away.header("location").to_owned();
        assert!(url.starts_with(&format!("{}/login/oauth/authorize", github.url())), "{url}");
        let state = query(&url, "state").unwrap();
        browser.get(&format!("/sso/callback?state={state}&code={code}")).await
    };

    let unproved = come("good", vec![address("ada@acme.example", true, false)]).await;
    let secondary =
        come("good", vec![address("ada@acme.example", false, true), address("a@b.example", true, true)]).await;
    let bad = come("bad", vec![address("ada@acme.example", true, true)]).await;
    let good = come("good", vec![address("a@b.example", false, true), address("ada@acme.example", true, true)]).await;

    for (refused, told) in [(unproved, "proved"), (secondary, "domain"), (bad, "refuses the code")] {
        assert!(refused.status == 422 && refused.text.contains(told), "{told}: {}", refused.text);
    }
    assert_eq!((good.status, good.header("location")), (303, "/"), "{}", good.text);
    let member = &member::ops::list(&bench.app, &owner(&bench), Default::default()).await.unwrap().data[0];
    let identities = identity::ops::list(&bench.app, member.user_id).await.unwrap();
    assert_eq!((identities[0].subject.as_str(), identities[0].issuer.clone()), ("42", github.url()));
    let only = identity::ops::unlink(&bench.app, member.user_id, identities[0].id).await.unwrap_err();
    assert_eq!(only.code, Code::WrongState, "the only way in is not taken away");
}

#[tokio::test]
async fn a_domain_is_one_organizations_and_proved_by_a_record() {
    let (dns, record) = crate::dns::start().await;
    let bench = bench(&[("dns_server", &dns.to_string())]).await;
    let (theirs, _) = workspace(&bench.app, "umbrella").await;
    let (ours, theirs) = (owner(&bench), theirs.in_organization().unwrap());
    let claimed = domain::ops::claim(&bench.app, &ours, " Acme.Example. ").await.unwrap();
    let rival = domain::ops::claim(&bench.app, &theirs, "acme.example").await.unwrap();
    assert_eq!((claimed.name.as_str(), claimed.record_name.as_str()), ("acme.example", "_freshet.acme.example"));

    let without = domain::ops::verify(&bench.app, &ours, claimed.id).await.unwrap_err();
    assert_eq!(without.code, Code::DomainUnproved);
    *record.lock().unwrap() = rival.record_text.clone();
    let of_another = domain::ops::verify(&bench.app, &ours, claimed.id).await.unwrap_err();
    assert_eq!(of_another.code, Code::DomainUnproved);
    record.lock().unwrap().clone_from(&claimed.record_text);
    let proved = domain::ops::verify(&bench.app, &ours, claimed.id).await.unwrap();

    assert!(proved.verified_at.is_some());
    record.lock().unwrap().clone_from(&rival.record_text);
    let late = domain::ops::verify(&bench.app, &theirs, rival.id).await.unwrap_err();
    assert_eq!(late.code, Code::Conflict);
    for wrong in ["acme", "acme example", "http://acme.example", "ä.example", ""] {
        assert_eq!(domain::ops::claim(&bench.app, &ours, wrong).await.unwrap_err().code, Code::Invalid, "{wrong}");
    }
    // What is not proved says nothing, and what a connection names stays.
    let hostile = Hostile::start().await;
    let mut new = sso::SsoConnectionNew {
        name: "Rival".into(),
        kind: SsoKind::Oidc,
        issuer: Some(hostile.url()),
        client_id: CLIENT.0.into(),
        client_secret: CLIENT.1.to_owned().into(),
        domains: vec!["acme.example".into()],
        default_role: Role::Viewer,
        default_workspace_id: None,
    };
    assert_eq!(sso::ops::create(&bench.app, &theirs, &new).await.unwrap_err().code, Code::Invalid);
    new.default_role = Role::Owner;
    assert_eq!(sso::ops::create(&bench.app, &ours, &new).await.unwrap_err().code, Code::Invalid, "nobody comes to own");
    new.default_role = Role::Viewer;
    sso::ops::create(&bench.app, &ours, &new).await.unwrap();
    assert_eq!(domain::ops::delete(&bench.app, &ours, claimed.id).await.unwrap_err().code, Code::InUse);
}

#[tokio::test]
async fn the_clients_secret_is_sealed_and_its_wrapping_can_be_turned_over() {
    let mut bench = bench(&[]).await;
    let hostile = Hostile::start().await;
    let made = connect(&bench, SsoKind::Oidc, &hostile.url(), CLIENT).await;
    assert!(!serde_json::to_string(&made).unwrap().contains(CLIENT.1));
    let mut admin = <sqlx::PgConnection as sqlx::Connection>::connect(&bench.admin_url).await.unwrap();
    let stored: String = sqlx::query_scalar("select s::text from sso_secret as s").fetch_one(&mut admin).await.unwrap();
    let hex: String = CLIENT.1.bytes().map(|byte| format!("{byte:02x}")).collect();
    assert!(!stored.contains(CLIENT.1) && !stored.contains(&hex));

    let old = bench.app.settings.master_keys.expose().to_owned();
    let new = format!("second={}", freshet_core::vault::Vault::draw_master_key());
    let keys = |text: String| freshet_core::vault::Vault::from_setting(&text.parse().unwrap()).unwrap().into();
    bench.app.vault = keys(format!("{new},{old}"));
    turnover::announce(&bench.app, false).await.unwrap();
    assert_eq!(turnover::round(&bench.app).await.unwrap().unwrap().rewrapped, 1);
    assert_eq!(turnover::round(&bench.app).await.unwrap().unwrap().rewrapped, 0);
    bench.app.vault = keys(new);

    let mut browser = Browser::new(&bench);
    browser.get(&format!("/sso/start?connection={}", made.id)).await;
    let attempt = browser.attempt.split_once('=').unwrap().1.to_owned();
    assert_eq!(browser.get(&hostiles_answer(&hostile, &attempt)).await.status, 303);
}
