//! gzip without compression: what a client must undo, at no cost in code.
use crate::checksum::Algorithm;

/// The bytes as stored blocks of DEFLATE (RFC 1951) in a member of gzip (RFC 1952).
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    const MOST: usize = u16::MAX as usize;
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let blocks = bytes.len().div_ceil(MOST).max(1);
    for number in 0..blocks {
        let block = &bytes[number * MOST..bytes.len().min((number + 1) * MOST)];
        let length = block.len() as u16;
        out.push(u8::from(number + 1 == blocks));
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(block);
    }
    out.extend(Algorithm::Crc32.digest(bytes).iter().rev());
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out
}
