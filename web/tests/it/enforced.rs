//! An organization that opens by its own issuer's word alone.

use freshet_core::access::{Caller, Credential, Right, Role};
use freshet_core::audit::{AuditFilter, ops as audit};
use freshet_core::error::{Code, Result};
use freshet_core::id::UserId;
use freshet_core::member::{self, ops::At};
use freshet_core::sso::{self, SsoConnectionPatch};
use freshet_core::testing::{Bench, surroundings};
use freshet_core::{personal_token, session, user};

use crate::browser::{Browser, PASSWORD, bench};
use crate::issuers::owner;
use crate::sso::{go, signed_up, token_of};

async fn member(bench: &Bench, email: &str, role: Role) -> UserId {
    let made = member::ops::invite(&bench.app, &owner(bench), email, None, role).await.unwrap();
    let word = mailed(bench, email, made.url.map(|url| url.expose().to_owned())).await;
    let word = word.split("word=").nth(1).unwrap().parse().unwrap();
    member::ops::accept_as_new(&bench.app, &word, email, &PASSWORD.parse().unwrap()).await.unwrap()
}

/// The address in the newest mail to somebody, or the one that there is without mail.
async fn mailed(bench: &Bench, email: &str, url: Option<String>) -> String {
    match url {
        Some(url) => url,
        None => {
            let mail = mail(email, "word=").await;
            let public = bench.app.settings.public_url();
            let url = mail.split_whitespace().find(|word| word.starts_with(&public)).unwrap();
            url.to_owned()
        }
    }
}

/// A mail to an address with a text in it, by the receiver that we did not write.
pub async fn mail(email: &str, with: &str) -> String {
    let folder = std::path::Path::new(&surroundings("FRESHET_TEST_MAIL")).join(email);
    for _ in 0..200 {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
            // Long lines are folded by quoted-printable.
            let text = text.replace("=\r\n", "").replace("=3D", "=");
            if text.contains(with) {
                return text;
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("no mail to {email} with {with}");
}

async fn caller(bench: &Bench, browser: &Browser<'_>) -> Result<Caller> {
    let known = session::ops::find(&bench.app, &token_of(browser), None).await.unwrap().unwrap();
    let by = (known.user, Credential::Session(known.session));
    member::ops::caller(&bench.app, by, At::Named(bench.caller.workspace), None).await
}

async fn sign_in<'a>(bench: &'a Bench, email: &str) -> (Browser<'a>, crate::browser::Page) {
    let mut browser = Browser::new(bench);
    let page = browser.get("/sign-in").await;
    let answer = browser.fill(&page, "/sign-in", &[("email", email), ("password", PASSWORD)]).await;
    (browser, answer)
}

/// Turns the second factor on; what makes its codes, and a recovery code.
async fn second_factor(bench: &Bench, user: UserId) -> (totp_rs::TOTP, String) {
    let drawn = user::ops::begin_second_factor(&bench.app, user).await.unwrap();
    let bytes = totp_rs::Secret::Encoded(drawn.secret.expose().to_owned()).to_bytes().unwrap();
    let totp = totp_rs::TOTP::new(totp_rs::Algorithm::SHA1, 6, 1, 30, bytes, None, "a".into()).unwrap();
    let code = totp.generate(bench.app.clock.now().timestamp().unsigned_abs());
    let recovery = user::ops::confirm_second_factor(&bench.app, user, &code).await.unwrap().remove(0);
    (totp, recovery)
}

fn on(glass: Option<UserId>) -> SsoConnectionPatch {
    SsoConnectionPatch { enforce: Some(true), break_glass_user_id: glass, ..SsoConnectionPatch::default() }
}

#[tokio::test]
async fn an_issuers_word_alone_opens_the_organization_but_for_the_owner_who_breaks_the_glass() {
    let unique = freshet_core::id::RequestId::new().to_string();
    let smtp = surroundings("FRESHET_TEST_SMTP");
    let bench = bench(&[("smtp_url", &smtp), ("mail_from", "Freshet <freshet@acme.example>")]).await;
    let (mut issuer, connection) = signed_up(&bench).await;
    let (ops, start) = (owner(&bench), format!("/sso/start?connection={}", connection.id));
    let [glass, boss, bob] = ["glass", "boss", "bob"].map(|name| format!("{name}.{unique}@acme.example"));
    let glass_id = member(&bench, &glass, Role::Owner).await;
    member(&bench, &boss, Role::Owner).await;
    let bob_id = member(&bench, &bob, Role::Editor).await;
    let enforce = async |glass| {
        let version = sso::ops::get(&bench.app, &ops, connection.id).await.unwrap().row_version;
        sso::ops::update(&bench.app, &ops, connection.id, version, &on(glass)).await
    };

    // It is not to be had before somebody has shown that it works, and somebody else can come in without it.
    let early = enforce(Some(glass_id)).await.unwrap_err();
    assert!(early.code == Code::WrongState && early.message.contains("no owner has signed in"), "{early}");
    let mut bobs_old = Browser::new(&bench);
    assert_eq!(go(&mut bobs_old, &mut issuer, &start, &bob).await.status, 303);
    assert!(enforce(Some(glass_id)).await.is_err(), "an editor shows nothing");
    let mut bosses = Browser::new(&bench);
    let mut issuer = crate::issuers::Issuer::new();
    assert_eq!(go(&mut bosses, &mut issuer, &start, &boss).await.status, 303);
    for (who, told) in [(None, "nobody could come in"), (Some(glass_id), "second factor")] {
        let refused = enforce(who).await.unwrap_err();
        assert!(refused.code == Code::WrongState && refused.message.contains(told), "{told}: {refused}");
    }
    for nobody in [bob_id, UserId::new()] {
        let refused = enforce(Some(nobody)).await.unwrap_err();
        assert_eq!(refused.fields[0].pointer, "/break_glass_user_id", "an owner, and nobody else");
    }
    let (totp, recovery) = second_factor(&bench, glass_id).await;
    let (by_password, answer) = sign_in(&bench, &bob).await;
    assert_eq!((answer.status, caller(&bench, &by_password).await.is_ok()), (303, true));
    let token = personal_token::ops::create(&bench.app, bob_id, "old", 1).await.unwrap();
    let reset = user::ops::reset_word(&bench.app, &bob).await.unwrap();

    enforce(Some(glass_id)).await.unwrap();

    // With the next request what came by a password opens nothing there; what came by the issuer does.
    assert_eq!(caller(&bench, &by_password).await.unwrap_err().code, Code::SsoRequired);
    let by_token =
        personal_token::ops::authenticate(&bench.app, token.text.expose(), At::Named(bench.caller.workspace));
    assert_eq!(by_token.await.unwrap_err().code, Code::SsoRequired);
    assert!(caller(&bench, &bobs_old).await.unwrap().rights().contains(&Right::SyncsWrite));
    let mut by_password = by_password;
    let home = by_password.get("/").await;
    assert!(home.text.contains("href=\"/sso/start?organization=acme\""), "{}", home.text);
    // Nor does a new password's session come to be, by sign-in or reset.
    let (refused, answer) = sign_in(&bench, &bob).await;
    let to = answer.header("location").to_owned();
    assert!(answer.status == 303 && to.starts_with("/sso?email=") && refused.cookie.is_empty(), "{to}");
    let done = session::ops::reset(&bench.app, &reset, &"another long password 9".parse().unwrap()).await;
    assert_eq!(done.unwrap_err().code, Code::SsoRequired);
    user::ops::ask_reset(&bench.app, &bob).await.unwrap();
    let told = mail(&bob, "and no password").await;
    assert!(!told.contains("/reset?word="));
    // A token of a session that came by the issuer opens what the session does.
    let account = bobs_old.get("/account").await;
    let made = bobs_old.fill(&account, "/account/tokens", &[("name", "new"), ("days", "1")]).await;
    let text = made.text.split("<code class=\"secret\">").nth(1).unwrap().split('<').next().unwrap().to_owned();
    let by_token = personal_token::ops::authenticate(&bench.app, &text, At::Named(bench.caller.workspace)).await;
    assert!(by_token.is_ok());
    // The other owner's password is as good as nobody's; the one who is named comes in, and every owner hears of it.
    let (_, answer) = sign_in(&bench, &boss).await;
    assert!(answer.header("location").starts_with("/sso?email="));
    let (mut glasses, answer) = sign_in(&bench, &glass).await;
    assert_eq!(answer.header("location"), "/second-factor?next=/");
    let page = glasses.get("/second-factor").await;
    let code = totp.generate((bench.app.clock.now().timestamp() + 30).unsigned_abs());
    let through = glasses.fill(&page, "/second-factor", &[("code", &code)]).await;
    assert_eq!((through.status, caller(&bench, &glasses).await.is_ok()), (303, true), "{}", through.text);
    for owner in [&glass, &boss] {
        assert!(mail(owner, "by password, past the issuer").await.contains(&glass));
    }
    let filter = AuditFilter { action: Some("sso.glass_broken".into()), ..AuditFilter::default() };
    let told = audit::list_in_organization(&bench.app, &ops, &filter, Default::default()).await.unwrap();
    assert_eq!(told.data.len(), 1);
    // Nobody is told of the same owner who comes by the issuer, and gives the password once more there.
    let mut by_issuer = Browser::new(&bench);
    go(&mut by_issuer, &mut crate::issuers::Issuer::new(), &start, &glass).await;
    let page = by_issuer.get("/second-factor").await;
    let through = by_issuer.fill(&page, "/second-factor", &[("code", &recovery)]).await;
    assert_eq!(through.status, 303, "{}", through.text);
    let page = by_issuer.get("/prove").await;
    assert_eq!(by_issuer.fill(&page, "/prove", &[("proof", PASSWORD)]).await.status, 303);
    let told = audit::list_in_organization(&bench.app, &ops, &filter, Default::default()).await.unwrap();
    assert_eq!(told.data.len(), 1);
    // Who breaks the glass stays able to.
    let factor = user::ops::remove_second_factor(&bench.app, glass_id).await.unwrap_err();
    let members = member::ops::list(&bench.app, &ops, Default::default()).await.unwrap().data;
    let membership = members.iter().find(|member| member.user_id == glass_id).unwrap();
    let gone = member::ops::remove(&bench.app, &ops, membership.id).await.unwrap_err();
    let less =
        member::ops::set_role(&bench.app, &ops, membership.id, membership.row_version, Role::Admin).await.unwrap_err();
    let archived = sso::ops::archive(&bench.app, &ops, connection.id).await.unwrap_err();
    for refused in [factor, gone, less, archived] {
        assert_eq!(refused.code, Code::WrongState, "{refused}");
    }
    // And whoever runs the installation opens it again.
    assert_eq!(sso::ops::release(&bench.app, &ops).await.unwrap(), 1);
    assert!(caller(&bench, &by_password).await.is_ok());
}

#[tokio::test]
async fn a_second_factor_is_asked_for_whichever_way_one_comes() {
    let bob = format!("bob.{}@acme.example", freshet_core::id::RequestId::new());
    let smtp = surroundings("FRESHET_TEST_SMTP");
    let bench = bench(&[("smtp_url", &smtp), ("mail_from", "Freshet <freshet@acme.example>")]).await;
    let (mut issuer, connection) = signed_up(&bench).await;
    let (totp, _) = second_factor(&bench, member(&bench, &bob, Role::Editor).await).await;
    let mut browser = Browser::new(&bench);

    let start = format!("/sso/start?connection={}&next=/account", connection.id);
    let half = go(&mut browser, &mut issuer, &start, &bob).await;
    assert_eq!((half.status, half.header("location")), (303, "/second-factor?next=/account"));
    assert_eq!(browser.get("/account").await.status, 303, "half signed in opens nothing");
    let page = browser.get("/second-factor?next=/account").await;
    let code = totp.generate((bench.app.clock.now().timestamp() + 30).unsigned_abs());
    let through = browser.fill(&page, "/second-factor", &[("code", &code)]).await;

    assert_eq!((through.status, through.header("location")), (303, "/account"));
    let known = session::ops::find(&bench.app, &token_of(&browser), None).await.unwrap().unwrap();
    let sessions = session::ops::list(&bench.app, known.user).await.unwrap();
    assert_eq!(sessions[0].amr, ["fed", "otp"]);
    assert!(caller(&bench, &browser).await.is_ok());
}

#[tokio::test]
async fn a_stolen_session_after_role_removal() {
    let bench = bench(&[]).await;
    let (mut issuer, connection) = signed_up(&bench).await;
    let mut browser = Browser::new(&bench);
    go(&mut browser, &mut issuer, &format!("/sso/start?connection={}", connection.id), "eve@acme.example").await;
    assert!(caller(&bench, &browser).await.is_ok());

    let ops = owner(&bench);
    let membership = member::ops::list(&bench.app, &ops, Default::default()).await.unwrap().data[0].id;
    member::ops::remove(&bench.app, &ops, membership).await.unwrap();

    assert_eq!(caller(&bench, &browser).await.unwrap_err().code, Code::NotFound);
    assert!(browser.get("/").await.text.contains("You belong to no workspace"));
}
