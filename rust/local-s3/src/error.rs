//! S3's errors, as the documented XML.
use crate::xml::Writer;
use std::borrow::Cow;
use std::io;

/// An answer that refuses a request.
#[derive(Clone, Debug)]
pub struct S3Error {
    pub status: u16,
    pub code: Cow<'static, str>,
    pub message: Cow<'static, str>,
    /// More elements of the body, such as `<Region>`.
    pub details: Vec<(&'static str, String)>,
    pub headers: Vec<(&'static str, String)>,
    /// Answer and close although the request's body has not been read.
    pub close: bool,
}

/// Why an operation has no answer of its own: S3 refuses it, or the connection broke.
#[derive(Debug)]
pub enum Failure {
    S3(Box<S3Error>),
    Io(io::Error),
}

pub type Answer<T> = Result<T, Failure>;

impl From<S3Error> for Failure {
    fn from(error: S3Error) -> Self {
        Self::S3(Box::new(error))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl S3Error {
    pub fn new(status: u16, code: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            code: code.into(),
            message: message.into(),
            details: Vec::new(),
            headers: Vec::new(),
            close: false,
        }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.details.push((name, value.into()));
        self
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn xml(&self, resource: &str, request_id: &str) -> Vec<u8> {
        let mut out = Writer::new(512);
        out.open("Error");
        out.text("Code", &self.code);
        out.text("Message", &self.message);
        for (name, value) in &self.details {
            out.text(name, value);
        }
        out.text("Resource", resource);
        out.text("RequestId", request_id);
        out.text("HostId", "local-s3");
        out.close("Error");
        out.finish()
    }

    pub fn no_such_bucket(bucket: &str) -> Self {
        Self::new(404, "NoSuchBucket", "The specified bucket does not exist").with("BucketName", bucket)
    }

    pub fn no_such_key(key: &str) -> Self {
        Self::new(404, "NoSuchKey", "The specified key does not exist.").with("Key", key)
    }

    pub fn no_such_upload(id: &str) -> Self {
        let message = "The specified upload does not exist. The upload ID may be invalid, or the upload may have been \
                       aborted or completed.";
        Self::new(404, "NoSuchUpload", message).with("UploadId", id)
    }

    pub fn invalid_argument(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(400, "InvalidArgument", message)
    }

    pub fn invalid_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(400, "InvalidRequest", message)
    }

    pub fn malformed_xml() -> Self {
        let message = "The XML you provided was not well-formed or did not validate against our published schema";
        Self::new(400, "MalformedXML", message)
    }

    pub fn access_denied() -> Self {
        Self::new(403, "AccessDenied", "Access Denied")
    }

    pub fn precondition_failed(condition: &'static str) -> Self {
        let message = "At least one of the pre-conditions you specified did not hold";
        Self::new(412, "PreconditionFailed", message).with("Condition", condition)
    }

    pub fn not_implemented(what: impl Into<String>) -> Self {
        let message = "A header or parameter you provided implies functionality that is not implemented";
        Self::new(501, "NotImplemented", message).with("Header", what)
    }

    pub fn internal(error: &dyn std::fmt::Display) -> Self {
        Self::new(500, "InternalError", format!("We encountered an internal error: {error}"))
    }
}
