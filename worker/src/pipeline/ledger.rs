//! What an attempt writes down: in Postgres; in the model test, in memory.

use async_trait::async_trait;
use freshet_core::app::App;
use freshet_core::connector::{Progress, Sealed, SourceQuery};
use freshet_core::error::Result;
use freshet_core::id::SyncId;
use freshet_core::run::work::{self, Delivered};
use freshet_core::run::{Claim, Counts, RunState};
use serde_json::Value;

/// One claim's view of the ledger: each write fails with `platform.lease_lost` once another worker has the run.
#[async_trait]
pub(super) trait Ledger: Send + Sync {
    /// Moves the run on and says so in its timeline.
    async fn moved(&self, state: RunState, message: &str, data: Value) -> Result<()>;

    /// Whether the claim still holds; asked before and after a lane is fenced.
    async fn check(&self) -> Result<()>;

    /// Keeps a sealed batch: planned, before anything of it is sent.
    async fn sealed(&self, batch_seq: i64, sealed: &Sealed, base: &Counts) -> Result<()>;

    /// Takes over a batch that an earlier run left; `base` lacks what was counted of it so far.
    async fn adopted(&self, batch_seq: i64, base: &Counts) -> Result<()>;

    /// Takes Kafka's position over, and raises claims above the one that wrote it.
    async fn kafka_adopted(&self, progress: &Progress) -> Result<()>;

    /// Keeps the lane's place and cluster, once known.
    async fn placed(&self, cluster_id: &str, partition: i32) -> Result<()>;

    /// Writes down what Kafka has committed.
    async fn delivered(&self, counts: &Counts, delivered: &Delivered) -> Result<()>;

    /// Keeps what the source was asked.
    async fn asked(&self, queries: &[SourceQuery]) -> Result<()>;

    /// The batch is delivered and nothing of it is left at the source; `counts` are the run's with it.
    async fn released(&self, batch_seq: i64, counts: &Counts) -> Result<()>;
}

/// The ledger of one claim.
pub(super) struct Postgres<'a> {
    pub(super) app: &'a App,
    pub(super) claim: &'a Claim,
    pub(super) sync_id: SyncId,
}

#[async_trait]
impl Ledger for Postgres<'_> {
    async fn moved(&self, state: RunState, message: &str, data: Value) -> Result<()> {
        work::moved(self.app, self.claim, state, message, data).await
    }

    async fn check(&self) -> Result<()> {
        work::check(self.app, self.claim).await
    }

    async fn sealed(&self, batch_seq: i64, sealed: &Sealed, base: &Counts) -> Result<()> {
        work::sealed(self.app, self.claim, self.sync_id, batch_seq, sealed, base).await
    }

    async fn adopted(&self, batch_seq: i64, base: &Counts) -> Result<()> {
        work::adopted(self.app, self.claim, batch_seq, base).await
    }

    async fn kafka_adopted(&self, progress: &Progress) -> Result<()> {
        work::kafka_adopted(self.app, self.claim, self.sync_id, progress).await
    }

    async fn placed(&self, cluster_id: &str, partition: i32) -> Result<()> {
        work::placed(self.app, self.claim, self.sync_id, cluster_id, partition).await
    }

    async fn delivered(&self, counts: &Counts, delivered: &Delivered) -> Result<()> {
        work::delivered(self.app, self.claim, self.sync_id, counts, delivered).await
    }

    async fn asked(&self, queries: &[SourceQuery]) -> Result<()> {
        work::asked(self.app, self.claim, queries).await
    }

    async fn released(&self, batch_seq: i64, counts: &Counts) -> Result<()> {
        work::released(self.app, self.claim, self.sync_id, batch_seq, counts).await
    }
}
