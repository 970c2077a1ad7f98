//! What a sync of Snowflake must do, wherever Snowflake is: the gate asks it of the emulator, `deploy/test --live` of an
//! account from the environment.
//!
//! Names, types and statements are Snowflake's own. Each fact has a schema of its own, for its tables and for Freshet's.

pub mod account;
mod edges;
mod large;
pub mod runs;

pub use account::Account;
pub use edges::{edges_of_every_type_in_a_thousand_columns, names_that_are_keywords_and_names_with_quotes_and_dots};
pub use large::a_text_of_sixteen_million_bytes;
pub use runs::{a_stream_replays_to_its_table, incremental_runs_send_what_is_new};

/// Each fact as a test. `$open` gives what keeps the account going, and the account; a schema whose test failed stays.
macro_rules! facts {
    ($open:path) => {
        crate::snowflake::facts!(
            $open:
            a_stream_replays_to_its_table,
            a_text_of_sixteen_million_bytes,
            edges_of_every_type_in_a_thousand_columns,
            incremental_runs_send_what_is_new,
            names_that_are_keywords_and_names_with_quotes_and_dots
        );
    };
    ($open:path: $($fact:ident),+) => {$(
        #[tokio::test]
        async fn $fact() {
            let (_host, account) = $open().await;
            crate::snowflake::$fact(&account).await;
            account.close().await;
        }
    )+};
}
pub(crate) use facts;
