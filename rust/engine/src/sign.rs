//! AWS Signature Version 4 for S3, in headers.
//!
//! Source: "Authenticating Requests: Using the Authorization Header (AWS Signature Version 4)" of the
//! Amazon S3 API reference. S3 differs from other services: the path is encoded once and never
//! normalised, and the payload's hash travels as a header.

use std::cmp::Ordering;
use std::fmt;

use ring::{digest, hmac};

use crate::date::amz_date;

/// What signs a request. `Debug` shows no more than the beginning of the access key.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub access_key: String,
    pub secret_key: String,
    pub session_token: Option<String>,
    /// Of a session with a directory bucket: the token then travels in a header of its own.
    pub of_session: bool,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The first four letters tell a role's keys (ASIA) from a user's (AKIA), which is what one looks for in a log.
        let shown = if self.access_key.len() >= 16 { self.access_key.get(..4).unwrap_or_default() } else { "" };
        formatter
            .debug_struct("Credentials")
            .field("access_key", &format_args!("{shown}***"))
            .field("secret_key", &format_args!("***"))
            .field("session_token", &self.session_token.as_ref().map(|_| format_args!("***")))
            .finish()
    }
}

/// What `x-amz-content-sha256` says of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// The body is not covered by the signature; TLS and checksums protect it.
    Unsigned,
    /// There is no body.
    Empty,
    /// The lower-case hexadecimal SHA-256 of the body.
    Sha256Hex(&'a str),
}

impl Payload<'_> {
    const EMPTY: &'static str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn as_str(&self) -> &str {
        match self {
            Self::Unsigned => "UNSIGNED-PAYLOAD",
            Self::Empty => Self::EMPTY,
            Self::Sha256Hex(hash) => hash,
        }
    }
}

const ALGORITHM: &[u8] = b"AWS4-HMAC-SHA256";
const SCOPE_END: &[u8] = b"aws4_request";

/// Headers that are sorted on the stack; more than these cost an allocation.
const FIELDS_ON_STACK: usize = 20;

/// Signs requests, keeping the day's signing key and its buffers from one to the next.
///
/// A signature then costs one hash of the request and one HMAC. Not to be shared between threads:
/// each has its own. It remembers one key, so a signer per bucket pays where sessions differ by bucket.
pub struct Signer {
    key: Option<DayKey>,
    canonical: Vec<u8>,
    signed_names: Vec<u8>,
}

impl Default for Signer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Signer").finish_non_exhaustive()
    }
}

impl Signer {
    pub const fn new() -> Self {
        Self { key: None, canonical: Vec::new(), signed_names: Vec::new() }
    }

    /// Appends the header lines that authorise one request to `out`, each ended by CR LF:
    /// `x-amz-date`, `x-amz-content-sha256`, the session token if there is one, `authorization`.
    ///
    /// * `service` is `s3`, or `s3express`, `s3-outposts`.
    /// * `epoch_s` is the server's time as far as it is known, in seconds since 1970.
    /// * `path` and `query` are what stands in the request line, already encoded: the path by
    ///   [`encode_key`], the query by [`canonical_query`]. An empty path is `/`.
    /// * `headers` are further headers to sign, names in lower case, in any order. Of a name given
    ///   twice the values are signed joined by commas, as they arrive. White space around and
    ///   inside the values is signed as the algorithm wants it, whatever is sent.
    ///
    /// Neither names nor values may contain line breaks; they are taken as they are.
    #[expect(clippy::too_many_arguments, reason = "the parts of a request as its encoder has them at hand")]
    pub fn sign(
        &mut self,
        credentials: &Credentials,
        region: &str,
        service: &str,
        epoch_s: u64,
        method: &str,
        host: &str,
        path: &str,
        query: &str,
        headers: &[(&str, &str)],
        payload: Payload<'_>,
        out: &mut Vec<u8>,
    ) {
        let mut date = [0; 16];
        amz_date(epoch_s, &mut date);
        let day = &date[..8];
        let content_hash = payload.as_str();
        let token_name = if credentials.of_session { "x-amz-s3session-token" } else { "x-amz-security-token" };
        let token = credentials.session_token.as_deref();

        self.canonical_request(
            method,
            path,
            query,
            headers,
            &[
                ("host".as_bytes(), host.as_bytes()),
                (b"x-amz-content-sha256", content_hash.as_bytes()),
                (b"x-amz-date", &date),
                (token_name.as_bytes(), token.unwrap_or_default().as_bytes()),
            ][..if token.is_some() { 4 } else { 3 }],
            content_hash,
        );
        let request_hash = digest::digest(&digest::SHA256, &self.canonical);

        let to_sign = &mut self.canonical;
        to_sign.clear();
        concat(to_sign, &[ALGORITHM, b"\n", &date, b"\n"]);
        put_scope(to_sign, day, region, service);
        to_sign.push(b'\n');
        put_hex(to_sign, request_hash.as_ref());
        let key = DayKey::current(&mut self.key, &credentials.secret_key, day, region, service);
        let signature = hmac::sign(key, to_sign);

        concat(out, &[b"x-amz-date: ", &date, b"\r\nx-amz-content-sha256: ", content_hash.as_bytes(), b"\r\n"]);
        if let Some(token) = token {
            concat(out, &[token_name.as_bytes(), b": ", token.as_bytes(), b"\r\n"]);
        }
        concat(out, &[AUTHORIZATION, ALGORITHM, b" Credential=", credentials.access_key.as_bytes(), b"/"]);
        put_scope(out, day, region, service);
        concat(out, &[b", SignedHeaders=", &self.signed_names, b", Signature="]);
        put_hex(out, signature.as_ref());
        out.extend_from_slice(b"\r\n");
    }

    /// Leaves the canonical request in `canonical` and the list of signed headers in `signed_names`.
    fn canonical_request(
        &mut self,
        method: &str,
        path: &str,
        query: &str,
        headers: &[(&str, &str)],
        own: &[(&[u8], &[u8])],
        content_hash: &str,
    ) {
        let count = headers.len() + own.len();
        let mut on_stack = [(&b""[..], &b""[..]); FIELDS_ON_STACK];
        let mut on_heap;
        let fields = if count <= FIELDS_ON_STACK {
            &mut on_stack[..count]
        } else {
            on_heap = vec![(&b""[..], &b""[..]); count];
            &mut on_heap[..]
        };
        fields[..own.len()].copy_from_slice(own);
        for (field, (name, value)) in fields[own.len()..].iter_mut().zip(headers) {
            *field = (name.as_bytes(), value.as_bytes());
        }
        // Stable: values of one name keep their order.
        fields.sort_by(|one, other| one.0.cmp(other.0));

        let canonical = &mut self.canonical;
        let names = &mut self.signed_names;
        canonical.clear();
        names.clear();
        let path = if path.is_empty() { "/" } else { path };
        concat(canonical, &[method.as_bytes(), b"\n", path.as_bytes(), b"\n", query.as_bytes(), b"\n"]);
        let mut previous: &[u8] = b"";
        for (name, value) in fields.iter() {
            if *name == previous {
                canonical.pop();
                canonical.push(b',');
            } else {
                if !names.is_empty() {
                    names.push(b';');
                }
                names.extend_from_slice(name);
                concat(canonical, &[name, b":"]);
                previous = name;
            }
            put_trimmed(canonical, value);
            canonical.push(b'\n');
        }
        concat(canonical, &[b"\n", names, b"\n", content_hash.as_bytes()]);
    }
}

const AUTHORIZATION: &[u8] = b"authorization: ";

/// The value of the `authorization` header alone; arguments as for [`Signer::sign`]. For tests and tools.
#[expect(clippy::too_many_arguments, reason = "those of Signer::sign")]
pub fn authorization(
    credentials: &Credentials,
    region: &str,
    service: &str,
    epoch_s: u64,
    method: &str,
    host: &str,
    path: &str,
    query: &str,
    headers: &[(&str, &str)],
    payload: Payload<'_>,
) -> String {
    let mut lines = Vec::new();
    Signer::new().sign(credentials, region, service, epoch_s, method, host, path, query, headers, payload, &mut lines);
    // It is the last line, and a session token before it cannot contain a line break.
    let lines = String::from_utf8_lossy(&lines);
    let last = lines.trim_end().rsplit("\r\n").next().unwrap_or_default();
    last.strip_prefix("authorization: ").unwrap_or_default().to_owned()
}

/// The lower-case hexadecimal SHA-256 for [`Payload::Sha256Hex`].
pub fn sha256_hex(data: &[u8]) -> String {
    let mut hex = Vec::with_capacity(64);
    put_hex(&mut hex, digest::digest(&digest::SHA256, data).as_ref());
    hex.into_iter().map(char::from).collect()
}

/// The signing key of one day, and what it was derived from.
struct DayKey {
    secret: String,
    day: [u8; 8],
    region: String,
    service: String,
    key: hmac::Key,
}

impl DayKey {
    fn current<'k>(slot: &'k mut Option<Self>, secret: &str, day: &[u8], region: &str, service: &str) -> &'k hmac::Key {
        let stale = |held: &mut Self| {
            held.day != day || held.region != region || held.service != service || held.secret != secret
        };
        drop(slot.take_if(stale));
        &slot.get_or_insert_with(|| Self::derive(secret, day, region, service)).key
    }

    fn derive(secret: &str, day: &[u8], region: &str, service: &str) -> Self {
        let mut key = hmac::Key::new(hmac::HMAC_SHA256, format!("AWS4{secret}").as_bytes());
        for step in [day, region.as_bytes(), service.as_bytes(), SCOPE_END] {
            key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, step).as_ref());
        }
        let mut held_day = [0; 8];
        held_day.copy_from_slice(day);
        Self { secret: secret.to_owned(), day: held_day, region: region.to_owned(), service: service.to_owned(), key }
    }
}

#[inline]
fn concat(out: &mut Vec<u8>, pieces: &[&[u8]]) {
    for piece in pieces {
        out.extend_from_slice(piece);
    }
}

fn put_scope(out: &mut Vec<u8>, day: &[u8], region: &str, service: &str) {
    concat(out, &[day, b"/", region.as_bytes(), b"/", service.as_bytes(), b"/", SCOPE_END]);
}

fn put_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

/// Appends a header's value without white space at its ends, and with one space for each run of it inside.
fn put_trimmed(out: &mut Vec<u8>, value: &[u8]) {
    let is_space = |byte: u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let plain = value.first().is_none_or(|&byte| !is_space(byte))
        && value.last().is_none_or(|&byte| !is_space(byte))
        && !value.iter().any(|byte| matches!(byte, b'\t'..=b'\r'))
        && !value.windows(2).any(|pair| pair == b"  ");
    if plain {
        out.extend_from_slice(value);
        return;
    }
    for (index, word) in value.split(|&byte| is_space(byte)).filter(|word| !word.is_empty()).enumerate() {
        if index > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(word);
    }
}

const UPPER_HEX: &[u8; 16] = b"0123456789ABCDEF";

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// The bytes of `text` percent-encoded, one by one.
fn encoded(text: &str, keep_slash: bool) -> impl Iterator<Item = u8> + '_ {
    text.bytes().flat_map(move |byte| {
        let (bytes, len) = if is_unreserved(byte) || (keep_slash && byte == b'/') {
            ([byte, 0, 0], 1)
        } else {
            ([b'%', UPPER_HEX[usize::from(byte >> 4)], UPPER_HEX[usize::from(byte & 15)]], 3)
        };
        bytes.into_iter().take(len)
    })
}

fn encode(text: &str, keep_slash: bool, out: &mut String) {
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|byte| !(is_unreserved(byte) || keep_slash && byte == b'/')) {
        let (plain, tail) = rest.split_at(at);
        out.push_str(plain);
        let special = tail.bytes().take_while(|byte| !is_unreserved(*byte) && *byte != b'/').count().max(1);
        // Between two ASCII characters, so at a character's border.
        let (special, tail) = tail.split_at(special);
        out.extend(encoded(special, keep_slash).map(char::from));
        rest = tail;
    }
    out.push_str(rest);
}

/// Appends an object's key as S3 wants it in a path: all but `A-Za-z0-9-._~/` percent-encoded in upper case.
///
/// Nothing is normalised: `a//b` and `a/../b` are keys of their own.
pub fn encode_key(key: &str, out: &mut String) {
    encode(key, true, out);
}

/// Appends a name or value of a query string: as [`encode_key`], and `/` is encoded as well.
pub fn encode_query_value(value: &str, out: &mut String) {
    encode(value, false, out);
}

/// The canonical query string of these pairs, to be sent exactly so. Sorts the pairs on the way.
///
/// The order is that of the encoded text, which is not that of the text: `[` comes before `A`.
pub fn canonical_query(pairs: &mut [(&str, &str)]) -> String {
    pairs.sort_by(|one, other| match encoded(one.0, false).cmp(encoded(other.0, false)) {
        Ordering::Equal => encoded(one.1, false).cmp(encoded(other.1, false)),
        unequal => unequal,
    });
    let mut query = String::with_capacity(pairs.iter().map(|(name, value)| name.len() + value.len() + 2).sum());
    for (index, (name, value)) in pairs.iter().enumerate() {
        if index > 0 {
            query.push('&');
        }
        encode_query_value(name, &mut query);
        query.push('=');
        encode_query_value(value, &mut query);
    }
    query
}

#[cfg(test)]
mod tests;
