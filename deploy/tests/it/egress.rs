//! An organization's own egress policy, from the command line to what a worker dials.

use freshet_core::endpoint::{Connection, Destination, ops as endpoint};
use freshet_core::operation::Question;
use freshet_core::page::PageRequest;
use freshet_core::run::RunState;
use serde_json::{Value, json};

use crate::shop::{Shop, make_orders, orders};
use crate::snowflake::account::answered;

fn egress(shop: &Shop, arguments: &[&str]) -> Value {
    let done = shop.freshet(&["organization", "egress", "acme"]).args(arguments).output().unwrap();
    let (told, failed) = [done.stdout, done.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).into();
    if done.status.success() { serde_json::from_str(&told).unwrap() } else { Value::String(failed) }
}

#[tokio::test]
async fn what_an_organization_may_dial_is_set_by_the_command_line_and_kept_by_every_opening() {
    let shop = Shop::new(&make_orders(10), orders(), &[], json!({})).await;
    let (app, caller) = (&shop.bench.app, &shop.bench.caller);
    let page = PageRequest::new(None, None).unwrap();
    let connection = endpoint::list::<Connection>(app, caller, page).await.unwrap().data[0].id;
    let destination = endpoint::list::<Destination>(app, caller, page).await.unwrap().data[0].id;
    let of_installation = json!({"is_own": false, "reach": "private", "allow": null});
    assert_eq!(egress(&shop, &[]), of_installation);
    let _worker = shop.worker();
    shop.run_to_the_end().await;

    let set = egress(&shop, &["--reach", "public", "--allow", "10.1.0.0/16"]);
    let run = shop.run().await;
    let failed = shop.ended(run).await;

    assert_eq!(set, json!({"is_own": true, "reach": "public", "allow": "10.1.0.0/16"}));
    assert_eq!(failed.state, RunState::Failed);
    assert_eq!(failed.failure.unwrap().code, "platform.egress_blocked");
    for question in [Question::TestConnection { connection }, Question::TestDestination { destination }] {
        let tested = answered(&shop, question).await.unwrap();
        assert_eq!(tested["steps"][0]["code"], "platform.egress_blocked", "{tested}");
        assert_eq!(tested["egress"], set);
    }
    for question in [Question::CheckSync { sync: shop.sync }, Question::PlanRun { sync: shop.sync }] {
        let refused = answered(&shop, question).await.unwrap_err();
        assert_eq!(refused.code, "platform.egress_blocked", "{refused:?}");
    }

    assert!(egress(&shop, &["--reach", "public", "--allow", "inner"]).as_str().unwrap().contains("`inner` is neither"));
    assert_eq!(egress(&shop, &[]), set, "what does not read changes nothing");
    assert_eq!(egress(&shop, &["--reset"]), of_installation);
    shop.run_to_the_end().await;
    let tested = answered(&shop, Question::TestConnection { connection }).await.unwrap();
    assert_eq!((&tested["ok"], &tested["egress"]), (&json!(true), &of_installation));
}

#[tokio::test]
async fn an_organizations_list_of_everything_does_not_open_the_machine_of_freshets_database() {
    let mut shop = Shop::new(&make_orders(10), orders(), &[], json!({})).await;
    let allow = shop.environment.iter_mut().find(|(name, _)| name == "FRESHET_EGRESS_ALLOW").unwrap();
    allow.1 = String::new();
    egress(&shop, &["--reach", "private", "--allow", "0.0.0.0/0,::/0"]);
    let _worker = shop.worker();

    let run = shop.run().await;
    let failed = shop.ended(run).await;

    assert_eq!((failed.state, failed.failure.unwrap().code.as_str()), (RunState::Failed, "platform.egress_blocked"));
}
