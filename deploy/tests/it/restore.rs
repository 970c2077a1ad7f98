//! Freshet's own database is restored from a back-up: the halt is named, adopting Kafka's position goes on without loss
//! or repeats.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use freshet_core::endpoint::{Connection, Destination, ops as endpoint};
use freshet_core::error::Code;
use freshet_core::id::{RequestId, RunId};
use freshet_core::page::PageRequest;
use freshet_core::run::{self, RunState};
use freshet_core::sync;
use freshet_core::vault::Vault;
use serde_json::json;
use sqlx::{Connection as _, PgConnection};

use crate::diff;
use crate::shop::{Shop, each_once, make_orders, orders, run_sql, until};
use crate::snowflake::runs::replayed;
use crate::snowflake_runs::Emulator;

/// A `pg_dump` of Freshet's database.
struct BackUp(std::path::PathBuf);

impl Drop for BackUp {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn command(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

impl BackUp {
    fn take(shop: &Shop) -> Self {
        let path = std::env::temp_dir().join(format!("freshet-{}.dump", RequestId::new()));
        command("pg_dump", &["--format=custom", "--file", path.to_str().unwrap(), &shop.bench.admin_url]);
        Self(path)
    }

    /// Takes it in the middle of a run.
    async fn take_within_run(shop: &Shop) -> (Self, RunId) {
        let (run, _held) = shop.run_held().await;
        (Self::take(shop), run)
    }

    /// Puts it in the place of the database, which is lost.
    async fn restore(&self, shop: &Shop) {
        self.restore_for(shop, "freshet_owner", &[]).await;
    }

    /// The same, into a database of another owner.
    async fn restore_for(&self, shop: &Shop, owner: &str, options: &[&str]) {
        let (server, name) = shop.bench.admin_url.rsplit_once('/').unwrap();
        for statement in [format!("drop database {name} with (force)"), format!("create database {name} owner {owner}")]
        {
            run_sql(&format!("{server}/postgres"), &statement).await;
        }
        let rest = ["--exit-on-error", "--dbname", &shop.bench.admin_url, self.0.to_str().unwrap()];
        command("pg_restore", &[options, rest.as_slice()].concat());
    }
}

/// Expects the halt by its name, that nothing went out meanwhile, and that a person is told what to do; then adopts.
async fn halts_and_adopts(shop: &Shop, run: RunId) {
    let before = shop.committed().len();
    let failure = shop.ended(run).await.failure.expect("the run halts");
    assert_eq!(failure.code, "kafka.ledger_behind", "{}", failure.message);
    assert!(failure.action.unwrap().contains("adopt-position"));
    let again = shop.run().await;
    assert_eq!(shop.ended(again).await.failure.expect("it halts again").code, "kafka.ledger_behind");
    assert_eq!(shop.committed().len(), before);

    let (app, caller) = (&shop.bench.app, &shop.bench.caller);
    sync::ops::adopt_position(app, caller, shop.sync).await.unwrap();
    let adopted = shop.run().await;
    let ended = shop.ended(adopted).await;
    assert_eq!(ended.state, RunState::Succeeded, "{:?}", ended.failure);
    let told = run::ops::events(app, caller, adopted, 0).await.unwrap();
    assert!(told.iter().any(|event| event.code == "position.adopted"), "{told:?}");
    // There is nothing to adopt any more.
    let refused = sync::ops::adopt_position(app, caller, shop.sync).await.unwrap_err();
    assert_eq!(refused.code, Code::WrongState);
}

/// Lets the sync run, is backed up within the second run, goes on for a third, is restored.
async fn lost_since_the_second_run(
    shop: &Shop,
    mut change: impl FnMut(i64) -> String,
    mut at: impl AsyncFnMut(String),
) {
    let worker = shop.worker();
    shop.run_to_the_end().await;
    at(change(1)).await;
    let (back_up, second) = BackUp::take_within_run(shop).await;
    assert!(shop.ended(second).await.failure.is_none());
    at(change(2)).await;
    assert!(shop.run_to_the_end().await.counts.published > 0, "the back-up knows of all that is on the topic");
    at(change(3)).await;
    worker.stop();

    back_up.restore(shop).await;
    assert!(!shop.found(second).await.state.is_final(), "the back-up is of no run under way");
    let _worker = shop.worker();
    halts_and_adopts(shop, second).await;
    at(change(4)).await;
    shop.run_to_the_end().await;
    assert_eq!(shop.run_to_the_end().await.outcome.as_deref(), Some("no_changes"));
}

/// The number stands in a record of the tenant's own cluster, and the sequence is everybody's.
#[tokio::test]
async fn a_claim_that_cannot_have_been_ends_nobodys_claims() {
    let shop = Shop::new(&make_orders(1), orders(), &[], json!({})).await;
    let mut admin = PgConnection::connect(&shop.bench.admin_url).await.unwrap();
    let mut raised = async |above: i64| -> Option<i64> {
        sqlx::query_scalar("select raise_epoch($1)").bind(above).fetch_one(&mut admin).await.unwrap()
    };

    let believed = raised(5_000_000).await.unwrap();
    let forged = raised(i64::MAX).await;
    let far = raised(believed + (1 << 40) + 10).await;
    let next = raised(0).await.unwrap();

    assert_eq!((forged, far), (None, None));
    assert!(believed > 5_000_000 && (believed..believed + 10).contains(&next), "{believed}, then {next}");
    let _worker = shop.worker();
    shop.run_to_the_end().await;
}

#[tokio::test]
async fn an_incremental_sync_goes_on_after_a_restore_with_each_row_once() {
    let config = json!({"mode": {"kind": "incremental", "cursor": "id"}});
    let shop = Shop::new(&make_orders(500), orders(), &[], config).await;
    let change = |round: i64| {
        let rows = if round == 1 { 60_000 } else { 700 };
        format!("insert into orders select n from generate_series({0} + 1, {0} + {rows}) as n", round * 100_000)
    };

    lost_since_the_second_run(&shop, change, async |sql: String| shop.sql(&sql).await).await;

    let later = (2..=4).flat_map(|round| round * 100_000 + 1..=round * 100_000 + 700);
    each_once(&shop.committed(), (1..=500).chain(100_001..=160_000).chain(later));
}

async fn diff_of(rows: i64) -> Shop {
    let sql = format!(
        "create schema freshet; create table orders (id bigint primary key, name text);
         insert into orders select n, 'order ' || n from generate_series(1, {rows}) as n"
    );
    Shop::new(&sql, orders(), &[], json!({"mode": {"kind": "diff"}})).await
}

#[tokio::test]
async fn a_diff_goes_on_after_a_restore_and_replays_to_the_table() {
    let shop = diff_of(60_000).await;
    let change = |round: i64| {
        let part = if round == 1 { 1 } else { 50 };
        format!(
            "update orders set name = 'round {round}' where id % {part} = 0; delete from orders where id % 97 = {round};
             insert into orders select n from generate_series({round}00001, {round}00100) as n"
        )
    };

    lost_since_the_second_run(&shop, change, async |sql: String| shop.sql(&sql).await).await;

    assert!(diff::replayed(&shop) == diff::table(&shop).await, "the topic tells another table");
}

#[tokio::test]
async fn a_diff_backed_up_between_runs_is_halted_before_it_takes_a_snapshot() {
    for runs_lost in 1..=2 {
        let shop = diff_of(500).await;
        let worker = shop.worker();
        shop.run_to_the_end().await;
        let back_up = BackUp::take(&shop);
        for round in 1..=runs_lost {
            shop.sql(&format!("update orders set name = 'lost {round}' where id % 3 = {round}")).await;
            shop.run_to_the_end().await;
        }
        shop.sql("delete from orders where id % 7 = 0").await;
        worker.stop();

        back_up.restore(&shop).await;
        let _worker = shop.worker();
        let first = shop.run().await;
        halts_and_adopts(&shop, first).await;
        shop.sql("update orders set name = 'after' where id % 5 = 0").await;
        shop.run_to_the_end().await;

        assert!(diff::replayed(&shop) == diff::table(&shop).await, "the topic tells another table");
    }
}

#[tokio::test]
async fn a_stream_goes_on_after_a_restore_and_replays_to_the_table() {
    let emulator = Emulator::start().await;
    let mut shop = emulator.stream_sync().await;
    shop.environment.push(("FRESHET_CHUNK_ROWS_MAX".into(), "100".into()));
    emulator.add_orders(1..=100);
    let change = |round: i64| {
        if round == 1 {
            (1..=9).for_each(|part| emulator.add_orders(part * 1_000..=part * 1_000 + 999));
        }
        emulator.add_orders(round * 10_000..=round * 10_000 + 50);
        format!(
            "update \"orders\" set \"name\" = 'round {round}' where \"id\" % 3 = 0;
             delete from \"orders\" where \"id\" % 17 = {round}"
        )
    };

    lost_since_the_second_run(&shop, change, async |sql: String| {
        emulator.sql(&sql);
    })
    .await;

    assert_eq!(replayed(&shop.committed()), emulator.orders());
}

/// What `freshet doctor` says with the environment of the shop's workers, and whether it passed.
fn doctor(shop: &Shop) -> (bool, String) {
    let output = shop.freshet(&["doctor"]).env("FRESHET_API_LISTEN", "127.0.0.1:0").output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

fn set(shop: &mut Shop, name: &str, value: String) {
    shop.environment.retain(|(known, _)| known != name);
    shop.environment.push((name.into(), value));
}

/// The block of `deploy/README.md` that begins with this line, as it stands there.
fn block_of_readme(first: &str) -> &'static str {
    let readme = include_str!("../../README.md");
    let from = readme.find(first).unwrap_or_else(|| panic!("deploy/README.md has no line `{first}`"));
    let block = &readme[from..];
    &block[..block.find("```").unwrap()]
}

#[tokio::test]
async fn the_commands_of_the_readme_back_up_and_restore() {
    let shop = Shop::new(&make_orders(50), orders(), &[], json!({})).await;
    let worker = shop.worker();
    let before = shop.run_to_the_end().await;
    worker.stop();
    let folder = std::env::temp_dir().join(format!("freshet-{}", RequestId::new()));
    std::fs::create_dir(&folder).unwrap();
    let (server, name) = shop.bench.admin_url.rsplit_once('/').unwrap();
    let restored = format!("test_{}", RequestId::new());
    let run = |script: &str| {
        // The database and its owner are the test's own; the rest is to the letter.
        let script = script.replace("freshet_owner freshet\n", &format!("freshet_owner {restored}\n"));
        let mut command = Command::new("bash");
        command.args(["-euc", &script]).current_dir(&folder).envs(shop.environment.iter().cloned());
        command.env_remove("FRESHET_OWNER_DATABASE_URL").env("FRESHET_API_LISTEN", "127.0.0.1:0");
        let address = url::Url::parse(server).unwrap();
        command.envs([
            ("PGHOST", address.host_str().unwrap()),
            ("PGPORT", &address.port().unwrap().to_string()),
            ("PGUSER", address.username()),
            ("PGPASSWORD", address.password().unwrap_or_default()),
            ("SUPERUSER_URL_OF_THE_DATABASE", &shop.bench.admin_url),
            ("SUPERUSER_URL_OF_THAT_DATABASE", &format!("{server}/{restored}")),
        ]);
        let app = &shop.bench.app.settings.database_url;
        command.env("FRESHET_DATABASE_URL", app.expose().replace(name, &restored));
        let binary = std::path::Path::new(env!("CARGO_BIN_EXE_freshet")).parent().unwrap();
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{}", binary.display(), path.to_str().unwrap()));
        let output = command.output().unwrap();
        let told = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&told));
    };

    run(block_of_readme("umask 077"));
    run(block_of_readme("createdb --owner"));

    for file in ["freshet.dump", "freshet.keys"] {
        let mode = std::fs::metadata(folder.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "others may read {file}");
    }
    let keys = std::fs::read_to_string(folder.join("freshet.keys")).unwrap();
    assert_eq!(keys, shop.bench.app.settings.master_keys.expose());
    std::fs::remove_dir_all(&folder).unwrap();
    let url = format!("{server}/{restored}");
    let counted = "do $$ begin if (select count(*) from run where state = 'succeeded') <> 1 then
                       raise exception 'the run is not there'; end if; end $$";
    run_sql(&url, counted).await;
    assert_eq!(before.counts.published, 50);
}

#[tokio::test]
async fn without_its_master_keys_a_restored_installation_says_what_to_do_and_goes_on_once_it_is_done() {
    let mut shop = Shop::new(&make_orders(50), orders(), &[], json!({})).await;
    let worker = shop.worker();
    shop.run_to_the_end().await;
    let back_up = BackUp::take(&shop);
    worker.stop();
    back_up.restore(&shop).await;
    // The keys were not backed up: another one is all there is.
    let other = format!("anew={}", Vault::draw_master_key());
    set(&mut shop, "FRESHET_MASTER_KEYS", other.clone());

    let (passed, told) = doctor(&shop);
    let _worker = shop.worker();
    let run = shop.run().await;
    let failure = until("the attempt has failed", async || shop.found(run).await.failure).await;

    assert!(!passed && told.contains("1 secrets are sealed by keys that are not given: `test`"), "{told}");
    assert_eq!(failure.code, "platform.vault");
    assert!(failure.message.contains("`test`") && failure.action.unwrap().contains("entered again"));

    // Entered again, by a process that has the new key.
    let settings = freshet_core::settings::Settings::with(&[("master_keys", &other)]).unwrap();
    shop.bench.app.vault = std::sync::Arc::new(Vault::from_settings(&settings).unwrap());
    let (app, caller) = (&shop.bench.app, &shop.bench.caller);
    let page = PageRequest::new(None, None).unwrap();
    let connection = endpoint::list::<Connection>(app, caller, page).await.unwrap().data.remove(0);
    assert!(endpoint::list::<Destination>(app, caller, page).await.unwrap().data[0].secrets.is_empty());
    let password = json!({"password": "postgres"});
    let version = connection.row_version;
    endpoint::update::<Connection>(app, caller, connection.id, version, None, password).await.unwrap();
    assert_eq!(shop.ended(run).await.state, RunState::Succeeded);
    let (passed, told) = doctor(&shop);
    assert!(passed, "{told}");
}

#[tokio::test]
async fn a_dump_restored_under_other_roles_works_once_the_policies_know_the_owner() {
    let mut shop = Shop::new(&make_orders(50), orders(), &[], json!({})).await;
    let worker = shop.worker();
    shop.run_to_the_end().await;
    let back_up = BackUp::take(&shop);
    worker.stop();
    let (owner, login) = ("other_owner", format!("login_{}", RequestId::new()));
    let admin = shop.bench.admin_url.clone();
    let (server, name) = admin.rsplit_once('/').unwrap();
    let roles = format!(
        "do $$ begin create role {owner}; exception when duplicate_object or unique_violation then null; end $$;
         create role {login} login password 'secret' in role freshet_app"
    );
    run_sql(&format!("{server}/postgres"), &roles).await;
    let app = url::Url::parse(server).unwrap();
    let app = format!("postgres://{login}:secret@{}:{}/{name}", app.host_str().unwrap(), app.port().unwrap());

    back_up.restore_for(&shop, owner, &["--no-owner", "--role", owner]).await;
    set(&mut shop, "FRESHET_DATABASE_URL", app);
    let (passed, told) = doctor(&shop);
    assert!(!passed && told.contains("the tables belong to `other_owner`, whom their policies do not know"), "{told}");

    let mended = block_of_readme("do $$\ndeclare");
    run_sql(&shop.bench.admin_url, mended).await;
    let (passed, told) = doctor(&shop);
    let worker = shop.worker();

    assert!(passed, "{told}");
    assert_eq!(shop.run_to_the_end().await.counts.published, 50);
    worker.stop();
    for statement in [format!("drop database {name} with (force)"), format!("drop role {login}")] {
        run_sql(&format!("{server}/postgres"), &statement).await;
    }
}
