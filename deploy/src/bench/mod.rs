//! Figures, each beside a peer or a limit that is measured in the same run on the same machine.

mod api;
mod bare;
mod field;
mod grounds;
mod meter;
mod postgres_kafka;
mod snowflake_kafka;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Postgres to Kafka: Freshet beside a bare librdkafka producer and exporters written in Python
    PostgresKafka(field::Options),
    /// Snowflake to Kafka: Freshet beside a bare librdkafka producer and an exporter written in Python
    SnowflakeKafka(field::Options),
    /// The API's answers, with a long history and a sync running
    Api(api::Options),
    /// One of the cases: sends records of a topic again, as fast as librdkafka takes them
    #[command(hide = true)]
    BareProducer(bare::Options),
}

impl Bench {
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::PostgresKafka(options) => postgres_kafka::run(options).await,
            Self::SnowflakeKafka(options) => snowflake_kafka::run(options).await,
            Self::Api(options) => api::run(options).await,
            Self::BareProducer(options) => bare::run(&options),
        }
    }
}
