//! Signatures of bodies in signed chunks.
use super::{Signed, sha256_hex, verify};
use crate::checksum::hex;
use ring::digest;

/// Checks the signatures of an aws-chunked body, each of which covers the one before.
pub struct ChunkSignatures {
    signed: Signed,
    previous: String,
    hasher: digest::Context,
}

impl ChunkSignatures {
    pub fn new(signed: Signed) -> Self {
        let previous = signed.signature.clone();
        Self { signed, previous, hasher: digest::Context::new(&digest::SHA256) }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// At the end of a chunk; the signature came before its bytes.
    pub fn end_chunk(&mut self, signature: &str) -> bool {
        let hasher = std::mem::replace(&mut self.hasher, digest::Context::new(&digest::SHA256));
        let chunk = hex(hasher.finish().as_ref());
        self.check("AWS4-HMAC-SHA256-PAYLOAD", &format!("{}\n{chunk}", sha256_hex(b"")), signature)
    }

    /// `trailers` is every trailing header as `name:value\n`.
    pub fn end_trailers(&mut self, trailers: &str, signature: &str) -> bool {
        self.check("AWS4-HMAC-SHA256-TRAILER", &sha256_hex(trailers.as_bytes()), signature)
    }

    fn check(&mut self, algorithm: &str, rest: &str, signature: &str) -> bool {
        let Signed { date, scope, key, .. } = &self.signed;
        let text = format!("{algorithm}\n{date}\n{scope}\n{}\n{rest}", self.previous);
        let matches = verify(key, &text, signature);
        self.previous = signature.to_owned();
        matches
    }
}
