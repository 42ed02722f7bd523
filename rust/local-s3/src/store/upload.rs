//! Multipart uploads in progress.
use super::content::Content;
use super::object::Attributes;
use crate::checksum::{Algorithm, Kind};
use crate::date::Timestamp;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

pub struct Upload {
    pub id: String,
    pub key: String,
    pub attributes: Attributes,
    /// What CreateMultipartUpload asked for.
    pub checksum: Option<(Algorithm, Kind)>,
    pub initiated: Timestamp,
    pub parts: Mutex<BTreeMap<u32, Arc<Part>>>,
}

pub struct Part {
    pub content: Content,
    pub size: u64,
    pub md5: [u8; 16],
    pub etag: String,
    /// In the upload's algorithm, or in what was sent with the part.
    pub checksum: Option<(Algorithm, Vec<u8>)>,
    /// Computed by the server, as S3 does it, for the whole object's checksum.
    pub crc64nvme: Vec<u8>,
    pub modified: Timestamp,
}
