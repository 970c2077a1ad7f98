//! Whether the process lives, and whether it is ready.

use serde_json::json;
use sqlx::{Connection, PgConnection};

use crate::client::{bench, call};

#[tokio::test]
async fn healthz_asks_nobody_and_readyz_asks_the_database() {
    let bench = bench().await;
    let ready = call(&bench, "GET", "/readyz", None, &[]).await;
    assert_eq!((ready.status, &ready.body), (200, &json!({"database": "ok"})));

    bench.app.db.close().await;

    let (alive, away) =
        (call(&bench, "GET", "/healthz", None, &[]).await, call(&bench, "GET", "/readyz", None, &[]).await);
    assert_eq!(alive.status, 204);
    assert_eq!((away.status, away.code()), (503, "platform.database"));
}

#[tokio::test]
async fn readyz_fails_while_the_schema_is_older_than_the_program_and_not_while_it_is_newer() {
    let bench = bench().await;
    let mut admin = PgConnection::connect(&bench.admin_url).await.unwrap();
    let newer = "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
                 select max(version) + 1, 'of a later release', true, '', 0 from _sqlx_migrations";
    sqlx::raw_sql(newer).execute(&mut admin).await.unwrap();
    assert_eq!(call(&bench, "GET", "/readyz", None, &[]).await.status, 200);

    let older = "delete from _sqlx_migrations where version > 30";
    sqlx::raw_sql(older).execute(&mut admin).await.unwrap();

    let late = call(&bench, "GET", "/readyz", None, &[]).await;
    assert_eq!((late.status, late.code()), (503, "platform.database"));
    assert!(late.body["detail"].as_str().unwrap().contains("freshet migrate"), "{}", late.body);
    assert_eq!(call(&bench, "GET", "/healthz", None, &[]).await.status, 204);
}
