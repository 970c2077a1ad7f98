//! The key's text: drawing it, taking it apart, its checksum.

use rand::Rng;
use sha2::{Digest, Sha256};

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const PREFIX: &str = "fr_live_";
const ID_LENGTH: usize = 8;
/// 43 characters of 62 hold 256 bits.
const SECRET_LENGTH: usize = 43;
const CHECKSUM_LENGTH: usize = 6;

/// A key's text taken apart.
pub(super) struct KeyText {
    pub(super) key_id: String,
    pub(super) hash: [u8; 32],
}

/// Draws a key's text.
pub(super) fn draw() -> String {
    let body = format!("{PREFIX}{}_{}", letters(ID_LENGTH), letters(SECRET_LENGTH));
    format!("{body}_{}", checksum(&body))
}

/// Takes a text apart; none for one that is no key, a typo included.
pub(super) fn parse(text: &str) -> Option<KeyText> {
    let (body, sum) = text.rsplit_once('_')?;
    let (key_id, secret) = body.strip_prefix(PREFIX)?.split_once('_')?;
    let whole = key_id.len() == ID_LENGTH && secret.len() == SECRET_LENGTH && sum == checksum(body);
    whole.then(|| KeyText { key_id: key_id.to_owned(), hash: Sha256::digest(text.as_bytes()).into() })
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
        let text = draw();
        let typo = text.replacen("fr_live_", "fr_live_x", 1);

        assert_eq!(parse(&text).unwrap().key_id, text[8..16]);
        assert!(parse(&typo).is_none());
        assert!(parse(&text[..text.len() - 1]).is_none());
        assert!(parse("").is_none());
    }
}
