//! The syncs of Snowflake with a real account, which the environment names: `deploy/test --live`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../it/shop.rs"]
#[expect(dead_code, reason = "what Postgres needs is not used here")]
mod shop;
#[path = "../snowflake/mod.rs"]
mod snowflake;

use freshet_core::testing::surroundings;
use serde_json::{Value, json};

use snowflake::Account;

/// What an account may have or not.
fn option(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "the tests' surroundings are no settings of the service")]
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The settings of a connection to the account.
fn settings() -> Value {
    let sign_in = match option("FRESHET_TEST_LIVE_TOKEN") {
        Some(token) => json!({"kind": "access_token", "token": token}),
        None => {
            let key = std::fs::read_to_string(surroundings("FRESHET_TEST_LIVE_PRIVATE_KEY_FILE")).unwrap();
            let mut sign_in = json!({"kind": "key_pair", "private_key": key});
            if let Some(passphrase) = option("FRESHET_TEST_LIVE_PASSPHRASE") {
                sign_in["passphrase"] = passphrase.into();
            }
            sign_in
        }
    };
    let mut settings = json!({ "sign_in": sign_in, "late_commit_s": 0 });
    for name in ["account", "user", "database", "warehouse"] {
        settings[name] = surroundings(&format!("FRESHET_TEST_LIVE_{}", name.to_uppercase())).into();
    }
    for name in ["role", "host"] {
        if let Some(value) = option(&format!("FRESHET_TEST_LIVE_{}", name.to_uppercase())) {
            settings[name] = value.into();
        }
    }
    settings
}

async fn account() -> ((), Account) {
    ((), Account::open(settings(), &option("FRESHET_SNOWFLAKE_HOSTS").unwrap_or_default()).await)
}

snowflake::facts!(account);
