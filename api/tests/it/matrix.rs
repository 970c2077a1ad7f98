//! Every operation of the document × every kind of caller: each cell as the table of rights says.

use freshet_core::access::{Right, Role};
use freshet_core::api_key::{self, ops::Grant};
use freshet_core::testing::{Bench, workspace};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::cast::{body, fill, member, operations, token};
use crate::client::{bench_with, call_of, router};
use crate::table::Table;

/// Callers by their names, each with its header and the rights it has: in the workspace, and in the whole organization.
async fn callers(bench: &Bench) -> Vec<(String, String, Vec<Right>, Vec<Right>, bool)> {
    let own = bench.caller.workspace;
    let key = async |rights: &[Right], of_organization| {
        let made = api_key::ops::create(&bench.app, own, "robot", Grant { rights, of_organization, days: 1 }).await;
        format!("Bearer {}", made.unwrap().text.expose())
    };
    let mut callers = vec![
        ("key, every scope".to_owned(), key(Right::ALL, false).await, Right::ALL.to_vec(), vec![], false),
        (
            "key of the organization".to_owned(),
            key(Right::ALL, true).await,
            Right::ALL.to_vec(),
            Right::ALL.to_vec(),
            false,
        ),
    ];
    for right in Right::ALL {
        let others: Vec<_> = Right::ALL.iter().copied().filter(|other| other != right).collect();
        callers.push((format!("key without {}", right.as_str()), key(&others, false).await, others, vec![], false));
    }
    for role in Role::ALL.iter().copied() {
        let here = member(bench, &bench.caller, &format!("{}@here.example", role.as_str()), role, Some(own)).await;
        let whole = member(bench, &bench.caller, &format!("{}@whole.example", role.as_str()), role, None).await;
        let name = role.as_str();
        callers.push((format!("{name} of the workspace"), token(bench, here).await, role.rights(), vec![], true));
        callers.push((
            format!("{name} of the organization"),
            token(bench, whole).await,
            role.rights(),
            role.rights(),
            true,
        ));
    }
    callers
}

const MANY: &[(&str, &str)] =
    &[("api_reads_per_minute", "100000"), ("api_writes_per_minute", "100000"), ("api_expensive_per_minute", "100000")];

#[tokio::test]
async fn every_route_lets_through_whom_the_table_of_rights_lets_through() {
    let bench = bench_with(MANY).await;
    let (operations, router) = (operations(), router(&bench));
    let callers = callers(&bench).await;
    let mut table = Table::new(&["let through", "404 for an id that nobody has", "403", "401"]);

    for (name, bearer, rights, whole, is_person) in &callers {
        for operation in &operations {
            let headers = [("authorization", bearer.as_str()), ("if-match", "\"999999\"")];
            let answer =
                call_of(&bench, router.clone(), &operation.method, &operation.nobodys(), body(operation), &headers)
                    .await;
            let cell = format!("{name}: {} {}: {} {}", operation.method, operation.path, answer.status, answer.body);
            let has = if operation.is_the_organizations() { whole } else { rights };
            let may =
                operation.scopes.iter().all(|scope| has.contains(scope)) && (*is_person || !operation.is_a_persons());
            assert!(answer.status < 500 && answer.status != 401, "{cell}");
            match may {
                true => assert_ne!(answer.status, 403, "{cell}"),
                false => assert_eq!((answer.status, answer.code()), (403, "auth.scope_missing"), "{cell}"),
            }
            if may && operation.id.is_some() {
                assert_eq!((answer.status, answer.code()), (404, "request.not_found"), "an id that nobody has: {cell}");
            }
            let column = if !may {
                2
            } else if operation.id.is_some() {
                1
            } else {
                0
            };
            table.count(name, column, true);
        }
    }

    let dead = dead_keys(&bench).await;
    for (name, bearer) in &dead {
        for operation in &operations {
            let headers = [("authorization", bearer.as_str()), ("if-match", "\"1\"")];
            let answer =
                call_of(&bench, router.clone(), &operation.method, &operation.nobodys(), body(operation), &headers)
                    .await;
            assert_eq!((answer.status, answer.code()), (401, "auth.invalid_key"), "{name}: {}", operation.path);
            table.count(name, 3, true);
        }
    }
    table.print(&format!("{} operations by {} callers", operations.len(), callers.len() + dead.len()));
    let [through, not_there, forbidden, unknown] = [0, 1, 2, 3].map(|column| table.sum(column));
    assert!(through + not_there > 1_000 && forbidden > 400 && unknown > 300);
}

/// No key, and keys that work no more.
async fn dead_keys(bench: &Bench) -> Vec<(&'static str, String)> {
    let mut admin = PgConnection::connect(&bench.admin_url).await.unwrap();
    let mut dead = vec![("none", String::new()), ("garbage", "Bearer fr_live_x".to_owned())];
    for (name, change) in [
        ("expired key", "update api_key set expires_at = now() - interval '1 s'"),
        ("revoked key", "update api_key set revoked_at = now()"),
    ] {
        let grant = Grant { rights: Right::ALL, of_organization: true, days: 1 };
        let made = api_key::ops::create(&bench.app, bench.caller.workspace, name, grant).await.unwrap();
        let change = format!("{change} where id = '{}'", made.key.id.uuid());
        sqlx::raw_sql(AssertSqlSafe(change)).execute(&mut admin).await.unwrap();
        dead.push((name, format!("Bearer {}", made.text.expose())));
    }
    for (name, change) in [
        ("expired token", "update personal_token set expires_at = now() - interval '1 s'"),
        ("revoked token", "update personal_token set revoked_at = now()"),
        ("token of a disabled person", "update app_user set disabled_at = now()"),
    ] {
        let user =
            member(bench, &bench.caller, &format!("{}@dead.example", name.replace(' ', ".")), Role::Owner, None).await;
        let bearer = token(bench, user).await;
        let id = if name.contains("disabled") { "id" } else { "user_id" };
        let change = format!("{change} where {id} = '{}'", user.uuid());
        sqlx::raw_sql(AssertSqlSafe(change)).execute(&mut admin).await.unwrap();
        dead.push((name, bearer));
    }
    dead
}

#[tokio::test]
async fn row_level_security_alone_shows_a_tenant_nothing_of_another() {
    let bench = bench_with(MANY).await;
    let (theirs, _) = workspace(&bench.app, "stranger").await;
    for caller in [&bench.caller, &theirs] {
        fill(&bench, caller).await;
    }
    let mut admin = PgConnection::connect(&bench.admin_url).await.unwrap();
    let tables: Vec<(String,)> = sqlx::query_as(
        "select relname::text from pg_class
         where relkind in ('r', 'p') and relnamespace = 'public'::regnamespace
           and relname not in ('_sqlx_migrations', 'installation')",
    )
    .fetch_all(&mut admin)
    .await
    .unwrap();
    let users: Vec<uuid::Uuid> = sqlx::query_scalar("select user_id from membership where organization_id = $1")
        .bind(theirs.organization().unwrap().uuid())
        .fetch_all(&mut admin)
        .await
        .unwrap();
    let scopes = [
        ("freshet.workspace_id", theirs.workspace.uuid()),
        ("freshet.organization_id", theirs.organization().unwrap().uuid()),
        ("freshet.user_id", users[0]),
    ];
    let mine = [bench.caller.workspace.uuid().to_string(), bench.caller.organization().unwrap().uuid().to_string()];

    let mut filled = 0;
    for (table,) in &tables {
        let all: i64 = sqlx::query_scalar(AssertSqlSafe(format!("select count(*) from {table}")))
            .fetch_one(&mut admin)
            .await
            .unwrap();
        filled += i64::from(all > 0);
        for (setting, id) in &scopes {
            let mut app = PgConnection::connect(bench.app.settings.database_url.expose()).await.unwrap();
            sqlx::raw_sql(AssertSqlSafe(format!("set {setting} = '{id}'"))).execute(&mut app).await.unwrap();
            let rows: Result<Vec<String>, _> =
                sqlx::query_scalar(AssertSqlSafe(format!("select t::text from {table} as t")))
                    .fetch_all(&mut app)
                    .await;
            let Ok(rows) = rows else { continue };
            assert!(!rows.iter().any(|row| mine.iter().any(|id| row.contains(id))), "{table} by {setting}: {rows:?}");
            for change in [format!("update {table} set workspace_id = workspace_id"), format!("delete from {table}")] {
                let mut change_of = app.begin().await.unwrap();
                if let Ok(done) = sqlx::query(AssertSqlSafe(change.clone())).execute(&mut *change_of).await {
                    assert!(done.rows_affected() <= rows.len() as u64, "{change} by {setting}");
                }
            }
        }
    }
    assert!(filled >= 14, "only {filled} tables had rows to hide");
}
