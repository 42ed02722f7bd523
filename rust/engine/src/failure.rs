//! Why a request ended without a result.
use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Cancelled,
    Service,
    NotFound,
    BucketNotFound,
    AccessDenied,
    Credentials,
    PreconditionFailed,
    Conflict,
    Changed,
    Throttled,
    Transport,
    ConnectTimeout,
    FirstByteTimeout,
    StallTimeout,
    Tls,
    Proxy,
    Checksum,
    Invalid,
    Redirect,
    Internal,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Cancelled => "cancelled",
            Kind::Service => "service",
            Kind::NotFound => "not_found",
            Kind::BucketNotFound => "bucket_not_found",
            Kind::AccessDenied => "access_denied",
            Kind::Credentials => "credentials",
            Kind::PreconditionFailed => "precondition_failed",
            Kind::Conflict => "conflict",
            Kind::Changed => "changed",
            Kind::Throttled => "throttled",
            Kind::Transport => "transport",
            Kind::ConnectTimeout => "connect_timeout",
            Kind::FirstByteTimeout => "first_byte_timeout",
            Kind::StallTimeout => "stall_timeout",
            Kind::Tls => "tls",
            Kind::Proxy => "proxy",
            Kind::Checksum => "checksum",
            Kind::Invalid => "invalid",
            Kind::Redirect => "redirect",
            Kind::Internal => "internal",
        }
    }
}

/// All that is known of a request that failed for good.
#[derive(Clone, Debug)]
pub struct Failure {
    pub kind: Kind,
    pub operation: &'static str,
    pub bucket: String,
    pub key: String,
    pub status: u16,
    pub code: String,
    pub message: String,
    pub request_id: String,
    pub host_id: String,
    pub attempts: u32,
    pub elapsed_s: f64,
    pub causes: Vec<String>,
    pub retries_exhausted: bool,
    pub region: String,
}

impl Failure {
    pub fn new(kind: Kind, operation: &'static str, bucket: &str, key: &str, message: impl Into<String>) -> Failure {
        Failure {
            kind,
            operation,
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            status: 0,
            code: String::new(),
            message: message.into(),
            request_id: String::new(),
            host_id: String::new(),
            attempts: 0,
            elapsed_s: 0.0,
            causes: Vec::new(),
            retries_exhausted: false,
            region: String::new(),
        }
    }
}

/// One attempt's failure: what kind, and what the retry policy needs to know.
#[derive(Clone, Debug)]
pub struct Fault {
    pub kind: Kind,
    pub status: u16,
    pub code: String,
    pub message: String,
    pub request_id: String,
    pub host_id: String,
    pub region: String,
    /// The header or storage class that the service complains of, where it names one.
    pub about: String,
    /// The size that a 416 tells, where it does.
    pub object_size: Option<u64>,
    pub retry_after_s: Option<f64>,
    pub retry: Retry,
}

/// What an attempt's failure means for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    Never,
    /// It was tried often enough, as a request of its own.
    Spent,
    /// Counts as an attempt.
    Counted,
    /// Counts time: the service asks for less.
    Throttle,
    /// A connection that the peer had closed while it lay idle: at once, on a new one.
    Stale,
    /// Called off because its answer did not begin: at once, on another connection. Not an attempt of its own.
    Hedged,
    /// Something was learned (region, clock, credentials, an unwanted header): again, a few times at most.
    Corrected,
}

impl Fault {
    pub fn new(kind: Kind, retry: Retry, message: impl Into<String>) -> Fault {
        Fault {
            kind,
            status: 0,
            code: String::new(),
            message: message.into(),
            request_id: String::new(),
            host_id: String::new(),
            region: String::new(),
            about: String::new(),
            object_size: None,
            retry_after_s: None,
            retry,
        }
    }

    pub fn transport(message: impl fmt::Display) -> Fault {
        Fault::new(Kind::Transport, Retry::Counted, message.to_string())
    }

    pub fn cancelled() -> Fault {
        Fault::new(Kind::Cancelled, Retry::Never, "cancelled")
    }

    pub fn invalid(message: impl Into<String>) -> Fault {
        Fault::new(Kind::Invalid, Retry::Never, message)
    }

    /// A short name for statistics: what made us try again.
    pub fn cause(&self) -> String {
        match (self.status, self.code.is_empty()) {
            (0, _) => self.kind.name().to_owned(),
            (status, true) => status.to_string(),
            (status, false) => format!("{status} {}", self.code),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.status > 0 {
            write!(f, "{} {}: {}", self.status, self.code, self.message)
        } else {
            write!(f, "{}: {}", self.kind.name(), self.message)
        }
    }
}
