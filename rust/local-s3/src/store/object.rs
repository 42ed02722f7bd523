//! One version of an object.
use super::content::{Content, mix};
use super::sequence::Sequence;
use crate::checksum::{Checksum, hex};
use crate::date::Timestamp;

/// What a writer sends with an object and a reader gets back.
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    /// Returned with GET and HEAD as they were sent.
    pub headers: Vec<(String, String)>,
    /// None is STANDARD.
    pub storage_class: Option<String>,
    /// The `x-amz-tagging` header as sent.
    pub tags: Option<String>,
}

/// One version of an object. Never changes: a write puts another in its place.
#[derive(Clone, Debug)]
pub struct Object {
    pub content: Content,
    pub size: u64,
    /// Without its quotes.
    pub etag: String,
    pub modified: Timestamp,
    pub attributes: Attributes,
    pub checksum: Option<Checksum>,
    /// Sizes of the parts of a multipart upload, otherwise empty.
    pub parts: Vec<u64>,
    /// None when it was written to a bucket without versions.
    pub version: Option<String>,
}

impl Object {
    pub fn new(content: Content, size: u64, etag: String, modified: Timestamp) -> Self {
        Self {
            content,
            size,
            etag,
            modified,
            attributes: Attributes::default(),
            checksum: None,
            parts: Vec::new(),
            version: None,
        }
    }

    /// Its id among the versions of its key.
    pub fn version_id(&self) -> &str {
        self.version.as_deref().unwrap_or(NULL_VERSION)
    }
}

/// The version of what was written without versions.
pub const NULL_VERSION: &str = "null";

/// When synthetic objects were last changed: 2024-01-01, so that listings do not depend on the day.
pub const SYNTHETIC_MODIFIED: Timestamp = Timestamp { seconds: 1_704_067_200, millis: 0 };

/// The two halves of a synthetic object's ETag.
pub fn synthetic_etag_words(seed: u64, size: u64) -> [u64; 2] {
    [mix(seed), mix(seed ^ mix(size))]
}

pub fn synthetic_etag(seed: u64, size: u64) -> String {
    hex(&synthetic_etag_words(seed, size).map(u64::to_be_bytes).concat())
}

/// Object number `index` of a sequence.
pub fn synthetic(sequence: &Sequence, index: u64) -> Object {
    let (seed, size) = (sequence.content_seed(index), sequence.size(index));
    Object::new(Content::Synthetic { seed }, size, synthetic_etag(seed, size), SYNTHETIC_MODIFIED)
}
