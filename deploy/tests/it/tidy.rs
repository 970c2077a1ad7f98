//! The rules that keep the house tidy.

use std::fs;
use std::path::{Path, PathBuf};

use freshet_core::connector::Registry;
use freshet_core::testing::Bench;
use sqlx::{Connection, PgConnection};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn rust_files(folder: &str) -> Vec<(String, String)> {
    let (mut found, mut folders) = (Vec::new(), vec![root().join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!found.is_empty());
    found
}

#[test]
fn the_arrows_between_crates_point_one_way() {
    let forbidden = [
        ("core", vec!["freshet-api", "freshet-web", "freshet-worker", "axum", "rdkafka"]),
        ("api", vec!["freshet-web", "freshet-worker", "rdkafka"]),
        ("web", vec!["freshet-api", "freshet-worker", "rdkafka", "sqlx"]),
        ("worker", vec!["freshet-api", "freshet-web", "axum"]),
    ];
    for (folder, names) in forbidden {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let shipped = manifest.split("[dev-dependencies]").next().unwrap();
        for name in names {
            assert!(!shipped.contains(&format!("\n{name}")), "{folder} must not depend on {name}");
        }
    }
}

#[test]
fn statements_on_our_own_database_stand_only_in_stores() {
    for folder in ["core/src", "api/src", "web/src", "worker/src/jobs", "worker/src/pipeline", "deploy/src"] {
        for (name, text) in rust_files(folder) {
            let may = name.ends_with("/store.rs") || ["core/src/db.rs", "core/src/testing.rs"].contains(&name.as_str());
            assert!(may || !text.contains("sqlx::query"), "{name} holds a statement");
        }
    }
}

#[test]
fn connectors_dial_through_the_egress_policy() {
    // Each of these looks a name up or dials by itself; what judges it is in `core::egress`.
    let ways =
        ["TcpStream::connect", "lookup_host", "to_socket_addrs", "create_with_context", ".create()", "Client::builder"];
    for folder in ["worker/src/sources", "worker/src/destinations"] {
        for (name, text) in rust_files(folder) {
            let found = ways.iter().find(|way| text.contains(*way));
            assert!(found.is_none(), "{name}: {found:?} dials what nobody judged");
        }
    }
}

#[test]
fn who_serves_pages_dials_an_issuer_by_one_way_and_nobody_else() {
    let ways = ["TcpStream::connect", "lookup_host", "to_socket_addrs", "Client::builder", "reqwest::"];
    // The policy itself, the one way to issuers, and mail, whose server is the installation's own.
    let judged = ["core/src/egress.rs", "core/src/egress/http.rs", "core/src/sso/dial.rs"];
    for folder in ["core/src", "api/src", "web/src"] {
        for (name, text) in rust_files(folder) {
            let found = ways.iter().find(|way| text.contains(*way));
            assert!(found.is_none() || judged.contains(&name.as_str()), "{name}: {found:?} dials what nobody judged");
        }
    }
}

#[test]
fn a_statement_of_a_store_names_the_workspace_or_asks_a_dispatcher_function() {
    for (name, text) in rust_files("core/src").iter().filter(|(name, _)| name.ends_with("/store.rs")) {
        for statement in text.split("sqlx::query").skip(1) {
            let statement = statement.split(".await").next().unwrap();
            let named = [
                "workspace_id",
                "update installation",
                "tx.workspace()",
                "tx.organization()",
                "tx.user()",
                "$tx.conn()",
            ]
            .iter()
            .any(|word| statement.contains(word));
            let own = ["add_run_event(", "tenant_", "erase_rows("];
            let function = statement.contains("db.dispatcher()") || own.iter().any(|name| statement.contains(name));
            assert!(named || function, "{name}: a statement without its workspace: {statement}");
        }
    }
}

#[test]
fn modules_of_core_name_only_those_above_them() {
    let lib = fs::read_to_string(root().join("core/src/lib.rs")).unwrap();
    let order: Vec<_> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';'))).collect();
    for (name, text) in rust_files("core/src") {
        let own = name.strip_prefix("core/src/").unwrap().split(['/', '.']).next().unwrap();
        let Some(place) = order.iter().position(|module| *module == own) else { continue };
        let shipped = text.split("#[cfg(test)]").next().unwrap();
        for (later, module) in order.iter().enumerate().skip(place + 1) {
            let names = shipped.contains(&format!("use crate::{module}::"))
                || shipped.contains(&format!("use crate::{module};"));
            assert!(!names, "{name} (module {place}) names `{module}` (module {later}), which stands below it");
        }
    }
}

#[tokio::test]
async fn every_tenant_table_is_under_forced_row_level_security_with_a_check() {
    let bench = Bench::new(Registry::default()).await;
    let mut connection = PgConnection::connect(&bench.admin_url).await.unwrap();

    let tables: Vec<(String, bool, bool, bool, bool)> = sqlx::query_as(
        "select c.relname::text, c.relrowsecurity, c.relforcerowsecurity,
                exists (select 1 from pg_policy as p where p.polrelid = c.oid and p.polwithcheck is not null
                          and 0 = any (p.polroles)),
                exists (select 1 from pg_attribute as a
                        where a.attrelid = c.oid and a.attname in ('workspace_id', 'organization_id', 'user_id'))
                  or c.relname in ('organization', 'app_user')
         from pg_class as c
         where c.relkind in ('r', 'p') and c.relnamespace = 'public'::regnamespace",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();

    // `sign_in_failure` is of addresses that need not be anybody's: the application reaches it by two functions alone.
    // `plan` is the installation's; `master_key` holds names of keys.
    let without_tenant = ["_sqlx_migrations", "installation", "plan", "sign_in_failure", "master_key"];
    assert!(tables.len() > 15);
    for (table, enabled, forced, checked, has_tenant) in tables {
        if without_tenant.contains(&table.as_str()) {
            continue;
        }
        assert!(enabled && forced && checked && has_tenant, "{table}: {enabled} {forced} {checked} {has_tenant}");
    }
}

#[tokio::test]
async fn the_database_alone_keeps_workspaces_apart() {
    let bench = Bench::new(Registry::default()).await;
    let mut connection = PgConnection::connect(bench.app.settings.database_url.expose()).await.unwrap();

    let without: i64 = sqlx::query_scalar("select count(*) from workspace").fetch_one(&mut connection).await.unwrap();
    sqlx::query("select set_config('freshet.workspace_id', $1, false)")
        .bind(bench.caller.workspace.uuid().to_string())
        .execute(&mut connection)
        .await
        .unwrap();
    let own: i64 = sqlx::query_scalar("select count(*) from workspace").fetch_one(&mut connection).await.unwrap();
    let foreign = sqlx::query("insert into service_account (workspace_id, id, name) values ($1, $1, 'x')")
        .bind(freshet_core::id::WorkspaceId::new())
        .execute(&mut connection)
        .await;

    assert_eq!((without, own), (0, 1));
    assert!(foreign.unwrap_err().to_string().contains("row-level security"));
}

#[tokio::test]
async fn every_table_with_a_wrapped_key_is_counted_and_turned_over() {
    let bench = Bench::new(Registry::default()).await;
    let mut connection = PgConnection::connect(&bench.admin_url).await.unwrap();

    let left_out: Vec<String> = sqlx::query_scalar(
        "select a.attrelid::regclass::text
         from pg_attribute as a
         join pg_class as c on c.oid = a.attrelid and c.relkind in ('r', 'p')
         where a.attname = 'wrapped_key'
           and not exists (select 1 from pg_depend as d
                           join pg_rewrite as r on r.oid = d.objid
                           where d.refobjid = c.oid and r.ev_class = 'wrapped_key'::regclass)",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();

    assert_eq!(
        left_out,
        Vec::<String>::new(),
        "the view `wrapped_key` and `Holder` of core/src/secret do not know them"
    );
}

#[test]
fn a_worker_dials_by_the_policy_of_the_workspaces_organization_and_only_the_command_line_sets_it() {
    for (name, text) in rust_files("worker/src") {
        assert!(!text.contains("app.egress"), "{name} dials by the installation's policy");
    }
    for folder in ["api/src", "web/src", "worker/src", "core/src", "deploy/src"] {
        for (name, text) in rust_files(folder) {
            let may = ["core/src/organization/ops.rs", "deploy/src/commands/admin.rs"].contains(&name.as_str());
            assert!(may || !text.contains("set_egress("), "{name} changes where workers dial");
        }
    }
}

#[test]
fn every_test_that_the_table_of_threats_names_is_there() {
    let table = fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let rows = table.lines().filter(|line| line.starts_with('|') && line.matches('|').count() == 4);
    let mut named = 0;
    for row in rows.filter(|row| row.contains('`')) {
        let cells: Vec<_> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let (test, file) = (cells[2], cells[3]);
        let text = fs::read_to_string(root().join(file)).unwrap();
        assert!(text.contains(&format!("fn {test}(")), "SECURITY.md names `{test}` in `{file}`");
        named += 1;
    }
    assert!(named >= 50, "only {named} tests are named");
}
