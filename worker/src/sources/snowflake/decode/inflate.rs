//! Gzip in pieces: memory does not grow with the partition.

use std::io::Write as _;

use flate2::write::MultiGzDecoder;

/// Compressed bytes handed over at a time; at the usual ratio of 4 this is 64 KiB inflated.
const PIECE: usize = 16 * 1024;

/// Inflates a body that comes in pieces, or hands it through when it is not compressed.
pub struct Inflater {
    decoder: Option<MultiGzDecoder<Vec<u8>>>,
}

impl Inflater {
    /// For a body with `Content-Encoding: gzip` (true) or with none.
    #[must_use]
    pub fn new(gzip: bool) -> Self {
        Self { decoder: gzip.then(|| MultiGzDecoder::new(Vec::with_capacity(4 * PIECE))) }
    }

    /// Inflates one piece of the body; `take` gets what comes out, at most some 64 KiB at a time.
    ///
    /// # Errors
    /// What `take` returns, or an I/O error for bytes that are not gzip.
    pub fn feed<E: From<std::io::Error>>(
        &mut self,
        compressed: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(decoder) = &mut self.decoder else { return take(compressed) };
        for piece in compressed.chunks(PIECE) {
            decoder.write_all(piece)?;
            take(decoder.get_ref())?;
            decoder.get_mut().clear();
        }
        Ok(())
    }

    /// Checks that the body is whole, and hands over what is left of it.
    ///
    /// # Errors
    /// As [`Inflater::feed`]; a body that was cut off is an error too.
    pub fn finish<E: From<std::io::Error>>(&mut self, take: impl FnOnce(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let Some(decoder) = &mut self.decoder else { return Ok(()) };
        decoder.try_finish()?;
        take(decoder.get_ref())?;
        decoder.get_mut().clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn inflate(compressed: &[u8], piece: usize) -> std::io::Result<Vec<u8>> {
        let (mut inflater, mut out) = (Inflater::new(true), Vec::new());
        for piece in compressed.chunks(piece) {
            inflater.feed(piece, |bytes| {
                out.extend_from_slice(bytes);
                Ok::<_, std::io::Error>(())
            })?;
        }
        inflater.finish(|bytes| {
            out.extend_from_slice(bytes);
            Ok::<_, std::io::Error>(())
        })?;
        Ok(out)
    }

    #[test]
    fn pieces_of_any_size_give_the_same_bytes() {
        let text: Vec<u8> = (0..200_000u32).flat_map(|n| n.to_string().into_bytes()).collect();
        let compressed = gzip(&text);

        for piece in [1, 7, 4096, compressed.len()] {
            assert_eq!(inflate(&compressed, piece).unwrap(), text);
        }
    }

    #[test]
    fn a_cut_or_damaged_body_is_an_error() {
        let compressed = gzip(&[b'x'; 100_000]);
        let mut damaged = compressed.clone();
        let last = damaged.len() - 5;
        damaged[last] ^= 1;

        assert!(inflate(&compressed[..compressed.len() - 3], 4096).is_err());
        assert!(inflate(&damaged, 4096).is_err());
        assert!(inflate(b"[[\"1\"]]", 4096).is_err());
    }
}
