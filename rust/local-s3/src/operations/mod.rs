//! S3's operations: which one a request asks for, whether its sender may, and its answer.
pub mod access_points;
pub mod archive;
pub mod buckets;
pub mod conditions;
pub mod copy;
pub mod customer_key;
pub mod directory_buckets;
pub mod listing;
pub mod multipart;
pub mod objects;
mod refusals;
pub mod versions;

use crate::auth::Sender;
use crate::config::{Config, EtagKind};
use crate::error::{Answer, S3Error};
use crate::faults::Effects;
use crate::incoming::Incoming;
use crate::keep::Place;
use crate::receive::Expected;
use crate::request::{Query, Request, Target};
use crate::response::Response;
use crate::server::Server;
use crate::store::bucket::Bucket;
use crate::variants::Variant;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    ListBuckets,
    CreateBucket,
    DeleteBucket,
    HeadBucket,
    GetBucketLocation,
    GetBucketVersioning,
    PutBucketVersioning,
    ListObjects,
    ListObjectsV2,
    ListObjectVersions,
    ListMultipartUploads,
    DeleteObjects,
    GetObject,
    HeadObject,
    GetObjectTagging,
    PutObject,
    CopyObject,
    DeleteObject,
    CreateMultipartUpload,
    UploadPart,
    UploadPartCopy,
    CompleteMultipartUpload,
    AbortMultipartUpload,
    ListParts,
    RestoreObject,
    CreateSession,
    Unknown,
}

impl Operation {
    /// Parameters that are no operation of their own.
    const NEUTRAL: [&str; 5] = ["x-id", "versionId", "partNumber", "uploadId", "encoding-type"];

    pub fn of(request: &Request, query: &Query, target: &Target) -> Self {
        let has = |name: &str| query.has(name);
        let copies = request.header("x-amz-copy-source").is_some();
        let known = |names: &[&str]| {
            query.0.iter().all(|(name, _)| {
                names.contains(&name.as_str())
                    || Self::NEUTRAL.contains(&name.as_str())
                    || name.starts_with("response-")
                    // Of presigned URLs: the signature, and headers that were put into the query.
                    || name.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("x-amz-"))
            })
        };
        match (request.method(), target.bucket.is_empty(), target.key.is_empty()) {
            ("GET", true, _) => Self::ListBuckets,
            ("PUT", false, true) if known(&[]) => Self::CreateBucket,
            ("DELETE", false, true) if known(&[]) => Self::DeleteBucket,
            ("HEAD", false, true) => Self::HeadBucket,
            ("POST", false, true) if has("delete") => Self::DeleteObjects,
            ("GET", false, true) if has("location") => Self::GetBucketLocation,
            ("GET", false, true) if has("versioning") => Self::GetBucketVersioning,
            ("PUT", false, true) if has("versioning") => Self::PutBucketVersioning,
            ("GET", false, true) if has("versions") => Self::ListObjectVersions,
            ("GET", false, true) if has("uploads") => Self::ListMultipartUploads,
            ("GET", false, true) if has("session") => Self::CreateSession,
            ("GET", false, true) if query.get("list-type") == Some("2") => Self::ListObjectsV2,
            ("GET", false, true) if known(&["prefix", "delimiter", "marker", "max-keys"]) => Self::ListObjects,
            ("GET", false, false) if has("uploadId") => Self::ListParts,
            ("GET", false, false) if has("tagging") => Self::GetObjectTagging,
            ("GET", false, false) if known(&[]) => Self::GetObject,
            ("HEAD", false, false) => Self::HeadObject,
            ("PUT", false, false) if has("uploadId") && copies => Self::UploadPartCopy,
            ("PUT", false, false) if has("uploadId") => Self::UploadPart,
            ("PUT", false, false) if copies && known(&[]) => Self::CopyObject,
            ("PUT", false, false) if known(&[]) => Self::PutObject,
            ("POST", false, false) if has("restore") => Self::RestoreObject,
            ("POST", false, false) if has("uploads") => Self::CreateMultipartUpload,
            ("POST", false, false) if has("uploadId") => Self::CompleteMultipartUpload,
            ("DELETE", false, false) if has("uploadId") => Self::AbortMultipartUpload,
            ("DELETE", false, false) if known(&[]) => Self::DeleteObject,
            _ => Self::Unknown,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::ListBuckets => "ListBuckets",
            Self::CreateBucket => "CreateBucket",
            Self::DeleteBucket => "DeleteBucket",
            Self::HeadBucket => "HeadBucket",
            Self::GetBucketLocation => "GetBucketLocation",
            Self::GetBucketVersioning => "GetBucketVersioning",
            Self::PutBucketVersioning => "PutBucketVersioning",
            Self::ListObjects => "ListObjects",
            Self::ListObjectsV2 => "ListObjectsV2",
            Self::ListObjectVersions => "ListObjectVersions",
            Self::ListMultipartUploads => "ListMultipartUploads",
            Self::DeleteObjects => "DeleteObjects",
            Self::GetObject => "GetObject",
            Self::HeadObject => "HeadObject",
            Self::GetObjectTagging => "GetObjectTagging",
            Self::PutObject => "PutObject",
            Self::CopyObject => "CopyObject",
            Self::DeleteObject => "DeleteObject",
            Self::CreateMultipartUpload => "CreateMultipartUpload",
            Self::UploadPart => "UploadPart",
            Self::UploadPartCopy => "UploadPartCopy",
            Self::CompleteMultipartUpload => "CompleteMultipartUpload",
            Self::AbortMultipartUpload => "AbortMultipartUpload",
            Self::ListParts => "ListParts",
            Self::RestoreObject => "RestoreObject",
            Self::CreateSession => "CreateSession",
            Self::Unknown => "Unknown",
        }
    }

    pub fn writes(self) -> bool {
        !matches!(
            self,
            Self::ListBuckets
                | Self::HeadBucket
                | Self::GetBucketLocation
                | Self::GetBucketVersioning
                | Self::ListObjects
                | Self::ListObjectsV2
                | Self::ListObjectVersions
                | Self::GetObject
                | Self::HeadObject
                | Self::GetObjectTagging
                | Self::CreateSession
        )
    }
}

/// One request on its way to an answer.
pub struct Call<'a> {
    pub server: &'a Server,
    /// As it was when the request came.
    pub config: &'a Config,
    pub request: &'a Request,
    pub query: &'a Query,
    pub target: &'a Target,
    pub sender: &'a Sender,
    pub effects: &'a Effects,
    pub operation: Operation,
}

impl Call<'_> {
    pub fn bucket(&self) -> Result<Arc<Bucket>, S3Error> {
        self.server.store.bucket(&self.target.bucket)
    }

    pub fn variant(&self) -> &Variant {
        &self.config.variant
    }

    pub fn ignores_conditions(&self) -> bool {
        self.effects.ignore_conditions || self.variant().ignore_conditions
    }

    /// The same for the conditions of a write.
    pub fn ignores_write_conditions(&self) -> bool {
        self.ignores_conditions() || self.variant().ignore_write_conditions
    }

    pub fn etag(&self) -> EtagKind {
        if directory_buckets::is_one(&self.target.bucket) { EtagKind::Opaque } else { self.config.etag }
    }

    pub fn expected(&self) -> Expected<'_> {
        Expected {
            request: self.request,
            sender: self.sender,
            etag: self.etag(),
            ignore_checksums: self.variant().ignore_checksums,
            wanted: None,
        }
    }

    /// Where the bytes of a new object of a bucket go.
    pub fn place(&self, bucket: &Bucket) -> Place {
        match &self.server.store.directory {
            _ if bucket.is_sink() => Place::Nowhere,
            Some(directory) => Place::File(directory.temporary()),
            None => Place::Memory,
        }
    }

    fn authorize(&self) -> Answer<()> {
        if self.request.header("x-amz-expected-bucket-owner").is_some_and(|owner| owner != self.config.owner) {
            return Err(S3Error::access_denied().into());
        }
        if matches!(self.sender, Sender::Known(_)) {
            let unpaid = self.request.header("x-amz-request-payer").is_none();
            let bucket = self.server.store.find(&self.target.bucket).filter(|_| unpaid);
            return match bucket.is_some_and(|bucket| bucket.is_paid_by_requester()) {
                true => Err(S3Error::access_denied().into()),
                false => Ok(()),
            };
        }
        let Some(bucket) = self.server.store.find(&self.target.bucket) else {
            let exists_not = self.operation != Operation::ListBuckets && !self.operation.writes();
            let error =
                if exists_not { S3Error::no_such_bucket(&self.target.bucket) } else { S3Error::access_denied() };
            return Err(error.into());
        };
        let allowed = bucket.is_public() && (!self.operation.writes() || self.config.anonymous_writes);
        if allowed { Ok(()) } else { Err(S3Error::access_denied().into()) }
    }

    /// The key as S3 limits it.
    fn check_key(&self) -> Answer<()> {
        const MAX_KEY_BYTES: usize = 1024;
        if self.target.key.len() > MAX_KEY_BYTES {
            let error = S3Error::new(400, "KeyTooLongError", "Your key is too long");
            return Err(error.with("MaxSizeAllowed", MAX_KEY_BYTES.to_string()).into());
        }
        Ok(())
    }

    pub async fn answer(&self, incoming: &mut Incoming<'_>) -> Answer<Response> {
        self.check_key()?;
        self.authorize()?;
        self.server.check_region(self)?;
        self.check_variant()?;
        directory_buckets::check(self)?;
        match self.operation {
            Operation::ListBuckets => buckets::list(self),
            Operation::CreateBucket => buckets::create(self, incoming).await,
            Operation::DeleteBucket => buckets::delete(self),
            Operation::HeadBucket => buckets::head(self),
            Operation::GetBucketLocation => buckets::location(self),
            Operation::GetBucketVersioning => versions::get_versioning(self),
            Operation::PutBucketVersioning => versions::put_versioning(self, incoming).await,
            Operation::ListObjectVersions => versions::list(self),
            Operation::ListObjects | Operation::ListObjectsV2 => listing::list(self),
            Operation::ListMultipartUploads => multipart::list_uploads(self),
            Operation::DeleteObjects => objects::delete_many(self, incoming).await,
            Operation::GetObject | Operation::HeadObject => objects::get(self).await,
            Operation::GetObjectTagging => objects::tagging(self),
            Operation::PutObject => objects::put(self, incoming).await,
            Operation::CopyObject => copy::copy(self).await,
            Operation::DeleteObject => objects::delete(self),
            Operation::CreateMultipartUpload => multipart::create(self),
            Operation::UploadPart => multipart::upload_part(self, incoming).await,
            Operation::UploadPartCopy => copy::copy_part(self).await,
            Operation::CompleteMultipartUpload => multipart::complete(self, incoming).await,
            Operation::AbortMultipartUpload => multipart::abort(self),
            Operation::ListParts => multipart::list_parts(self),
            Operation::RestoreObject => archive::restore(self, incoming).await,
            Operation::CreateSession => directory_buckets::create_session(self),
            Operation::Unknown => Err(S3Error::not_implemented(self.request.query()).into()),
        }
    }
}
