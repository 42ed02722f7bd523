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
    /// Where an object of the class INTELLIGENT_TIERING is when it cannot be read: ARCHIVE_ACCESS or
    /// DEEP_ARCHIVE_ACCESS.
    pub archive_tier: Option<String>,
}

/// A copy of an archived object that can be read for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restore {
    pub ready: Timestamp,
    pub expires: Timestamp,
}

/// Whether an object can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// It was never archived, or is back where it can be read.
    Here,
    Archived,
    /// A restore was asked for.
    Restoring,
    /// For a while.
    Restored {
        until: Timestamp,
    },
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
    /// What the last RestoreObject asked for.
    pub restore: Option<Restore>,
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
            restore: None,
        }
    }

    pub fn availability(&self, now: Timestamp) -> Availability {
        let Attributes { storage_class, archive_tier, .. } = &self.attributes;
        let is_tiered = archive_tier.is_some();
        if !is_tiered && !matches!(storage_class.as_deref(), Some("GLACIER" | "DEEP_ARCHIVE")) {
            return Availability::Here;
        }
        match self.restore {
            Some(Restore { ready, .. }) if now < ready => Availability::Restoring,
            // It has moved to another tier, and stays there.
            Some(_) if is_tiered => Availability::Here,
            Some(Restore { expires, .. }) if now < expires => Availability::Restored { until: expires },
            _ => Availability::Archived,
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
