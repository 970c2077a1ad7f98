//! With every check of rights turned off: what the statements and the database's own policies keep from strangers.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(dead_code, reason = "the modules are those of the other tests")]

#[path = "../it/cast.rs"]
mod cast;
#[path = "../it/client.rs"]
mod client;
#[path = "../it/table.rs"]
mod table;
#[path = "../it/walk.rs"]
mod walk;

#[tokio::test]
async fn without_the_checks_of_rights_a_strangers_ids_still_answer_404() {
    freshet_core::access::unchecked::turn_on();
    let bench = client::bench().await;

    let powerless =
        freshet_core::access::Caller::new(bench.caller.workspace, freshet_core::access::Actor::Command, vec![]);
    assert!(powerless.may(freshet_core::access::Right::RunsRead).is_ok(), "the checks are on");
    walk::walk(&bench).await;
}
