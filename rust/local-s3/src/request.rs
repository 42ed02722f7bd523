//! The head of a request: what was sent, and what S3 makes of it.
use crate::error::S3Error;
use bytes::Bytes;
use std::borrow::Cow;
use std::ops::Range;

/// Heads longer than this are refused, as S3 refuses more than 8 KiB of headers and 2 KiB of metadata.
pub const MAX_HEAD_BYTES: usize = 64 << 10;
const MAX_HEADERS: usize = 128;

/// The head as it came in, with the places of its parts.
#[derive(Debug)]
pub struct Request {
    head: Bytes,
    method: Range<usize>,
    path: Range<usize>,
    query: Range<usize>,
    headers: Vec<(Range<usize>, Range<usize>)>,
    pub keep_alive: bool,
}

fn span(head: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr() as usize - head.as_ptr() as usize;
    start..start + part.len()
}

/// Length of the head at the start of `input`: None while it is incomplete.
pub fn head_length(input: &[u8]) -> Result<Option<usize>, httparse::Error> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    match httparse::Request::new(&mut headers).parse(input)? {
        httparse::Status::Complete(length) => Ok(Some(length)),
        httparse::Status::Partial => Ok(None),
    }
}

impl Request {
    /// `head` holds exactly one head, as `head_length` measured it.
    pub fn parse(head: Bytes) -> Result<Self, httparse::Error> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        parsed.parse(&head)?;
        let target = parsed.path.unwrap_or("/");
        // A proxy's form of the target, "http://host/path".
        let origin = match target.split_once("://") {
            Some((_, rest)) if !target.starts_with('/') => rest.find('/').map_or("/", |at| &rest[at..]),
            _ => target,
        };
        let (path, query) = origin.split_once('?').unwrap_or((origin, &origin[origin.len()..]));
        let method = span(&head, parsed.method.unwrap_or("").as_bytes());
        // The literal "/" above is not a part of the head.
        let inside = |text: &str| if origin == "/" && target != "/" { 0..0 } else { span(&head, text.as_bytes()) };
        let (path, query) = (inside(path), inside(query));
        let http11 = parsed.version == Some(1);
        let headers: Vec<_> =
            parsed.headers.iter().map(|h| (span(&head, h.name.as_bytes()), span(&head, h.value))).collect();
        let mut request = Self { head, method, path, query, headers, keep_alive: http11 };
        if let Some(connection) = request.header("connection") {
            request.keep_alive = http11 && !connection.eq_ignore_ascii_case("close");
        }
        Ok(request)
    }

    fn text(&self, range: &Range<usize>) -> &str {
        // Values that are not UTF-8 read as empty: no S3 header may have them.
        std::str::from_utf8(&self.head[range.clone()]).unwrap_or("")
    }

    pub fn head(&self) -> &Bytes {
        &self.head
    }

    pub fn method(&self) -> &str {
        self.text(&self.method)
    }

    /// The path as sent, still percent-encoded.
    pub fn path(&self) -> &str {
        match self.text(&self.path) {
            "" => "/",
            path => path,
        }
    }

    /// The query as sent, without the question mark.
    pub fn query(&self) -> &str {
        self.text(&self.query)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| self.head[n.clone()].eq_ignore_ascii_case(name.as_bytes())).map(|(_, v)| {
            // Every character of a header outside of metadata is ASCII.
            self.text(v)
        })
    }

    /// Every header as (name as sent, value).
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(name, value)| (self.text(name), self.text(value)))
    }

    pub fn content_length(&self) -> Result<Option<u64>, S3Error> {
        self.header("content-length")
            .map(|text| text.parse().map_err(|_| S3Error::invalid_argument("Invalid Content-Length")))
            .transpose()
    }

    pub fn is_chunked(&self) -> bool {
        self.header("transfer-encoding").is_some_and(|value| value.to_ascii_lowercase().contains("chunked"))
    }

    pub fn expects_continue(&self) -> bool {
        self.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue"))
    }
}

/// Undoes percent-encoding; None for a broken escape.
pub fn percent_decode(text: &str, plus_is_space: bool) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => {
                let digits = bytes.get(at + 1..at + 3)?;
                let digit = |d: u8| (d as char).to_digit(16);
                out.push((digit(digits[0])? * 16 + digit(digits[1])?) as u8);
                at += 2;
            }
            b'+' if plus_is_space => out.push(b' '),
            byte => out.push(byte),
        }
        at += 1;
    }
    Some(out)
}

/// Whether a byte is one of RFC 3986's unreserved characters, as a table: listings ask for every byte of every key.
const UNRESERVED: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
        byte += 1;
    }
    table
};

/// Percent-encodes everything but RFC 3986's unreserved characters (and slashes, where they separate).
pub fn percent_encode_into(out: &mut Vec<u8>, bytes: &[u8], keep_slash: bool) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let is_kept = |byte: u8| UNRESERVED[usize::from(byte)] || (keep_slash && byte == b'/');
    let mut rest = bytes;
    loop {
        // Runs, because most keys are one.
        let run = rest.iter().position(|byte| !is_kept(*byte)).unwrap_or(rest.len());
        out.extend_from_slice(&rest[..run]);
        let Some(byte) = rest.get(run) else { return };
        out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        rest = &rest[run + 1..];
    }
}

pub fn percent_encode(bytes: &[u8], keep_slash: bool) -> String {
    let mut out = Vec::with_capacity(bytes.len());
    percent_encode_into(&mut out, bytes, keep_slash);
    // ASCII throughout.
    String::from_utf8(out).unwrap_or_default()
}

/// A query's parameters, decoded, in the order sent.
#[derive(Debug, Default)]
pub struct Query(pub Vec<(String, String)>);

impl Query {
    pub fn parse(query: &str) -> Result<Self, S3Error> {
        let invalid = || S3Error::new(400, "InvalidURI", "Couldn't parse the specified URI.");
        let decode = |text: &str| {
            let bytes = percent_decode(text, true).ok_or_else(invalid)?;
            String::from_utf8(bytes).map_err(|_| invalid())
        };
        let mut parameters = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            parameters.push((decode(name)?, decode(value)?));
        }
        Ok(Self(parameters))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }
}

/// Bucket and key that a request is about.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Target {
    pub bucket: String,
    pub key: String,
    pub virtual_host: bool,
}

impl Target {
    pub fn of(request: &Request, domains: &[String]) -> Result<Self, S3Error> {
        let invalid = || S3Error::new(400, "InvalidURI", "Couldn't parse the specified URI.");
        let path = percent_decode(request.path(), false).ok_or_else(invalid)?;
        let path = String::from_utf8(path).map_err(|_| invalid())?;
        let path = path.strip_prefix('/').unwrap_or(&path);
        if let Some(bucket) = request.header("host").and_then(|host| bucket_of_host(host, domains)) {
            return Ok(Self { bucket: bucket.into_owned(), key: path.to_owned(), virtual_host: true });
        }
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        Ok(Self { bucket: bucket.to_owned(), key: key.to_owned(), virtual_host: false })
    }
}

/// The bucket in a host name, for hosts under the configured domains and for Amazon's own names.
fn bucket_of_host<'a>(host: &'a str, domains: &[String]) -> Option<Cow<'a, str>> {
    let name = if host.starts_with('[') { return None } else { host.rsplit_once(':').map_or(host, |(name, _)| name) };
    let mut best: Option<&str> = None;
    for domain in domains {
        if name.eq_ignore_ascii_case(domain) {
            return None;
        }
        let Some(split) = name.len().checked_sub(domain.len() + 1) else { continue };
        let matches = name.is_char_boundary(split)
            && name.as_bytes()[split] == b'.'
            && name[split + 1..].eq_ignore_ascii_case(domain);
        // The longest domain leaves the shortest bucket name.
        if matches && best.is_none_or(|bucket| split < bucket.len()) {
            best = Some(&name[..split]);
        }
    }
    if best.is_none() && name.ends_with(".amazonaws.com") {
        let at = name.find(".s3.").or_else(|| name.find(".s3-")).filter(|_| !name.starts_with("s3."))?;
        best = Some(&name[..at]);
    }
    // "b.s3.us-west-2.localhost" under the domain "localhost".
    if let Some(name) = best {
        if name.starts_with("s3.") {
            return None;
        }
        best = Some(name.find(".s3.").map_or(name, |at| &name[..at]));
    }
    best.map(|bucket| {
        if bucket.contains(|c: char| c.is_ascii_uppercase()) { bucket.to_lowercase().into() } else { bucket.into() }
    })
}

/// The bytes that a `Range` header asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    Whole,
    Part { start: u64, end: u64 },
    Unsatisfiable,
}

impl ByteRange {
    /// Reads `bytes=a-b`, `bytes=a-` and `bytes=-n`. Anything else asks for the whole, as RFC 9110 has it.
    pub fn parse(header: Option<&str>, size: u64) -> Self {
        let Some(spec) = header.and_then(|h| h.trim().strip_prefix("bytes=")) else { return Self::Whole };
        let Some((first, last)) = spec.split_once('-') else { return Self::Whole };
        let number = |text: &str| text.trim().parse::<u64>().ok();
        match (first.trim(), last.trim()) {
            ("", last) => match number(last) {
                Some(0) => Self::Unsatisfiable,
                Some(_) if size == 0 => Self::Unsatisfiable,
                Some(length) => Self::Part { start: size.saturating_sub(length), end: size },
                None => Self::Whole,
            },
            (first, last) => {
                let Some(start) = number(first) else { return Self::Whole };
                let end =
                    if last.is_empty() { Some(size) } else { number(last).map(|l| l.saturating_add(1).min(size)) };
                match end {
                    None => Self::Whole,
                    _ if number(last).is_some_and(|last| last < start) => Self::Whole,
                    Some(_) if start >= size => Self::Unsatisfiable,
                    Some(end) => Self::Part { start, end },
                }
            }
        }
    }
}

impl ByteRange {
    /// A range that begins and ends so much later, as far as the object goes.
    pub fn shifted(self, delta: i64, size: u64) -> Self {
        let Self::Part { start, end } = self else { return self };
        let (start, end) = (start.saturating_add_signed(delta), end.saturating_add_signed(delta).min(size));
        if start < end { Self::Part { start, end } } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(head: &str) -> Request {
        Request::parse(Bytes::from(head.replace('\n', "\r\n") + "\r\n")).unwrap()
    }

    fn target(head: &str) -> Target {
        Target::of(&request(head), &["s3.localhost".to_owned(), "localhost".to_owned()]).unwrap()
    }

    #[test]
    fn path_style_and_virtual_hosts() {
        let path = target("GET /b/a%2Fb//c%20d+e?x HTTP/1.1\nHost: 127.0.0.1:9000\n");
        assert_eq!((path.bucket.as_str(), path.key.as_str()), ("b", "a/b//c d+e"));
        for host in [
            "my.bucket.s3.eu-west-1.localhost",
            "my.bucket.localhost:80",
            "my.bucket.s3.localhost",
            "my.bucket.s3.us-west-2.amazonaws.com",
        ] {
            let virtual_host = target(&format!("GET //k HTTP/1.1\nHost: {host}\n"));
            assert_eq!((virtual_host.bucket.as_str(), virtual_host.key.as_str()), ("my.bucket", "/k"), "{host}");
        }
        for host in ["localhost", "s3.eu-west-1.localhost", "s3.localhost:1", "[::1]:80", "s3.us-west-2.amazonaws.com"]
        {
            assert_eq!(target(&format!("GET /b/k HTTP/1.1\nHost: {host}\n")).bucket, "b", "{host}");
        }
    }

    #[test]
    fn absolute_targets() {
        assert_eq!(target("GET http://localhost/b/k HTTP/1.1\nHost: localhost\n").key, "k");
        assert_eq!(request("GET http://localhost HTTP/1.1\nHost: localhost\n").path(), "/");
    }

    #[test]
    fn ranges() {
        let parse = |text| ByteRange::parse(Some(text), 10);
        assert_eq!(parse("bytes=0-0"), ByteRange::Part { start: 0, end: 1 });
        assert_eq!(parse("bytes=3-"), ByteRange::Part { start: 3, end: 10 });
        assert_eq!(parse("bytes=3-99"), ByteRange::Part { start: 3, end: 10 });
        assert_eq!(parse("bytes=-4"), ByteRange::Part { start: 6, end: 10 });
        assert_eq!(parse("bytes=-40"), ByteRange::Part { start: 0, end: 10 });
        assert_eq!(parse("bytes=10-"), ByteRange::Unsatisfiable);
        assert_eq!(parse("bytes=-0"), ByteRange::Unsatisfiable);
        assert_eq!(parse("bytes=5-4"), ByteRange::Whole);
        assert_eq!(parse("lines=1-2"), ByteRange::Whole);
        assert_eq!(ByteRange::parse(Some("bytes=0-4"), 0), ByteRange::Unsatisfiable);
        assert_eq!(ByteRange::parse(None, 10), ByteRange::Whole);
    }

    #[test]
    fn broken_escapes_are_refused() {
        assert!(percent_decode("%4", false).is_none());
        assert!(percent_decode("%zz", false).is_none());
        assert!(Query::parse("a=%ff").is_err());
    }
}
