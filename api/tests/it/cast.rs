//! Who the tests are about, and what the document says.

use freshet_core::access::{Caller, Right, Role};
use freshet_core::api_key::{self, ops::Grant};
use freshet_core::id::{UserId, WorkspaceId};
use freshet_core::settings::Secret;
use freshet_core::testing::Bench;
use freshet_core::{member as membership, personal_token};
use serde_json::{Value, json};

use crate::client::{get, objects, post};

pub const PASSWORD: &str = "violet tractor mumbling 9";

pub fn secret(text: &str) -> Secret {
    text.parse().unwrap()
}

/// Somebody whom the caller's organization invited and who accepted.
pub async fn member(bench: &Bench, caller: &Caller, email: &str, role: Role, within: Option<WorkspaceId>) -> UserId {
    let organization = caller.in_organization().unwrap();
    let made = membership::ops::invite(&bench.app, &organization, email, within, role).await.unwrap();
    let url = made.url.unwrap();
    let word = secret(url.expose().split("word=").nth(1).unwrap());
    membership::ops::accept_as_new(&bench.app, &word, email, &secret(PASSWORD)).await.unwrap()
}

pub async fn token(bench: &Bench, user: UserId) -> String {
    let made = personal_token::ops::create(&bench.app, user, "tests", 1).await.unwrap();
    format!("Bearer {}", made.text.expose())
}

pub async fn make_run(bench: &Bench, model: &str, sync: &str) -> String {
    use freshet_core::connector::{Column, Kind, Schema};
    let found = freshet_core::model::ops::get(&bench.app, &bench.caller, model.parse().unwrap()).await.unwrap();
    let id = Column { name: "id".into(), kind: Kind::Int, source_type: "int8".into(), nullable: false };
    let mut tx = bench.app.db.tenant(bench.caller.workspace).await.unwrap();
    let schema = Schema { columns: vec![id] };
    freshet_core::model::ops::record_columns(&mut tx, found.version_id, &[], &schema, &["id".into()]).await.unwrap();
    tx.commit().await.unwrap();
    post(bench, &format!("/v1/syncs/{sync}/activate"), json!(null)).await;
    let run = post(bench, &format!("/v1/syncs/{sync}/runs"), json!(null)).await.id();
    assert_eq!(get(bench, &format!("/v1/runs/{run}")).await.status, 200);
    run
}

/// An operation of the document.
pub struct Operation {
    pub method: String,
    pub path: String,
    pub scopes: Vec<Right>,
    /// The prefix of the id in its path, if there is one.
    pub id: Option<String>,
}

impl Operation {
    /// Its path with an id that nobody has.
    pub fn nobodys(&self) -> String {
        let id = self.id.as_ref().map(|prefix| format!("{prefix}_01m8567bj3eqpb3ep3wwxgctvy"));
        self.path.replace("{id}", &id.unwrap_or_default())
    }

    /// Whether it is about a person, and not about a workspace.
    pub fn is_a_persons(&self) -> bool {
        ["/v1/sessions", "/v1/personal-tokens", "/v1/identities", "/v1/me/workspaces"]
            .iter()
            .any(|path| self.path.starts_with(path))
    }

    /// Whether it wants its right in the whole organization.
    pub fn is_the_organizations(&self) -> bool {
        let paths = ["PATCH /v1/organization", "POST /v1/workspaces", "GET /v1/audit-chain"];
        let of_sign_in = ["/v1/sso-connections", "/v1/domains"].iter().any(|path| self.path.starts_with(path));
        of_sign_in || paths.contains(&format!("{} {}", self.method, self.path).as_str())
    }
}

/// Every operation of the document.
pub fn operations() -> Vec<Operation> {
    let document: Value = serde_json::from_str(&freshet_api::openapi_json().unwrap()).unwrap();
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let scopes = operation["security"][0]["key"].as_array().unwrap_or_else(|| panic!("{path}: no security"));
            let scopes = scopes.iter().map(|scope| Right::parse(scope.as_str().unwrap()).unwrap()).collect();
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let id = parameters.iter().find(|one| one["name"] == "id" && one["in"] == "path").map(|id| {
                let name = id["schema"]["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
                let pattern = document["components"]["schemas"][name]["pattern"].as_str().unwrap();
                pattern.trim_start_matches('^').split('_').next().unwrap().to_owned()
            });
            assert_eq!(id.is_some(), path.contains("{id}"), "{method} {path}");
            found.push(Operation { method: method.to_uppercase(), path: path.clone(), scopes, id });
        }
    }
    found
}

pub fn body(operation: &Operation) -> Option<Value> {
    ["POST", "PATCH", "PUT"].contains(&operation.method.as_str()).then(|| match operation.path.rsplit('/').next() {
        Some("streams") => json!({"name": "S", "on": {"kind": "table", "schema": "P", "name": "T"}}),
        Some("resync") => json!({"how": "full"}),
        // Refused by its shape, so that nobody's workspaces come to be more.
        Some("workspaces") => json!({"slug": "!"}),
        Some("domains") => json!({"name": "!"}),
        Some("sso-connections") => json!({
            "name": "n", "kind": "oidc", "client_id": "c", "client_secret": "s", "default_role": "viewer",
        }),
        _ if operation.path.starts_with("/v1/members") => json!({"role": "viewer"}),
        _ => json!({}),
    })
}

/// A row of most kinds in a caller's workspace.
pub async fn fill(bench: &Bench, caller: &Caller) {
    let grant = Grant { rights: Right::ALL, of_organization: false, days: 1 };
    let key = api_key::ops::create(&bench.app, caller.workspace, "filler", grant).await.unwrap();
    let filled = Bench {
        app: bench.app.clone(),
        caller: caller.clone(),
        key: key.text.expose().to_owned(),
        admin_url: bench.admin_url.clone(),
    };
    let [connection, model, _, sync] = objects(&filled).await;
    post(&filled, &format!("/v1/connections/{connection}/test"), Value::Null).await;
    make_run(&filled, &model, &sync).await;
    let email = format!("owner.{}@fill.example", caller.workspace);
    let owner = member(&filled, caller, &email, Role::Owner, None).await;
    token(&filled, owner).await;
    let password = secret(PASSWORD);
    let origin = freshet_core::session::Origin::default();
    freshet_core::session::ops::sign_in(&bench.app, &email, &password, &origin).await.unwrap();
    freshet_core::user::ops::begin_second_factor(&bench.app, owner).await.unwrap();
    sign_in_by_issuer(&filled, caller, owner).await;
    freshet_core::audit::chain::link(&bench.app).await.unwrap();
}

/// A domain, a connection and an identity of a caller's organization; their ids.
pub async fn sign_in_by_issuer(bench: &Bench, caller: &Caller, person: UserId) -> [String; 3] {
    let organization = caller.in_organization().unwrap();
    let name = format!("{}.example", caller.workspace.to_string().replace('_', "-"));
    let domain = freshet_core::domain::ops::verify_by_hand(&bench.app, &organization, &name).await.unwrap();
    let new = serde_json::from_value(json!({
        "name": "Acme's own", "kind": "google", "client_id": "c", "client_secret": "sso-canary", "domains": [name],
        "default_role": "viewer",
    }));
    let connection = freshet_core::sso::ops::create(&bench.app, &organization, &new.unwrap()).await.unwrap();
    let mut admin = <sqlx::PgConnection as sqlx::Connection>::connect(&bench.admin_url).await.unwrap();
    sqlx::query("insert into identity (user_id, issuer, subject) values ($1, 'https://accounts.google.com', $1::text)")
        .bind(person.uuid())
        .execute(&mut admin)
        .await
        .unwrap();
    sqlx::query(
        "insert into sso_attempt (organization_id, id, connection_id, state_hash, purpose, next, expires_at)
         values ($1, $2, $2, sha256($3), 'sign_in', '/', now() + interval '1 minute')",
    )
    .bind(organization.organization.uuid())
    .bind(connection.id.uuid())
    .bind(connection.id.to_string().into_bytes())
    .execute(&mut admin)
    .await
    .unwrap();
    let identity = freshet_core::identity::ops::list(&bench.app, person).await.unwrap()[0].id;
    [domain.id.to_string(), connection.id.to_string(), identity.to_string()]
}
