//! The text of keys and of words that are good once: drawing, taking apart, checksum, hash.
//!
//! ~~~text
//! fr_live_a1b2c3d4_Zk…43 characters…9Q_0aZ9x1
//!         key id   secret, 256 bits     checksum: a typo is refused without asking the database
//! ~~~

use rand::Rng;
use sha2::{Digest, Sha256};

use crate::settings::Secret;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Of a service account's key.
pub(crate) const API_KEY: &str = "fr_live_";
/// Of a person's token.
pub(crate) const PERSONAL_TOKEN: &str = "fr_user_";
const ID_LENGTH: usize = 8;
/// 43 characters of 62 hold 256 bits.
const SECRET_LENGTH: usize = 43;
const CHECKSUM_LENGTH: usize = 6;

/// A key's text taken apart.
pub(crate) struct KeyText {
    pub(crate) key_id: String,
    pub(crate) hash: [u8; 32],
}

/// Draws a key's text.
pub(crate) fn draw(prefix: &str) -> String {
    let body = format!("{prefix}{}_{}", letters(ID_LENGTH), letters(SECRET_LENGTH));
    format!("{body}_{}", checksum(&body))
}

/// Takes a text apart; none for one that is no key, a typo included.
pub(crate) fn parse(prefix: &str, text: &str) -> Option<KeyText> {
    let (body, sum) = text.rsplit_once('_')?;
    let (key_id, secret) = body.strip_prefix(prefix)?.split_once('_')?;
    let whole = key_id.len() == ID_LENGTH && secret.len() == SECRET_LENGTH && sum == checksum(body);
    whole.then(|| KeyText { key_id: key_id.to_owned(), hash: Sha256::digest(text.as_bytes()).into() })
}

/// Draws a word of 256 bits: a session's, an invitation's, a mail's.
pub(crate) fn draw_word() -> Secret {
    letters(SECRET_LENGTH).parse().unwrap_or_default()
}

/// What is stored of a word. Fast on purpose: it has 256 bits of its own.
pub(crate) fn hash(word: &str) -> [u8; 32] {
    Sha256::digest(word.as_bytes()).into()
}

fn letters(count: usize) -> String {
    let mut rng = rand::rng();
    (0..count).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect()
}

fn checksum(body: &str) -> String {
    let digest = Sha256::digest(body.as_bytes());
    digest[..CHECKSUM_LENGTH].iter().map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_and_a_typo_does_not() {
        let text = draw(API_KEY);
        let typo = text.replacen("fr_live_", "fr_live_x", 1);

        assert_eq!(parse(API_KEY, &text).unwrap().key_id, text[8..16]);
        assert!(parse(API_KEY, &typo).is_none());
        assert!(parse(API_KEY, &text[..text.len() - 1]).is_none());
        assert!(parse(API_KEY, "").is_none());
        assert!(parse(PERSONAL_TOKEN, &text).is_none());
    }
}
