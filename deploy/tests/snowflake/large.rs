//! The largest text there is, beside what a topic takes.

use std::collections::BTreeMap;

use freshet_core::error::Code;
use freshet_core::run::RunState;
use freshet_core::testing::surroundings;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use serde_json::json;

use super::Account;
use crate::shop::{Seen, committed};

/// A VARCHAR's default length; each of these letters is one byte.
const LETTERS: usize = 16_777_216;

async fn make_topic(name: &str, bytes_max: usize) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", surroundings("FRESHET_TEST_KAFKA")).create().unwrap();
    let size = bytes_max.to_string();
    let topic = NewTopic::new(name, 3, TopicReplication::Fixed(-1)).set("max.message.bytes", &size);
    for made in admin.create_topics(&[topic], &AdminOptions::new()).await.unwrap() {
        made.unwrap();
    }
}

/// How long the text of each record is, by id.
fn lengths(seen: &[Seen]) -> BTreeMap<i64, usize> {
    let length = |record: &Seen| {
        let row = &record.value["after"];
        let text = row["text"].as_str().unwrap();
        assert!(text.bytes().all(|byte| byte == b'x'));
        (row["id"].as_i64().unwrap(), text.len())
    };
    seen.iter().map(length).collect()
}

/// A topic that does not take a row gets a named error or a dead letter, and every other row; a topic that does, all.
pub async fn a_text_of_sixteen_million_bytes(account: &Account) {
    let texts = account.table("texts");
    account.sql(&format!("create table {texts} (\"id\" number(9,0), \"text\" varchar)")).await;
    account
        .sql(&format!(
            "insert into {texts} select 1, 'x' union all select 2, repeat('x', {LETTERS}) union all select 3, 'xxx'"
        ))
        .await;
    let full = || account.model("texts");

    let strict = account.sync_of(full(), &["id"], json!({"mode": {"kind": "full"}})).await;
    let worker = strict.worker();
    let failed = strict.ended(strict.run().await).await;
    drop(worker);
    let failure = failed.failure.unwrap();
    assert_eq!((failed.state, failure.code.as_str()), (RunState::Failed, Code::KafkaMessageTooLarge.as_str()));
    assert!(failure.message.contains("row 2 of the batch"), "{}", failure.message);
    assert!(strict.committed().is_empty(), "a chunk with a row that cannot go out is not sent in parts");

    let tolerant = json!({"mode": {"kind": "full"}, "error_tolerance": {"kind": "count", "max": 1}});
    let tolerant = account.sync_of(full(), &["id"], tolerant).await;
    let worker = tolerant.worker();
    let buried = tolerant.ended(tolerant.run().await).await;
    drop(worker);
    assert_eq!((buried.state, buried.counts.dead), (RunState::SucceededWithErrors, 1), "{:?}", buried.failure);
    assert_eq!(lengths(&tolerant.committed()), BTreeMap::from([(1, 1), (3, 3)]));
    let dead = committed(&format!("{}.dlq", tolerant.topic));
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].headers["__connect.errors.exception.class.name"], Code::KafkaMessageTooLarge.as_str());
    let left_out: usize = dead[0].headers["freshet-row-left-out-bytes"].parse().unwrap();
    assert!(left_out > LETTERS && dead[0].text().is_empty(), "{left_out}");

    // A row without its key is dead too, and larger than the dead letters' topic takes.
    account.sql(&format!("insert into {texts} select null, repeat('x', {LETTERS})")).await;
    let roomy = json!({"mode": {"kind": "full"}, "error_tolerance": {"kind": "count", "max": 1}});
    let roomy = account.sync_of(full(), &["id"], roomy).await;
    make_topic(&roomy.topic, 2 * LETTERS).await;
    let _worker = roomy.worker();
    let whole = roomy.ended(roomy.run().await).await;
    assert_eq!((whole.state, whole.counts.dead), (RunState::SucceededWithErrors, 1), "{:?}", whole.failure);
    assert_eq!(lengths(&roomy.committed()), BTreeMap::from([(1, 1), (2, LETTERS), (3, 3)]));
    let dead = committed(&format!("{}.dlq", roomy.topic));
    assert_eq!(dead[0].headers["__connect.errors.exception.class.name"], Code::ModelKeyNull.as_str());
    assert!(dead[0].text().is_empty());
}
