//! Gzip in pieces: memory does not grow with the partition.

use std::io::Write as _;

use flate2::write::MultiGzDecoder;

/// Compressed bytes handed over at a time; at the usual ratio of 4 this is 64 KiB inflated.
const PIECE: usize = 16 * 1024;

/// How many times its size a body may inflate to, once it is past [`UNJUDGED`]: a thousand empty columns come to 500, but
/// no partition of rows is so large and so empty.
const RATIO_MAX: u64 = 200;
/// Inflated bytes up to which no ratio is too high.
const UNJUDGED: u64 = 256 * 1024 * 1024;

/// Inflates a body that comes in pieces, or hands it through when it is not compressed.
pub struct Inflater {
    decoder: Option<MultiGzDecoder<Vec<u8>>>,
    taken: u64,
    given: u64,
    unjudged: u64,
}

impl Inflater {
    /// For a body with `Content-Encoding: gzip` (true) or with none.
    #[must_use]
    pub fn new(gzip: bool) -> Self {
        Self::judging_past(UNJUDGED, gzip)
    }

    fn judging_past(unjudged: u64, gzip: bool) -> Self {
        let decoder = gzip.then(|| MultiGzDecoder::new(Vec::with_capacity(4 * PIECE)));
        Self { decoder, taken: 0, given: 0, unjudged }
    }

    /// Inflates one piece of the body; `take` gets what comes out: some 64 KiB at a time, and 16 MiB at most, for gzip makes
    /// a byte out of no less than a thousandth of one.
    ///
    /// # Errors
    /// What `take` returns, or an I/O error for bytes that are not gzip, and for a body that is all but empty and inflates
    /// without end.
    pub fn feed<E: From<std::io::Error>>(
        &mut self,
        compressed: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(decoder) = &mut self.decoder else { return take(compressed) };
        for piece in compressed.chunks(PIECE) {
            decoder.write_all(piece)?;
            self.taken += piece.len() as u64;
            self.given += decoder.get_ref().len() as u64;
            if self.given > self.unjudged && self.given / RATIO_MAX > self.taken {
                let told = "the body inflates to more than 200 times its size";
                return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, told).into());
            }
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
    fn gzip_bomb_in_a_partition_is_refused_and_held_in_little_memory() {
        // 64 MiB of nothing in 64 KiB. The real bound is minutes away for a program that is not optimized.
        let mut one = GzEncoder::new(Vec::new(), Compression::default());
        one.write_all(&vec![b' '; 8 << 20]).unwrap();
        let bomb = one.finish().unwrap().repeat(8);
        let (mut inflater, mut given, mut most) = (Inflater::judging_past(20 << 20, true), 0, 0);

        let refused = inflater.feed(&bomb, |bytes| {
            (given, most) = (given + bytes.len(), most.max(bytes.len()));
            Ok::<_, std::io::Error>(())
        });

        assert!(refused.unwrap_err().to_string().contains("200 times"));
        assert!(given > 0 && given <= 20 << 20 && most <= 17 << 20, "{given} and {most} bytes came out");
        let sparse: Vec<u8> =
            (0..5_000u32).flat_map(|n| format!("[{n}{}]", ",null".repeat(200)).into_bytes()).collect();
        let mut patient = Inflater::judging_past(1 << 20, true);
        let passed = patient.feed(&gzip(&sparse), |_| Ok::<_, std::io::Error>(()));
        assert!(passed.is_ok(), "two hundred empty columns are no bomb");
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
