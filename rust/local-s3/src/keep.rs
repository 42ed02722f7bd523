//! Bytes on their way into the store: hashed in one pass, kept without being joined.
use crate::checksum::{Algorithm, Checksum, Hasher, hex};
use crate::config::EtagKind;
use crate::error::Failure;
use crate::store::content::{Content, Segments, mix};
use bytes::{Bytes, BytesMut};
use md5::{Digest as _, Md5};
use ring::digest;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a body in one allocation at most.
const SEGMENT_BYTES: usize = 8 << 20;
/// Bytes are hashed in runs of this size, while they are in the cache.
pub const RUN_BYTES: usize = 256 << 10;

/// Where a body goes.
pub enum Place {
    Memory,
    File(PathBuf),
    Nowhere,
}

pub struct Received {
    pub content: Content,
    pub size: u64,
    pub md5: [u8; 16],
    pub etag: String,
    pub crc64nvme: Vec<u8>,
    /// The checksum that the client sent, or asked for.
    pub checksum: Option<(Algorithm, Vec<u8>)>,
}

impl Received {
    /// The checksum to keep: the client's, else the one that S3 adds by itself.
    pub fn stored_checksum(&self) -> Checksum {
        match &self.checksum {
            Some((algorithm, digest)) => Checksum::full(*algorithm, digest),
            None => Checksum::full(Algorithm::Crc64Nvme, &self.crc64nvme),
        }
    }
}

/// Digests of one body.
pub struct Digests {
    pub md5: Option<[u8; 16]>,
    pub crc64nvme: Vec<u8>,
    pub sha256: Option<String>,
    /// Of the algorithm asked for.
    pub checksum: Option<(Algorithm, Vec<u8>)>,
}

impl Digests {
    pub fn received(self, content: Content, size: u64, etag: EtagKind) -> Received {
        let etag = match (etag, self.md5) {
            (EtagKind::Md5, Some(md5)) => hex(&md5),
            _ => opaque_etag(&self.crc64nvme, size),
        };
        let md5 = self.md5.unwrap_or_default();
        Received { content, size, md5, etag, crc64nvme: self.crc64nvme, checksum: self.checksum }
    }
}

pub struct Hashes {
    md5: Option<Md5>,
    crc64nvme: Hasher,
    sha256: Option<digest::Context>,
    checksum: Option<Hasher>,
    wants_crc64nvme: bool,
}

impl Hashes {
    pub fn new(md5: bool, sha256: bool, algorithm: Option<Algorithm>) -> Self {
        Self {
            md5: md5.then(Md5::new),
            crc64nvme: Hasher::new(Algorithm::Crc64Nvme),
            sha256: sha256.then(|| digest::Context::new(&digest::SHA256)),
            checksum: algorithm.filter(|a| *a != Algorithm::Crc64Nvme).map(Hasher::new),
            wants_crc64nvme: algorithm == Some(Algorithm::Crc64Nvme),
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes);
        }
        if let Some(checksum) = &mut self.checksum {
            checksum.update(bytes);
        }
        self.crc64nvme.update(bytes);
    }

    pub fn finish(self) -> Digests {
        let crc64nvme = self.crc64nvme.finish();
        let checksum = match self.checksum {
            Some(hasher) => Some((hasher.algorithm(), hasher.finish())),
            None => self.wants_crc64nvme.then(|| (Algorithm::Crc64Nvme, crc64nvme.clone())),
        };
        Digests {
            md5: self.md5.map(|md5| md5.finalize().into()),
            crc64nvme,
            sha256: self.sha256.map(|sha256| hex(sha256.finish().as_ref())),
            checksum,
        }
    }
}

/// An ETag that is not an MD5; like S3's with KMS it differs between two uploads of the same bytes.
pub fn opaque_etag(crc64nvme: &[u8], size: u64) -> String {
    static UPLOADS: AtomicU64 = AtomicU64::new(0);
    let upload = mix(UPLOADS.fetch_add(1, Ordering::Relaxed) ^ size);
    hex(&[crc64nvme, &upload.to_be_bytes()].concat())
}

/// A file that is removed unless it is finished.
struct Unfinished {
    path: PathBuf,
    file: Arc<File>,
    finished: bool,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.finished {
            // A file that cannot be removed is removed when the server starts again.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Keeps what comes in, without joining it.
pub struct Writer {
    place: Place,
    current: BytesMut,
    segments: Segments,
    file: Option<Unfinished>,
    expected: Option<u64>,
    pub size: u64,
}

impl Writer {
    pub fn new(place: Place, expected: Option<u64>) -> Self {
        Self { place, current: BytesMut::new(), segments: Segments::default(), file: None, expected, size: 0 }
    }

    /// A buffer to append to, and how many bytes it takes.
    pub fn room(&mut self) -> (&mut BytesMut, usize) {
        if self.current.capacity() == self.current.len() {
            let left = self.expected.map_or(RUN_BYTES as u64, |expected| expected.saturating_sub(self.size));
            let most = if matches!(self.place, Place::Nowhere) { RUN_BYTES } else { SEGMENT_BYTES };
            // One byte more than is left, so that the end of the body is seen with room in the buffer.
            self.current = BytesMut::with_capacity((left as usize).saturating_add(1).min(most));
        }
        let room = self.current.capacity() - self.current.len();
        (&mut self.current, room)
    }

    /// After so many bytes were appended to the buffer.
    pub async fn advance(&mut self, bytes: u64) -> io::Result<()> {
        self.size += bytes;
        if matches!(self.place, Place::Nowhere) {
            self.current.clear();
        } else if self.current.len() == self.current.capacity() {
            let bytes = std::mem::take(&mut self.current).freeze();
            self.store(bytes).await?;
        }
        Ok(())
    }

    /// Keeps bytes that are in memory already.
    pub async fn push(&mut self, bytes: Bytes) -> io::Result<()> {
        self.size += bytes.len() as u64;
        if matches!(self.place, Place::Nowhere) { Ok(()) } else { self.store(bytes).await }
    }

    async fn store(&mut self, bytes: Bytes) -> io::Result<()> {
        let Place::File(path) = &self.place else {
            self.segments.push(bytes);
            return Ok(());
        };
        let unfinished = match &mut self.file {
            Some(unfinished) => unfinished,
            unopened => {
                let file = Arc::new(File::create(path)?);
                unopened.insert(Unfinished { path: path.clone(), file, finished: false })
            }
        };
        let file = unfinished.file.clone();
        let written = tokio::task::spawn_blocking(move || (&*file).write_all(&bytes)).await;
        written.map_err(io::Error::other)?
    }

    pub async fn finish(mut self) -> Result<Content, Failure> {
        if matches!(self.place, Place::Nowhere) {
            return Ok(Content::Discarded);
        }
        let last = std::mem::take(&mut self.current).freeze();
        self.store(last).await?;
        Ok(match self.file.take() {
            Some(mut file) => {
                file.finished = true;
                Content::File(file.path.clone())
            }
            None => Content::Memory(self.segments),
        })
    }
}
