//! Where workers dial for an organization, as it is shown to it.

use freshet_core::audit::{self, AuditFilter};
use freshet_core::organization::ops as organization;
use freshet_core::page::PageRequest;
use freshet_core::settings::Reach;
use serde_json::json;

use crate::client::{bench, call, get};

#[tokio::test]
async fn an_organization_sees_where_workers_dial_for_it_and_cannot_change_it() {
    let bench = bench().await;
    let own = Some((Reach::Public, "10.1.0.0/16"));

    let before = get(&bench, "/v1/organization").await.body["egress"].clone();
    organization::set_egress(&bench.app, bench.caller.organization().unwrap(), own).await.unwrap();
    let after = get(&bench, "/v1/organization").await;
    let patch = json!({"egress": {"reach": "private"}});
    let tried = call(&bench, "PATCH", "/v1/organization", Some(patch), &[("if-match", after.header("etag"))]).await;

    assert_eq!(
        before,
        json!({"is_own": false, "reach": "private", "allow": null}),
        "the installation's list is not shown"
    );
    assert_eq!(after.body["egress"], json!({"is_own": true, "reach": "public", "allow": "10.1.0.0/16"}));
    assert_eq!(after.body["slug"], "acme");
    assert_eq!(tried.status, 400, "{}", tried.body);
    let filter = AuditFilter { action: Some("organization.egress_set".to_owned()), ..AuditFilter::default() };
    let page = PageRequest::new(None, None).unwrap();
    let caller = bench.caller.in_organization().unwrap();
    let lines = audit::ops::list_in_organization(&bench.app, &caller, &filter, page).await.unwrap().data;
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].changes, json!({"reach": "public", "allow": "10.1.0.0/16"}));
    let (_, theirs) = freshet_core::testing::workspace(&bench.app, "other").await;
    let other = call(&bench, "GET", "/v1/organization", None, &[("authorization", &format!("Bearer {theirs}"))]).await;
    assert_eq!(other.body["egress"]["is_own"], false);
}
