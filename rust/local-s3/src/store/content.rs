//! Where the bytes of an object come from.
use bytes::Bytes;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

/// Longest piece that is handed to a socket at once: large enough to cost few calls, small enough for the cache.
pub const PIECE_BYTES: usize = 256 << 10;

#[derive(Clone, Debug)]
pub enum Content {
    Memory(Segments),
    File(PathBuf),
    /// A file that stays the same version although another may take its name.
    Open(Arc<File>),
    /// Bytes computed from the seed and the offset.
    Synthetic {
        seed: u64,
    },
    /// Received by a sink: counted and hashed, not kept.
    Discarded,
}

/// Bytes as they were received, without being joined.
#[derive(Clone, Debug, Default)]
pub struct Segments {
    /// Each with the offset of its end.
    parts: Vec<(u64, Bytes)>,
}

impl Segments {
    pub fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.parts.push((self.len() + bytes.len() as u64, bytes));
        }
    }

    pub fn len(&self) -> u64 {
        self.parts.last().map_or(0, |(end, _)| *end)
    }

    pub fn append(&mut self, other: &Self) {
        for (_, bytes) in &other.parts {
            self.push(bytes.clone());
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Bytes> {
        self.parts.iter().map(|(_, bytes)| bytes)
    }

    /// The bytes from `start` to `end` or to the end of the segment that holds `start`.
    pub fn piece(&self, start: u64, end: u64) -> Bytes {
        let index = self.parts.partition_point(|(segment_end, _)| *segment_end <= start);
        let Some((segment_end, bytes)) = self.parts.get(index) else { return Bytes::new() };
        let base = segment_end - bytes.len() as u64;
        bytes.slice((start - base) as usize..(end.min(*segment_end) - base) as usize)
    }
}

/// A part of an object, ready to be written to a socket.
pub enum Piece {
    Shared(Bytes),
    /// So many bytes at the start of the scratch buffer.
    Scratch(usize),
}

impl Content {
    /// The same bytes in a form that a later write to the key does not change.
    pub fn pinned(&self) -> io::Result<Self> {
        match self {
            Self::File(path) => Ok(Self::Open(Arc::new(File::open(path)?))),
            content => Ok(content.clone()),
        }
    }

    /// Bytes from `start`, at most to `end`; at least one unless the range is empty.
    pub async fn piece(&self, start: u64, end: u64, scratch: &mut Vec<u8>) -> io::Result<Piece> {
        match self {
            Self::Memory(segments) => Ok(Piece::Shared(segments.piece(start, end))),
            Self::Synthetic { seed } => {
                let length = ((end - start) as usize).min(PIECE_BYTES);
                scratch.resize(scratch.len().max(length), 0);
                synthesize(*seed, start, &mut scratch[..length]);
                Ok(Piece::Scratch(length))
            }
            Self::File(path) => Box::pin(Self::Open(Arc::new(File::open(path)?)).piece(start, end, scratch)).await,
            Self::Open(file) => {
                let file = file.clone();
                let length = ((end - start) as usize).min(4 * PIECE_BYTES);
                let read = tokio::task::spawn_blocking(move || read_file(&file, start, length)).await;
                Ok(Piece::Shared(read.map_err(io::Error::other)??))
            }
            Self::Discarded => Ok(Piece::Shared(Bytes::new())),
        }
    }

    /// Every byte, for small objects and copies.
    pub async fn collect(&self, start: u64, end: u64) -> io::Result<Segments> {
        let mut out = Segments::default();
        let mut scratch = Vec::new();
        let mut at = start;
        while at < end {
            let bytes = match self.piece(at, end, &mut scratch).await? {
                Piece::Shared(bytes) => bytes,
                Piece::Scratch(length) => Bytes::copy_from_slice(&scratch[..length]),
            };
            if bytes.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            at += bytes.len() as u64;
            out.push(bytes);
        }
        Ok(out)
    }
}

fn read_file(file: &File, start: u64, length: usize) -> io::Result<Bytes> {
    let mut buffer = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut buffer[filled..], start + filled as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => filled += read,
        }
    }
    Ok(buffer.into())
}

/// A mixing step with the avalanche of SplitMix64's; see Steele, Lea, Flood, "Fast splittable pseudorandom number
/// generators" (2014).
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// Word `index` of the sequence of `seed`, little-endian.
fn word(state: u64, index: u64) -> [u8; 8] {
    mix(state.wrapping_add(index.wrapping_mul(GAMMA))).to_le_bytes()
}

/// Fills `out` with the bytes of the sequence of `seed` from `offset` on.
pub fn synthesize(seed: u64, offset: u64, out: &mut [u8]) {
    let state = mix(seed.wrapping_add(GAMMA));
    let mut index = offset / 8;
    let skip = (offset % 8) as usize;
    let mut rest = out;
    if skip > 0 {
        let head = rest.len().min(8 - skip);
        let (first, tail) = rest.split_at_mut(head);
        first.copy_from_slice(&word(state, index)[skip..skip + head]);
        rest = tail;
        index += 1;
    }
    let mut words = rest.chunks_exact_mut(8);
    for chunk in words.by_ref() {
        chunk.copy_from_slice(&word(state, index));
        index += 1;
    }
    let tail = words.into_remainder();
    tail.copy_from_slice(&word(state, index)[..tail.len()]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synthetic_bytes_do_not_depend_on_where_reading_starts() {
        let mut whole = vec![0; 1000];
        synthesize(7, 0, &mut whole);
        for (start, end) in [(0, 1), (3, 5), (5, 29), (8, 16), (993, 1000), (1, 1000)] {
            let mut part = vec![0; end - start];
            synthesize(7, start as u64, &mut part);
            assert_eq!(part, whole[start..end]);
        }
        let mut other = vec![0; 1000];
        synthesize(8, 0, &mut other);
        assert_ne!(whole, other);
    }

    #[test]
    fn segments_are_cut_at_their_ends() {
        let mut segments = Segments::default();
        for part in ["abc", "", "de", "f"] {
            segments.push(Bytes::from_static(part.as_bytes()));
        }
        assert_eq!(segments.len(), 6);
        assert_eq!(segments.piece(1, 6), "bc");
        assert_eq!(segments.piece(3, 4), "d");
        assert_eq!(segments.piece(5, 6), "f");
        assert_eq!(segments.piece(6, 6), "");
    }
}
