//! The head of a response: httparse reads it, this keeps what requests need.
use crate::checksum::Algorithm;
use crate::date::parse_http_date;
use crate::failure::Fault;

pub const MAX_HEADERS: usize = 96;

/// How the length of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    Fixed(u64),
    Chunked,
    UntilClose,
}

/// What requests need of a response's head; the rest stays raw.
#[derive(Debug)]
pub struct Head {
    pub status: u16,
    pub length: Length,
    /// As the header says, also where there is no body (HEAD).
    pub content_length: Option<u64>,
    pub keep_alive: bool,
    pub etag: String,
    pub content_range: Option<ContentRange>,
    pub last_modified: Option<i64>,
    pub request_id: String,
    pub host_id: String,
    pub region: String,
    pub date: Option<i64>,
    pub retry_after_s: Option<f64>,
    /// Of the full object, in base64.
    pub checksum: Option<(Algorithm, String)>,
    pub raw: Box<[u8]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// First and last byte; None where the range could not be satisfied.
    pub range: Option<(u64, u64)>,
    pub total: Option<u64>,
}

/// -> (its length, the head), or None when it is not complete yet.
pub fn parse_head(bytes: &[u8], is_head: bool) -> Result<Option<(usize, Head)>, Fault> {
    let mut headers = [const { std::mem::MaybeUninit::uninit() }; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut []);
    let parsed =
        httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut response, bytes, &mut headers);
    let len = match parsed.map_err(|e| Fault::transport(format_args!("this is no HTTP/1.1 response: {e}")))? {
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete(len) => len,
    };
    let status = response.code.unwrap_or(0);
    let mut head = Head {
        status,
        length: Length::UntilClose,
        content_length: None,
        keep_alive: response.version == Some(1),
        etag: String::new(),
        content_range: None,
        last_modified: None,
        request_id: String::new(),
        host_id: String::new(),
        region: String::new(),
        date: None,
        retry_after_s: None,
        checksum: None,
        raw: bytes[..len].into(),
    };
    let (mut fixed, mut chunked, mut composite, mut retry_at) = (None, false, false, None);
    for header in response.headers.iter() {
        let value = std::str::from_utf8(header.value).unwrap_or_default().trim();
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        match header.name.len() {
            4 if is("etag") => head.etag = value.to_owned(),
            4 if is("date") => head.date = parse_http_date(value),
            10 if is("connection") => {
                let has = |token: &str| value.split(',').any(|t| t.trim().eq_ignore_ascii_case(token));
                head.keep_alive = has("keep-alive") || head.keep_alive && !has("close");
            }
            10 if is("x-amz-id-2") => head.host_id = value.to_owned(),
            11 if is("retry-after") => {
                head.retry_after_s = value.parse::<f64>().ok().filter(|s| s.is_finite() && *s >= 0.0);
                retry_at = parse_http_date(value);
            }
            13 if is("content-range") => head.content_range = parse_content_range(value),
            13 if is("last-modified") => head.last_modified = parse_http_date(value),
            14 if is("content-length") => {
                let digits = value.bytes().all(|b| b.is_ascii_digit()); // "+1" would be a number, too
                let n = value.parse().ok().filter(|_| digits);
                let n: u64 = n.ok_or_else(|| Fault::transport("a broken Content-Length"))?;
                if fixed.is_some_and(|other| other != n) {
                    return Err(Fault::transport("two different Content-Lengths"));
                }
                fixed = Some(n);
            }
            16 if is("x-amz-request-id") => head.request_id = value.to_owned(),
            17 if is("transfer-encoding") => {
                if chunked || !value.eq_ignore_ascii_case("chunked") {
                    return Err(Fault::transport(format_args!("a body in Transfer-Encoding {:.40?}, unasked", value)));
                }
                chunked = true;
            }
            19 if is("x-amz-bucket-region") => head.region = value.to_owned(),
            19 if is("x-amz-checksum-type") => composite = value.eq_ignore_ascii_case("COMPOSITE"),
            20..=24 => {
                if let Some(algorithm) = Algorithm::ALL.into_iter().find(|a| is(a.header())) {
                    composite |= value.contains('-'); // "value-parts", and no base64
                    head.checksum.get_or_insert_with(|| (algorithm, value.to_owned()));
                }
            }
            _ => (),
        }
    }
    head.checksum = head.checksum.take_if(|_| !composite);
    if let (Some(at), Some(now)) = (retry_at, head.date) {
        head.retry_after_s = Some((at - now).max(0) as f64); // by its own clock
    }
    head.content_length = fixed;
    head.length = match (chunked, fixed) {
        _ if is_head || status == 204 || status == 304 || status / 100 == 1 => Length::Fixed(0),
        (true, _) => Length::Chunked,
        (false, Some(n)) => Length::Fixed(n),
        (false, None) => Length::UntilClose,
    };
    // Where both are told, somebody on the way may have gone by the other one.
    head.keep_alive &= head.length != Length::UntilClose && !(chunked && fixed.is_some());
    Ok(Some((len, head)))
}

/// "bytes 0-99/1000", "bytes 0-99/*", "bytes */1000"
fn parse_content_range(value: &str) -> Option<ContentRange> {
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let total = total.trim().parse().ok();
    if range.trim() == "*" {
        return Some(ContentRange { range: None, total });
    }
    let (first, last) = range.split_once('-')?;
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    // No object is so large that the end of its last byte is no number.
    (first <= last && last < u64::MAX).then_some(ContentRange { range: Some((first, last)), total })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Head {
        parse_head(text.as_bytes(), false).unwrap().unwrap().1
    }

    #[test]
    fn reads_what_requests_need() {
        let h = head(
            "HTTP/1.1 206 Partial Content\r\nContent-Length: 10\r\nETag: \"abc\"\r\ncontent-range: bytes 5-14/100\r\n\
             x-amz-request-id: R1\r\nLast-Modified: Wed, 12 Oct 2009 17:50:00 GMT\r\nConnection: keep-alive\r\n\r\n",
        );
        assert_eq!((h.status, h.length, h.keep_alive), (206, Length::Fixed(10), true));
        assert_eq!((h.etag.as_str(), h.request_id.as_str()), ("\"abc\"", "R1"));
        assert_eq!(h.content_range, Some(ContentRange { range: Some((5, 14)), total: Some(100) }));
    }

    #[test]
    fn checksums_of_parts_are_none() {
        let value = |lines: &str| head(&format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{lines}\r\n")).checksum;
        let full = "X-Amz-Checksum-Crc64nvme: AAAAAAAAAAA=\r\n";
        assert_eq!(value(full), Some((Algorithm::Crc64Nvme, "AAAAAAAAAAA=".to_owned())));
        assert_eq!(value("x-amz-checksum-crc32: AAAAAA==\r\n").unwrap().0, Algorithm::Crc32);
        assert_eq!(value("x-amz-checksum-crc32c: AAAAAA==-3\r\n"), None);
        assert_eq!(value(&format!("x-amz-checksum-type: COMPOSITE\r\n{full}")), None);
        assert_eq!(value("x-amz-checksum-sha256: x\r\n"), None);
    }

    #[test]
    fn framing_follows_the_standard() {
        assert_eq!(
            head("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n").length,
            Length::Chunked
        );
        assert!(!head("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n").keep_alive);
        assert_eq!(head("HTTP/1.1 204 No Content\r\n\r\n").length, Length::Fixed(0));
        let closing = head("HTTP/1.1 200 OK\r\n\r\n");
        assert_eq!((closing.length, closing.keep_alive), (Length::UntilClose, false));
        assert!(!head("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: Close\r\n\r\n").keep_alive);
        assert!(!head("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n").keep_alive);
    }

    #[test]
    fn a_time_to_come_back_is_a_number_or_a_date() {
        let after = |text: &str| head(&format!("HTTP/1.1 503 Slow Down\r\n{text}\r\n\r\n")).retry_after_s;
        assert_eq!(after("Retry-After: 1.5"), Some(1.5));
        let date = "Date: Wed, 12 Oct 2009 17:50:00 GMT\r\nRetry-After: Wed, 12 Oct 2009 17:50:";
        assert_eq!(after(&format!("{date}07 GMT")), Some(7.0));
        assert_eq!(after("Retry-After: Wed, 12 Oct 2009 17:50:00 GMT"), None);
        assert_eq!(after("Retry-After: -1"), None);
    }

    #[test]
    fn refuses_what_is_broken() {
        for text in [
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        ] {
            assert!(parse_head(text.as_bytes(), false).is_err(), "{text}");
        }
        assert!(parse_head(b"HTTP/1.1 200 OK\r\nContent-Le", false).unwrap().is_none());
        assert_eq!(parse_content_range("bytes 9-3/10"), None);
        assert_eq!(parse_content_range("bytes 0-18446744073709551615/*"), None);
        assert_eq!(parse_content_range("bytes */7"), Some(ContentRange { range: None, total: Some(7) }));
    }
}
