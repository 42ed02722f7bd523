//! What can be asked of the engine, and what comes back.
use crate::budget::Grant;
use crate::checksum::Algorithm;
use crate::client::Route;
use crate::failure::Failure;
use crate::pace::Pace;
use crate::queue::Queue;
use crate::raw::{PooledBuffer, Span};
use crate::ticket::Ticket;
use crate::xml::{ListPage, UploadPage};
use std::sync::Arc;

/// A request with its place in its queue.
pub struct Job {
    pub ticket: Ticket,
    pub op: Op,
    /// What it holds of the byte budget: until its result is taken.
    pub grant: Option<Grant>,
}

impl Job {
    pub fn new(queue: Arc<Queue>, index: u64, target: Target, op: Op) -> Job {
        let operation = match &op {
            Op::Call(call) => call.kind.operation(&target.key),
            Op::Fetch(_) => "GetObject",
        };
        Job { ticket: Ticket::new(queue, index, target, operation), op, grant: None }
    }

    /// What it goes by when the service asks for less.
    pub fn pace(&self) -> &Pace {
        let route = &self.ticket.target.route;
        match &self.op {
            Op::Call(call) if !call.kind.reads() => &route.writes,
            _ => &route.reads,
        }
    }
}

#[derive(Clone)]
pub struct Target {
    pub route: Arc<Route>,
    pub key: Arc<str>,
    /// The version to read, as a canonical query: "versionId=..."; None: the current one.
    pub version: Option<Arc<str>>,
}

impl Target {
    /// What a GET or HEAD asks for.
    pub fn query(&self) -> &str {
        self.version.as_deref().unwrap_or_default()
    }
}

pub enum Op {
    Fetch(Fetch),
    Call(Box<Call>),
}

/// Bytes of one object.
#[derive(Clone, Debug)]
pub struct Fetch {
    pub what: What,
    /// Of the whole object, where known.
    pub size: Option<u64>,
    /// At most so many bytes, from the start on; u64::MAX: all.
    pub limit: u64,
    /// The ETag that the object must have.
    pub pin: Option<String>,
    /// The caller's memory: it must be filled exactly.
    pub into: Option<Span>,
    pub check: Check,
}

/// What becomes of the checksum of the bytes that come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Nothing, but that a whole object that comes with one answer is compared with what is stored anyway.
    Usual,
    /// A whole object that comes in parallel ranges is compared too, which takes a HEAD.
    Stored,
    /// The result tells it; of bytes in the caller's memory.
    Told(Algorithm),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Whole,
    Range { start: u64, end: u64 },
    Suffix(u64),
}

impl Fetch {
    /// What becomes of the checksum where they come in parallel ranges.
    pub fn check_of(&self, whole: bool, verifies: bool) -> Check {
        match self.check {
            Check::Stored if !(whole && verifies) => Check::Usual,
            check => check,
        }
    }

    /// The bytes that are certain to be asked for, [start, end), where that is known before the answer.
    pub fn extent(&self) -> Option<(u64, u64)> {
        let (start, end) = match (self.what, self.size) {
            (What::Range { start, end }, None) => (start, end),
            (What::Range { start, end }, Some(size)) => (start.min(size), end.min(size)),
            (What::Whole, Some(size)) => (0, size),
            (What::Suffix(n), Some(size)) => (size - n.min(size), size),
            _ => return None,
        };
        Some((start, end.min(start.saturating_add(self.limit))))
    }
}

/// A request whose answer is small: everything but fetching.
#[derive(Clone)]
pub struct Call {
    pub kind: CallKind,
    pub method: &'static str,
    /// Canonical, as it is sent and signed.
    pub query: String,
    /// Names in lower case; all of them are signed.
    pub headers: Vec<(String, String)>,
    pub payload: Payload,
    pub checksum: Option<Algorithm>,
    /// What the caller computed already, base64.
    pub checksum_value: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    Head,
    List,
    ListUploads,
    Put,
    UploadPart,
    UploadPartCopy,
    CreateUpload,
    CompleteUpload,
    AbortUpload,
    Delete,
    DeleteMany,
    Copy,
}

impl CallKind {
    pub fn operation(self, key: &str) -> &'static str {
        match self {
            CallKind::Head if key.is_empty() => "HeadBucket",
            CallKind::Head => "HeadObject",
            CallKind::List => "ListObjectsV2",
            CallKind::ListUploads => "ListMultipartUploads",
            CallKind::Put => "PutObject",
            CallKind::UploadPart => "UploadPart",
            CallKind::UploadPartCopy => "UploadPartCopy",
            CallKind::CreateUpload => "CreateMultipartUpload",
            CallKind::CompleteUpload => "CompleteMultipartUpload",
            CallKind::AbortUpload => "AbortMultipartUpload",
            CallKind::Delete => "DeleteObject",
            CallKind::DeleteMany => "DeleteObjects",
            CallKind::Copy => "CopyObject",
        }
    }

    /// Changes nothing at the service.
    pub fn reads(self) -> bool {
        matches!(self, CallKind::Head | CallKind::List | CallKind::ListUploads)
    }

    /// May take minutes at the service: one deadline instead of a first-byte one.
    pub fn is_long(self) -> bool {
        matches!(self, CallKind::CompleteUpload | CallKind::Copy | CallKind::UploadPartCopy)
    }
}

#[derive(Clone)]
pub enum Payload {
    None,
    Owned(Arc<[u8]>),
    /// The caller's memory, which does not change until the result is handed over.
    Foreign(Span),
}

impl Payload {
    /// The span is valid while this payload lives.
    pub fn span(&self) -> Span {
        match self {
            Payload::None => Span::EMPTY,
            Payload::Owned(bytes) => crate::raw::span_of(bytes),
            Payload::Foreign(span) => *span,
        }
    }
}

/// How a request ended.
pub enum Outcome {
    Body(Body),
    Reply(Box<Reply>),
    List(Box<ListPage>),
    Failure(Box<Failure>),
}

pub struct Body {
    pub target: Target,
    pub buffer: PooledBuffer,
    pub start: u64,
    pub object_size: u64,
    pub etag: String,
    pub last_modified: Option<i64>,
    /// The response's head as it came, for whoever asks for headers.
    pub head: Box<[u8]>,
}

/// What the result of a fetch tells besides its bytes.
pub struct Meta {
    pub etag: String,
    pub object_size: u64,
    pub last_modified: Option<i64>,
    pub head: Box<[u8]>,
    pub checksum: String,
}

impl Meta {
    /// The result: a body in pooled memory, or what is to be said of one in the caller's.
    pub fn outcome(self, target: &Target, buffer: Option<PooledBuffer>, start: u64, nbytes: usize) -> Outcome {
        let Meta { etag, object_size, last_modified, head, checksum } = self;
        match buffer {
            Some(buffer) => {
                Outcome::Body(Body { target: target.clone(), buffer, start, object_size, etag, last_modified, head })
            }
            None => Outcome::Reply(Box::new(Reply {
                status: 206,
                etag,
                object_size,
                nbytes: nbytes as u64,
                last_modified,
                head,
                checksum,
                ..Reply::default()
            })),
        }
    }
}

#[derive(Default)]
pub struct Reply {
    pub status: u16,
    pub etag: String,
    pub object_size: u64,
    pub nbytes: u64,
    pub last_modified: Option<i64>,
    pub upload_id: String,
    /// Earlier attempts that may have been carried out as well; of creating uploads.
    pub in_doubt: u32,
    pub checksum: String,
    pub key_errors: Vec<(String, String, String)>,
    pub uploads: UploadPage,
    pub head: Box<[u8]>,
}

/// The (name, value) pairs of a raw response head; values that are no UTF-8 are read as Latin-1.
pub fn headers_of(head: &[u8]) -> Vec<(String, String)> {
    let mut headers = [httparse::EMPTY_HEADER; crate::head::MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let text = |v: &[u8]| match std::str::from_utf8(v) {
        Ok(v) => v.to_owned(),
        Err(_) => v.iter().map(|b| char::from(*b)).collect(),
    };
    match response.parse(head) {
        Ok(_) => response.headers.iter().map(|h| (h.name.to_ascii_lowercase(), text(h.value))).collect(),
        Err(_) => Vec::new(),
    }
}
