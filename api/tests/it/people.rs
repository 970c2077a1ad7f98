//! People, organizations and what they may do, through the operations that sign-in calls and through HTTP.

use freshet_core::access::{Credential, Right, Role};
use freshet_core::api_key::{self, ops::Grant};
use freshet_core::error::Code;
use freshet_core::id::{UserId, WorkspaceId};
use freshet_core::member::{self, ops::At};
use freshet_core::session::{self, Origin};
use freshet_core::testing::Bench;
use freshet_core::user::{self, ops::NewUser};
use serde_json::{Value, json};

use crate::cast::{PASSWORD, member, secret, token};
use crate::client::{Answered, bench, call, post};

/// The first person of an installation.
async fn founder(bench: &Bench) -> UserId {
    let word = user::ops::draw_set_up_word(&bench.app, false).await.unwrap().unwrap();
    let password = secret(PASSWORD);
    let new = NewUser { email: "ada@acme.example", name: "Ada", password: &password };
    user::ops::set_up(&bench.app, &word, &new, "lovelace", "Lovelace & Co").await.unwrap()
}

async fn ask(bench: &Bench, bearer: &str, method: &str, path: &str, body: Option<Value>) -> Answered {
    call(bench, method, path, body, &[("authorization", bearer), ("if-match", "\"1\"")]).await
}

#[tokio::test]
async fn the_first_person_sets_the_installation_up_once() {
    let bench = bench().await;
    let word = user::ops::draw_set_up_word(&bench.app, false).await.unwrap().unwrap();
    assert!(user::ops::draw_set_up_word(&bench.app, false).await.unwrap().is_none(), "the word in the log stays good");
    let password = secret(PASSWORD);
    let new = NewUser { email: "ada@acme.example", name: "Ada", password: &password };

    let wrong = user::ops::set_up(&bench.app, &secret("guess"), &new, "a", "A").await.unwrap_err();
    let taken = user::ops::set_up(&bench.app, &word, &new, "acme", "A").await.unwrap_err();
    let first = user::ops::set_up(&bench.app, &word, &new, "lovelace", "Lovelace").await.unwrap();
    let again = user::ops::set_up(&bench.app, &word, &new, "b", "B").await.unwrap_err();

    assert_eq!(wrong.code, Code::WordRefused);
    assert_eq!(taken.code, Code::Conflict, "the slug is taken, and the word is not spent on it");
    assert_eq!(again.code, Code::WordRefused);
    let places = member::ops::places(&bench.app, (first, Credential::None)).await.unwrap();
    assert_eq!((places.len(), places[0].role, places[0].workspace_slug.as_str()), (1, Role::Owner, "lovelace"));
    assert!(user::ops::get(&bench.app, first).await.unwrap().instance_admin);
    assert!(user::ops::draw_set_up_word(&bench.app, true).await.unwrap().is_none());
}

#[tokio::test]
async fn sign_in_gives_one_answer_to_all_that_is_wrong() {
    let bench = bench().await;
    founder(&bench).await;
    let origin = Origin::default();

    let begun = session::ops::sign_in(&bench.app, "ADA@acme.example ", &secret(PASSWORD), &origin).await.unwrap();
    let wrong = session::ops::sign_in(&bench.app, "ada@acme.example", &secret("wrong"), &origin).await.unwrap_err();
    let nobody = session::ops::sign_in(&bench.app, "bob@acme.example", &secret(PASSWORD), &origin).await.unwrap_err();

    assert!(!begun.pending);
    assert_eq!((wrong.code, &wrong.message), (nobody.code, &nobody.message));
    assert_eq!(wrong.code, Code::SignInRefused);
    let known = session::ops::find(&bench.app, &begun.token, None).await.unwrap().unwrap();
    assert_eq!(known.user, begun.user);
    known.must_be_recent(&bench.app).unwrap();
}

#[tokio::test]
async fn guessing_a_password_is_slowed_down_for_known_and_unknown_addresses_alike() {
    let bench = bench().await;
    founder(&bench).await;

    for address in ["ada@acme.example", "nobody@acme.example"] {
        let mut answers = Vec::new();
        for _ in 0..8 {
            let tried = session::ops::sign_in(&bench.app, address, &secret("wrong"), &Origin::default()).await;
            answers.push(tried.unwrap_err().code);
        }
        assert_eq!(answers[..6], [Code::SignInRefused; 6], "{address}");
        assert_eq!(answers[6..], [Code::Limited; 2], "{address}");
    }
    let right = session::ops::sign_in(&bench.app, "ada@acme.example", &secret(PASSWORD), &Origin::default()).await;
    assert_eq!(right.unwrap_err().code, Code::Limited);
}

#[tokio::test]
async fn a_second_factor_is_asked_for_and_each_code_is_good_once() {
    let bench = bench().await;
    let ada = founder(&bench).await;
    let new = user::ops::begin_second_factor(&bench.app, ada).await.unwrap();
    let code = |secret: &str| {
        let bytes = totp_rs::Secret::Encoded(secret.to_owned()).to_bytes().unwrap();
        totp_rs::TOTP::new(totp_rs::Algorithm::SHA1, 6, 1, 30, bytes, None, "a".into()).unwrap()
    };
    let totp = code(new.secret.expose());
    let now = bench.app.clock.now().timestamp().unsigned_abs();

    let refused = user::ops::confirm_second_factor(&bench.app, ada, "000000").await;
    let recovery = user::ops::confirm_second_factor(&bench.app, ada, &totp.generate(now)).await.unwrap();
    let origin = Origin::default();
    let begun = session::ops::sign_in(&bench.app, "ada@acme.example", &secret(PASSWORD), &origin).await.unwrap();
    let replayed = session::ops::give_code(&bench.app, &begun.token, &totp.generate(now), &origin).await.unwrap_err();
    let opened = session::ops::give_code(&bench.app, &begun.token, &totp.generate(now + 30), &origin).await.unwrap();

    assert_eq!(refused.unwrap_err().code, Code::CodeRefused);
    assert_eq!(recovery.len(), 10);
    assert!(begun.pending);
    assert!(session::ops::find(&bench.app, &begun.token, None).await.unwrap().is_none(), "a pending one opens nothing");
    assert_eq!(replayed.code, Code::CodeRefused, "the code that confirmed it was used");
    assert_ne!(opened.token.expose(), begun.token.expose());
    assert!(session::ops::find(&bench.app, &opened.token, None).await.unwrap().is_some());

    let next = session::ops::sign_in(&bench.app, "ada@acme.example", &secret(PASSWORD), &origin).await.unwrap();
    let by_recovery = session::ops::give_code(&bench.app, &next.token, &recovery[0], &origin).await;
    let third = session::ops::sign_in(&bench.app, "ada@acme.example", &secret(PASSWORD), &origin).await.unwrap();
    let twice = session::ops::give_code(&bench.app, &third.token, &recovery[0], &origin).await;
    assert!(by_recovery.is_ok());
    assert_eq!(twice.unwrap_err().code, Code::CodeRefused);
    assert_eq!(user::ops::get(&bench.app, ada).await.unwrap().recovery_codes, 9);
}

#[tokio::test]
async fn a_new_password_ends_every_other_session_and_a_proof_changes_the_token() {
    let bench = bench().await;
    founder(&bench).await;
    let origin = Origin::default();
    let sign_in =
        async || session::ops::sign_in(&bench.app, "ada@acme.example", &secret(PASSWORD), &origin).await.unwrap();
    let (mine, other) = (sign_in().await, sign_in().await);
    let known = session::ops::find(&bench.app, &mine.token, None).await.unwrap().unwrap();

    let wrong = session::ops::prove_again(&bench.app, &known, &secret("wrong")).await.unwrap_err();
    let proved = session::ops::prove_again(&bench.app, &known, &secret(PASSWORD)).await.unwrap();
    session::ops::change_password(&bench.app, &known, &secret("another tractor, humming")).await.unwrap();

    assert_eq!(wrong.code, Code::SignInRefused);
    for (token, open) in [(&mine.token, false), (&other.token, false), (&proved, true)] {
        assert_eq!(session::ops::find(&bench.app, token, None).await.unwrap().is_some(), open);
    }
    let word = user::ops::reset_word(&bench.app, "ada@acme.example").await.unwrap();
    let weak = session::ops::reset(&bench.app, &word, &secret("password1234")).await.unwrap_err();
    session::ops::reset(&bench.app, &word, &secret(PASSWORD)).await.unwrap();
    let reused = session::ops::reset(&bench.app, &word, &secret(PASSWORD)).await.unwrap_err();
    assert_eq!((weak.code, reused.code), (Code::Invalid, Code::WordRefused));
    assert!(session::ops::find(&bench.app, &proved, None).await.unwrap().is_none(), "a reset ends all sessions");
}

#[tokio::test]
async fn an_invitation_is_good_once_and_for_its_address() {
    let bench = bench().await;
    let ada = founder(&bench).await;
    let organization = bench.caller.in_organization().unwrap();
    let invite = async |email: &str| {
        let made = member::ops::invite(&bench.app, &organization, email, None, Role::Editor).await.unwrap();
        secret(made.url.unwrap().expose().split("word=").nth(1).unwrap())
    };
    let word = invite("bob@acme.example").await;

    let offer = member::ops::look_at(&bench.app, &word).await.unwrap();
    let elses = member::ops::accept(&bench.app, ada, &word).await.unwrap_err();
    let bob = member::ops::accept_as_new(&bench.app, &word, "Bob", &secret(PASSWORD)).await.unwrap();
    let again = member::ops::accept_as_new(&bench.app, &word, "Eve", &secret(PASSWORD)).await.unwrap_err();
    let his_own = member::ops::accept(&bench.app, bob, &word).await.unwrap_err();

    assert_eq!((offer.email.as_str(), offer.role, offer.is_known), ("bob@acme.example", Role::Editor, false));
    assert_eq!((elses.code, again.code, his_own.code), (Code::WrongState, Code::WordRefused, Code::WordRefused));
    assert_eq!(member::ops::list(&bench.app, &organization, Default::default()).await.unwrap().data.len(), 1);
    assert_eq!(member::ops::places(&bench.app, (bob, Credential::None)).await.unwrap()[0].role, Role::Editor);
    let known = invite("ada@acme.example").await;
    assert!(member::ops::look_at(&bench.app, &known).await.unwrap().is_known);
    member::ops::accept(&bench.app, ada, &known).await.unwrap();
    assert_eq!(member::ops::places(&bench.app, (ada, Credential::None)).await.unwrap().len(), 2);

    // What a key of one workspace may not do to the organization, it may in its workspace.
    let offer = |workspace: Option<WorkspaceId>| json!({"email": "eve@acme.example", "role": "viewer", "workspace_id": workspace});
    let refused = post(&bench, "/v1/invitations", offer(None)).await;
    let made = post(&bench, "/v1/invitations", offer(Some(bench.caller.workspace))).await;
    let word = secret(made.body["url"].as_str().unwrap().split("word=").nth(1).unwrap());
    let path = format!("/v1/invitations/{}", made.id());
    let revoked = call(&bench, "DELETE", &path, None, &[]).await;
    let late = member::ops::accept_as_new(&bench.app, &word, "Eve", &secret(PASSWORD)).await.unwrap_err();
    assert_eq!((refused.status, made.status, revoked.status, late.code), (403, 201, 204, Code::WordRefused));
}

#[tokio::test]
async fn each_role_may_what_the_table_says_and_what_is_taken_away_is_gone_at_once() {
    let bench = bench().await;
    let workspace = bench.caller.workspace;
    for role in Role::ALL.iter().copied() {
        let email = format!("{}@acme.example", role.as_str());
        let user = member(&bench, &bench.caller, &email, role, Some(workspace)).await;
        let bearer = token(&bench, user).await;
        for (right, method, path, body) in [
            (Right::ConnectionsRead, "GET", "/v1/connections", None),
            (Right::KeysRead, "GET", "/v1/api-keys", None),
            (Right::AuditRead, "GET", "/v1/audit-events", None),
            (Right::MembersRead, "GET", "/v1/members", None),
            (
                Right::ConnectionsWrite,
                "POST",
                "/v1/connections",
                Some(json!({"kind": "nothing", "name": "n", "settings": {}})),
            ),
        ] {
            let answer = ask(&bench, &bearer, method, path, body).await;
            let may = role.rights().contains(&right);
            assert_eq!(answer.status != 403, may, "{role:?} {path}: {}", answer.body);
        }
        let me = ask(&bench, &bearer, "GET", "/v1/me", None).await;
        assert_eq!(me.body["user"]["email"], email.as_str());
        assert_eq!(me.body["organization_scopes"], json!([]));

        let all =
            member::ops::list(&bench.app, &bench.caller.in_organization().unwrap(), Default::default()).await.unwrap();
        let id = all.data.iter().find(|member| member.user_id == user).unwrap().id;
        member::ops::remove(&bench.app, &bench.caller.in_organization().unwrap(), id).await.unwrap();
        let after = ask(&bench, &bearer, "GET", "/v1/connections", None).await;
        assert_eq!((after.status, after.code()), (400, "request.workspace_missing"), "{role:?}");
    }
}

#[tokio::test]
async fn a_person_of_several_workspaces_names_one() {
    let bench = bench().await;
    let (other, _) = freshet_core::testing::workspace(&bench.app, "other").await;
    let (foreign, _) = freshet_core::testing::workspace(&bench.app, "foreign").await;
    let user = member(&bench, &bench.caller, "bob@acme.example", Role::Viewer, None).await;
    let organization = other.in_organization().unwrap();
    let made = member::ops::invite(&bench.app, &organization, "bob@acme.example", None, Role::Editor).await.unwrap();
    let word = secret(made.url.unwrap().expose().split("word=").nth(1).unwrap());
    member::ops::accept(&bench.app, user, &word).await.unwrap();
    let bearer = token(&bench, user).await;
    let at = async |workspace: &str, path: &str| {
        call(&bench, "GET", path, None, &[("authorization", &bearer), ("freshet-workspace", workspace)]).await
    };

    let unnamed = ask(&bench, &bearer, "GET", "/v1/connections", None).await;
    let places = ask(&bench, &bearer, "GET", "/v1/me/workspaces", None).await;
    let named = at(&other.workspace.to_string(), "/v1/me").await;
    let stranger = at(&foreign.workspace.to_string(), "/v1/me").await;
    let nonsense = at("acme", "/v1/me").await;

    assert_eq!((unnamed.status, unnamed.code()), (400, "request.workspace_missing"));
    assert_eq!(places.body["data"].as_array().unwrap().len(), 2);
    assert_eq!(named.body["workspace_id"], other.workspace.to_string());
    assert_eq!((stranger.status, stranger.code()), (404, "request.not_found"));
    assert_eq!((nonsense.status, nonsense.code()), (400, "request.invalid"));
    assert!(matches!(
        member::ops::caller(&bench.app, (user, Credential::None), At::Any, None).await,
        Ok(caller) if caller.workspace == bench.caller.workspace || caller.workspace == other.workspace
    ));
}

#[tokio::test]
async fn nobody_gives_more_than_they_have_and_an_organization_keeps_an_owner() {
    let bench = bench().await;
    let owner = member(&bench, &bench.caller, "owner@acme.example", Role::Owner, None).await;
    let admin = member(&bench, &bench.caller, "admin@acme.example", Role::Admin, None).await;
    let local = member(&bench, &bench.caller, "local@acme.example", Role::Admin, Some(bench.caller.workspace)).await;
    let (owners, admins, locals) = (token(&bench, owner).await, token(&bench, admin).await, token(&bench, local).await);
    let listed = ask(&bench, &owners, "GET", "/v1/members", None).await;
    let id = |user: UserId| {
        let found = listed.body["data"].as_array().unwrap().iter().find(|one| one["user_id"] == user.to_string());
        found.unwrap()["id"].as_str().unwrap().to_owned()
    };
    let invitation = |role: &str, workspace: Option<WorkspaceId>| {
        Some(json!({"email": "new@acme.example", "role": role, "workspace_id": workspace}))
    };

    for (who, method, path, body, status) in [
        (&admins, "POST", "/v1/invitations".to_owned(), invitation("owner", None), 403),
        (&admins, "POST", "/v1/invitations".to_owned(), invitation("admin", None), 201),
        (&admins, "PATCH", format!("/v1/members/{}", id(owner)), Some(json!({"role": "viewer"})), 403),
        (&admins, "PATCH", format!("/v1/members/{}", id(admin)), Some(json!({"role": "owner"})), 403),
        (&admins, "PATCH", "/v1/organization".to_owned(), Some(json!({"name": "Mine"})), 403),
        (&locals, "POST", "/v1/invitations".to_owned(), invitation("viewer", None), 403),
        (&locals, "POST", "/v1/invitations".to_owned(), invitation("viewer", Some(bench.caller.workspace)), 201),
        (&locals, "PATCH", format!("/v1/members/{}", id(admin)), Some(json!({"role": "viewer"})), 403),
        (&locals, "POST", "/v1/workspaces".to_owned(), Some(json!({"slug": "mine"})), 403),
        (&admins, "POST", "/v1/workspaces".to_owned(), Some(json!({"slug": "second"})), 201),
        (&owners, "PATCH", "/v1/organization".to_owned(), Some(json!({"session_idle_hours": 99})), 400),
        (&owners, "DELETE", format!("/v1/members/{}", id(owner)), None, 409),
        (&owners, "PATCH", format!("/v1/members/{}", id(owner)), Some(json!({"role": "admin"})), 409),
        (&owners, "PATCH", format!("/v1/members/{}", id(admin)), Some(json!({"role": "viewer"})), 200),
    ] {
        // Since there is a second workspace, people of the whole organization have to name one.
        let workspace = bench.caller.workspace.to_string();
        let headers =
            [("authorization", who.as_str()), ("if-match", "\"1\""), ("freshet-workspace", workspace.as_str())];
        let answer = call(&bench, method, &path, body, &headers).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
    }
}

#[tokio::test]
async fn a_key_of_the_organization_acts_in_each_of_its_workspaces_and_in_no_other() {
    let bench = bench().await;
    let organization = bench.caller.in_organization().unwrap();
    let second = freshet_core::workspace::ops::create(&bench.app, &organization, "second", "Second").await.unwrap();
    let (foreign, _) = freshet_core::testing::workspace(&bench.app, "foreign").await;
    let make = async |of_organization| {
        let grant = Grant { rights: &[Right::ConnectionsRead], of_organization, days: 1 };
        let made = api_key::ops::create(&bench.app, bench.caller.workspace, "robot", grant).await.unwrap();
        format!("Bearer {}", made.text.expose())
    };
    let (wide, narrow) = (make(true).await, make(false).await);

    for (bearer, workspace, status) in [
        (&wide, bench.caller.workspace, 200),
        (&wide, second.id, 200),
        (&wide, foreign.workspace, 404),
        (&narrow, bench.caller.workspace, 200),
        (&narrow, second.id, 404),
        (&narrow, foreign.workspace, 404),
    ] {
        let named = workspace.to_string();
        let headers = [("authorization", bearer.as_str()), ("freshet-workspace", named.as_str())];
        assert_eq!(call(&bench, "GET", "/v1/connections", None, &headers).await.status, status, "{workspace}");
    }
    let account = post(&bench, "/v1/service-accounts", json!({"name": "exporter"})).await.id();
    let body = json!({"service_account_id": account, "scopes": ["runs:read"], "of_organization": true});
    let refused = post(&bench, "/v1/api-keys", body).await;
    assert_eq!(
        (refused.status, refused.code()),
        (403, "auth.scope_missing"),
        "a key of one workspace makes none of all"
    );
}

#[tokio::test]
async fn what_people_do_is_in_the_organizations_log_and_in_no_other() {
    let bench = bench().await;
    let owner = member(&bench, &bench.caller, "owner@acme.example", Role::Owner, None).await;
    let (other, _) = freshet_core::testing::workspace(&bench.app, "other").await;
    let stranger = member(&bench, &other, "stranger@other.example", Role::Owner, None).await;
    session::ops::sign_in(&bench.app, "owner@acme.example", &secret(PASSWORD), &Origin::default()).await.unwrap();

    let log = ask(&bench, &token(&bench, owner).await, "GET", "/v1/audit-events?organization=true", None).await;
    let strangers =
        ask(&bench, &token(&bench, stranger).await, "GET", "/v1/audit-events?organization=true", None).await;

    let actions = |answer: &Answered| -> Vec<String> {
        let lines = answer.body["data"].as_array().unwrap();
        lines.iter().map(|line| line["action"].as_str().unwrap().to_owned()).collect()
    };
    for action in
        ["user.signed_in", "membership.created", "invitation.created", "organization.created", "api_key.created"]
    {
        assert!(actions(&log).iter().any(|one| one == action), "{action}: {:?}", actions(&log));
    }
    assert!(!actions(&strangers).contains(&"user.signed_in".to_owned()));
    assert!(!log.body.to_string().contains(PASSWORD));
}

#[tokio::test]
async fn a_personal_token_is_its_persons_alone() {
    let bench = bench().await;
    let (ada, bob) =
        (founder(&bench).await, member(&bench, &bench.caller, "bob@acme.example", Role::Viewer, None).await);
    let (adas, bobs) = (token(&bench, ada).await, token(&bench, bob).await);
    let begun =
        session::ops::sign_in(&bench.app, "ada@acme.example", &secret(PASSWORD), &Origin::default()).await.unwrap();

    let tokens = ask(&bench, &adas, "GET", "/v1/personal-tokens", None).await;
    let sessions = ask(&bench, &adas, "GET", "/v1/sessions", None).await;
    let (token_id, session_id) = (tokens.body["data"][0]["id"].clone(), sessions.body["data"][0]["id"].clone());
    let path = |noun: &str, id: &Value| format!("/v1/{noun}/{}", id.as_str().unwrap());

    for (noun, id) in [("personal-tokens", &token_id), ("sessions", &session_id)] {
        assert_eq!(ask(&bench, &bobs, "DELETE", &path(noun, id), None).await.status, 404, "{noun}");
    }
    assert_eq!(ask(&bench, &bobs, "GET", "/v1/sessions", None).await.body["data"], json!([]));
    assert_eq!(call(&bench, "GET", "/v1/sessions", None, &[]).await.status, 403, "a service account has no sessions");
    assert!(session::ops::find(&bench.app, &begun.token, None).await.unwrap().is_some());
    assert_eq!(ask(&bench, &adas, "DELETE", &path("sessions", &session_id), None).await.status, 204);
    assert!(session::ops::find(&bench.app, &begun.token, None).await.unwrap().is_none());
    assert_eq!(ask(&bench, &adas, "DELETE", &path("personal-tokens", &token_id), None).await.status, 204);
    assert_eq!(ask(&bench, &adas, "GET", "/v1/me", None).await.status, 401);
}

#[tokio::test]
async fn a_line_that_is_changed_removed_or_slipped_in_breaks_the_chain() {
    use freshet_core::audit::chain;
    use sqlx::{AssertSqlSafe, Connection, PgConnection};
    let bench = bench().await;
    let organization = bench.caller.organization().unwrap();
    let caller = bench.caller.in_organization().unwrap();
    for name in ["a", "b", "c", "d"] {
        post(&bench, "/v1/service-accounts", json!({"name": name})).await;
    }
    assert!(chain::link(&bench.app).await.unwrap() >= 6);
    assert_eq!(chain::link(&bench.app).await.unwrap(), 0, "each line has one link");
    assert_eq!(chain::check(&bench.app, organization).await.unwrap(), None);
    let head = chain::last_check(&bench.app, &caller).await.unwrap();
    assert_eq!((head.head_seq, head.head_hash.map(|hash| hash.len())), (head.links, Some(64)));

    let mut admin = PgConnection::connect(&bench.admin_url).await.unwrap();
    let mut tampered = async |does: String, undoes: &str| {
        sqlx::raw_sql(AssertSqlSafe(does.clone())).execute(&mut admin).await.unwrap();
        let finding = chain::check(&bench.app, organization).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(undoes.to_owned())).execute(&mut admin).await.unwrap();
        assert_eq!(chain::check(&bench.app, organization).await.unwrap(), None, "{undoes}");
        finding.unwrap_or_else(|| panic!("{does} went unseen"))
    };
    let a = "action = 'service_account.created' and changes->>'name' = 'a'";
    let changed = tampered(
        format!("update audit_event set action = 'nothing.happened' where {a}"),
        "update audit_event set action = 'service_account.created' where action = 'nothing.happened'",
    );
    assert!(changed.await.contains("is not what was linked"));
    let removed = tampered(
        format!("create table kept as select * from audit_event where {a}; delete from audit_event where {a}"),
        "insert into audit_event select * from kept; drop table kept",
    );
    assert!(removed.await.contains("is missing"));
    let unlinked = tampered(
        "create table kept as select * from audit_link where seq = 3; delete from audit_link where seq = 3".to_owned(),
        "insert into audit_link select * from kept; drop table kept",
    );
    assert!(unlinked.await.contains("links 3 to 3 are missing"));
    let slipped_in = tampered(
        format!(
            "insert into audit_event (organization_id, id, at, actor_kind, action, target_kind, target_id)
             values ('{}', gen_random_uuid(), now() - interval '2 hours', 'command', 'slipped.in', 'run', gen_random_uuid())",
            organization.uuid()
        ),
        "delete from audit_event where action = 'slipped.in'",
    );
    assert!(slipped_in.await.contains("has no link"));

    let own = sqlx::query("delete from audit_link");
    let mut app = PgConnection::connect(bench.app.settings.database_url.expose()).await.unwrap();
    assert!(own.execute(&mut app).await.unwrap_err().to_string().contains("permission denied"));
}
