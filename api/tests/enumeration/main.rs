//! Whether an address is somebody's is told by no answer, and by no time: what takes the time, hashing a password, is
//! counted, for which this test has a process of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(dead_code, reason = "the modules are those of the other tests")]

#[path = "../it/cast.rs"]
mod cast;
#[path = "../it/client.rs"]
mod client;

use std::time::Duration;

use freshet_core::access::Role;
use freshet_core::mail::Mailer;
use freshet_core::session::{self, Origin};
use freshet_core::settings::Settings;
use freshet_core::testing::{Bench, passwords_hashed};
use freshet_core::user::{self, ops::NewUser};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::cast::{PASSWORD, member, secret, token};
use crate::client::{bench_with, call};

const KNOWN: &str = "ada@acme.example";
const DISABLED: &str = "carol@acme.example";
const NOBODY: &str = "nobody@acme.example";

/// What is told, and how many passwords were hashed meanwhile.
async fn told(ask: impl Future<Output = String>) -> (String, usize) {
    let before = passwords_hashed();
    let told = ask.await;
    // What goes on in the background is counted too.
    tokio::time::sleep(Duration::from_millis(200)).await;
    (told, passwords_hashed() - before)
}

async fn sign_in(bench: &Bench, email: &str) -> String {
    let tried = session::ops::sign_in(&bench.app, email, &secret("wrong, and long"), &Origin::default()).await;
    tried.map(|_| ()).map_err(|error| format!("{} {}", error.code, error.message)).unwrap_err()
}

async fn reset(bench: &Bench, email: &str) -> String {
    format!("{:?}", user::ops::ask_reset(&bench.app, email).await)
}

async fn sign_up(bench: &Bench, email: &str, slug: &str) -> String {
    let new = NewUser { email, name: "Somebody", password: &secret(PASSWORD) };
    format!("{:?}", user::ops::sign_up(&bench.app, &new, slug, "Somewhere").await)
}

async fn invite(bench: &Bench, bearer: &str, email: &str) -> String {
    let body = serde_json::json!({"email": email, "role": "viewer"});
    let answer = call(bench, "POST", "/v1/invitations", Some(body), &[("authorization", bearer)]).await;
    let members = answer.body.as_object().unwrap();
    // Ids, times and the word are other ones each time, and the address is the one that was asked with.
    let shape: Vec<_> = members.iter().map(|(name, value)| format!("{name}: {}", value.is_null())).collect();
    format!("{} {}", answer.status, shape.join(", "))
}

/// The same installation with a way for mail, which nobody takes.
fn mailing(bench: &Bench) -> Bench {
    let settings = [("smtp_url", "smtp://127.0.0.1:9"), ("mail_from", "freshet@acme.example")];
    let mut app = bench.app.clone();
    app.mailer = Mailer::new(&Settings::with(&settings).unwrap()).unwrap();
    Bench { app, caller: bench.caller.clone(), key: bench.key.clone(), admin_url: bench.admin_url.clone() }
}

#[tokio::test]
async fn enumeration_of_addresses() {
    let bench = bench_with(&[("sign_up", "open")]).await;
    let owner = member(&bench, &bench.caller, KNOWN, Role::Owner, None).await;
    let bearer = token(&bench, owner).await;
    let disabled = member(&bench, &bench.caller, DISABLED, Role::Viewer, None).await;
    let mut admin = PgConnection::connect(&bench.admin_url).await.unwrap();
    let disable = format!("update app_user set disabled_at = now() where id = '{}'", disabled.uuid());
    sqlx::raw_sql(AssertSqlSafe(disable)).execute(&mut admin).await.unwrap();
    let mailing = mailing(&bench);

    for [known, unknown] in [
        [told(sign_in(&bench, KNOWN)).await, told(sign_in(&bench, NOBODY)).await],
        [told(sign_in(&bench, DISABLED)).await, told(sign_in(&bench, "another@acme.example")).await],
        [told(sign_in(&mailing, KNOWN)).await, told(sign_in(&mailing, NOBODY)).await],
        [told(reset(&mailing, KNOWN)).await, told(reset(&mailing, NOBODY)).await],
        [told(sign_up(&mailing, KNOWN, "one")).await, told(sign_up(&mailing, "new@acme.example", "two")).await],
        [told(invite(&bench, &bearer, KNOWN)).await, told(invite(&bench, &bearer, NOBODY)).await],
    ] {
        assert_eq!(known, unknown);
    }
    assert_eq!(told(sign_in(&bench, NOBODY)).await.1, 1, "the count counts");
}
