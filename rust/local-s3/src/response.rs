//! Answers before they are on the wire.
use crate::error::S3Error;
use crate::faults::{Chunks, Effects};
use crate::gzip::gzip;
use crate::store::content::Piece;
use crate::store::object::Object;
use bytes::Bytes;
use std::io;
use std::sync::Arc;

/// An answer before it is put on the wire.
pub struct Response {
    pub status: u16,
    /// Lines of the head, each with its line end.
    lines: Vec<u8>,
    pub body: Body,
    /// The length to announce where it is not that of the body (HEAD).
    pub announced: Option<u64>,
    pub close: bool,
    /// S3's error code, for the log.
    pub code: Option<String>,
}

pub enum Body {
    Empty,
    Bytes(Bytes),
    Object { object: Arc<Object>, start: u64, end: u64 },
}

impl Body {
    pub fn len(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Object { start, end, .. } => end - start,
        }
    }

    /// The bytes from `at` on, as many as are at hand at once.
    pub async fn piece(&self, at: u64, scratch: &mut Vec<u8>) -> io::Result<Piece> {
        match self {
            Self::Empty => Ok(Piece::Shared(Bytes::new())),
            Self::Bytes(bytes) => Ok(Piece::Shared(bytes.slice(at as usize..))),
            Self::Object { object, start, end } => object.content.piece(start + at, *end, scratch).await,
        }
    }
}

impl Response {
    pub fn new(status: u16) -> Self {
        let lines = Vec::with_capacity(512);
        Self { status, lines, body: Body::Empty, announced: None, close: false, code: None }
    }

    pub fn xml(document: Vec<u8>) -> Self {
        let mut response = Self::new(200);
        response.header("Content-Type", "application/xml");
        response.body = Body::Bytes(document.into());
        response
    }

    pub fn error(error: &S3Error, resource: &str, request_id: &str) -> Self {
        let mut response = Self::new(error.status);
        for (name, value) in &error.headers {
            response.header(name, value);
        }
        response.code = Some(error.code.to_string());
        response.close = error.close;
        if error.status != 304 {
            response.header("Content-Type", "application/xml");
            response.body = Body::Bytes(error.xml(resource, request_id).into());
        }
        response
    }

    pub fn header(&mut self, name: &str, value: impl AsRef<str>) {
        self.lines.extend_from_slice(name.as_bytes());
        self.lines.extend_from_slice(b": ");
        // A line end in a value would start another header.
        self.lines.extend(value.as_ref().bytes().map(|b| if b == b'\r' || b == b'\n' { b' ' } else { b }));
        self.lines.extend_from_slice(b"\r\n");
    }

    /// Makes gzip of the body.
    pub async fn compress(&mut self) -> io::Result<()> {
        let bytes = match &self.body {
            Body::Empty => return Ok(()),
            Body::Bytes(bytes) => bytes.clone(),
            Body::Object { object, start, end } => {
                let segments = object.content.collect(*start, *end).await?;
                segments.iter().flat_map(|bytes| bytes.iter().copied()).collect()
            }
        };
        self.body = Body::Bytes(gzip(&bytes).into());
        self.header("Content-Encoding", "gzip");
        Ok(())
    }

    /// The chunks in which a fault wants the body. The error of a HEAD has them in its head only, as S3's has.
    pub fn chunks(&self, effects: &Effects) -> Option<Chunks> {
        effects.chunks.filter(|_| self.announced.is_none() || self.status >= 400)
    }

    /// For HEAD: the head that the body would have had, without it.
    pub fn drop_body(&mut self) {
        self.announced.get_or_insert(self.body.len());
        self.body = Body::Empty;
    }

    pub fn head(&self, effects: &Effects, date: &str, request_id: &str) -> Vec<u8> {
        let mut head = Vec::with_capacity(self.lines.len() + 256);
        head.extend_from_slice(format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status)).as_bytes());
        head.extend_from_slice(format!("x-amz-request-id: {request_id}\r\nx-amz-id-2: local-s3\r\n").as_bytes());
        head.extend_from_slice(format!("Date: {date}\r\nServer: local-s3\r\n").as_bytes());
        head.extend_from_slice(&self.lines);
        let length = self.announced.unwrap_or(self.body.len());
        if self.chunks(effects).is_some() {
            head.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        } else if !matches!(self.status, 204 | 304) {
            let length = length.saturating_add_signed(effects.length_delta);
            head.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes());
        }
        if self.close || effects.close_announced {
            head.extend_from_slice(b"Connection: close\r\n");
        }
        for (name, value) in &effects.headers {
            head = replaced(&head, name, value.as_deref());
        }
        head.extend_from_slice(b"\r\n");
        head
    }
}

/// A head without its last, empty line, in which a header has another value, or is not there.
fn replaced(head: &[u8], name: &str, value: Option<&str>) -> Vec<u8> {
    let is_other = |line: &&[u8]| {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(0);
        !line[..colon].eq_ignore_ascii_case(name.as_bytes())
    };
    let mut out = head.split_inclusive(|byte| *byte == b'\n').filter(is_other).collect::<Vec<_>>().concat();
    if let Some(value) = value {
        out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    out
}

pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        411 => "Length Required",
        412 => "Precondition Failed",
        416 => "Requested Range Not Satisfiable",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Slow Down",
        _ => "Status",
    }
}
