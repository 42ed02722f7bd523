//! Signature Version 4: who sent a request, and whether it is what was signed.
use crate::checksum::hex;
use crate::config::{Config, Credential};
use crate::date::Timestamp;
use crate::error::S3Error;
use crate::request::{Request, percent_decode, percent_encode};
use ring::{digest, hmac};
use std::cell::RefCell;
use std::collections::HashMap;

/// What the signature of a request leaves for its body.
#[derive(Clone)]
pub struct Signed {
    pub region: String,
    key: hmac::Key,
    date: String,
    scope: String,
    signature: String,
}

/// Who sent a request.
pub enum Sender {
    Anonymous,
    Known(Box<Signed>),
}

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hmac(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

thread_local! {
    /// Signing keys by secret and scope: making one takes four HMACs, and there is one a day and region.
    static KEYS: RefCell<HashMap<(String, String), hmac::Key>> = RefCell::default();
}

fn signing_key(secret: &str, scope: &str) -> hmac::Key {
    KEYS.with_borrow_mut(|keys| {
        if let Some(key) = keys.get(&(secret.to_owned(), scope.to_owned())) {
            return key.clone();
        }
        let mut secret_bytes = format!("AWS4{secret}").into_bytes();
        for part in scope.split('/') {
            secret_bytes = hmac(&secret_bytes, part).as_ref().to_vec();
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret_bytes);
        // A client that makes scopes up must not fill the memory.
        if keys.len() > 1000 {
            keys.clear();
        }
        keys.insert((secret.to_owned(), scope.to_owned()), key.clone());
        key
    })
}

fn malformed(message: &str) -> S3Error {
    S3Error::new(400, "AuthorizationHeaderMalformed", format!("The authorization header is malformed; {message}"))
}

/// Finds out who sent a request. `body_is_signed` is the value of `x-amz-content-sha256`.
pub fn authenticate(
    request: &Request,
    config: &Config,
    credentials: &[Credential],
    now: Timestamp,
) -> Result<Sender, S3Error> {
    let Some(header) = request.header("authorization") else {
        if request.query().contains("X-Amz-Signature=") {
            return Err(S3Error::not_implemented("presigned requests"));
        }
        return Ok(Sender::Anonymous);
    };
    let Some(fields) = header.strip_prefix(ALGORITHM) else {
        let message = "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.";
        return Err(S3Error::invalid_request(message));
    };
    let field = |name: &str| {
        let value = fields.split(',').find_map(|f| f.trim().strip_prefix(name)?.strip_prefix('='));
        value.ok_or_else(|| malformed(&format!("{name} is missing.")))
    };
    let (credential, signed_headers, signature) = (field("Credential")?, field("SignedHeaders")?, field("Signature")?);
    let (access_key, scope) = credential.split_once('/').ok_or_else(|| malformed("the credential has no scope."))?;
    let [day, region, service, "aws4_request"] = scope.split('/').collect::<Vec<_>>()[..] else {
        return Err(malformed("the credential scope must be date/region/service/aws4_request."));
    };
    if service != "s3" && service != "s3express" {
        return Err(malformed(&format!("incorrect service {service:?}. This endpoint belongs to \"s3\".")));
    }
    let known = credentials.iter().find(|c| c.access_key == access_key).ok_or_else(|| {
        let message = "The AWS Access Key Id you provided does not exist in our records.";
        S3Error::new(403, "InvalidAccessKeyId", message).with("AWSAccessKeyId", access_key)
    })?;
    let date = request.header("x-amz-date").unwrap_or("");
    let sent = Timestamp::parse_basic(date).ok_or_else(|| {
        S3Error::new(403, "AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")
    })?;
    if !date.starts_with(day) {
        return Err(malformed("the date of the credential is not that of the request."));
    }
    if (sent.seconds - now.seconds).abs() > config.max_skew_s {
        let message = "The difference between the request time and the current time is too large.";
        let error = S3Error::new(403, "RequestTimeTooSkewed", message).with("RequestTime", date);
        return Err(error
            .with("ServerTime", now.iso())
            .with("MaxAllowedSkewMilliseconds", (config.max_skew_s * 1000).to_string()));
    }
    let key = signing_key(&known.secret_key, scope);
    if config.check_signatures {
        check(request, &key, date, scope, signed_headers, signature)?;
    }
    check_token(request, known)?;
    Ok(Sender::Known(Box::new(Signed {
        region: region.to_owned(),
        key,
        date: date.to_owned(),
        scope: scope.to_owned(),
        signature: signature.to_owned(),
    })))
}

fn check_token(request: &Request, known: &Credential) -> Result<(), S3Error> {
    if known.expired {
        return Err(S3Error::new(400, "ExpiredToken", "The provided token has expired."));
    }
    match (&known.session_token, request.header("x-amz-security-token")) {
        (Some(token), Some(sent)) if token == sent => Ok(()),
        (None, None) => Ok(()),
        _ => Err(S3Error::new(400, "InvalidToken", "The provided token is malformed or otherwise invalid.")),
    }
}

fn check(
    request: &Request,
    key: &hmac::Key,
    date: &str,
    scope: &str,
    signed_headers: &str,
    signature: &str,
) -> Result<(), S3Error> {
    let names: Vec<&str> = signed_headers.split(';').collect();
    let is_signed = |name: &str| names.contains(&name);
    let unsigned = request.headers().map(|(name, _)| name.to_ascii_lowercase());
    let unsigned = unsigned.into_iter().find(|n| (n == "host" || n.starts_with("x-amz-")) && !is_signed(n));
    if let Some(name) = unsigned {
        let message = "There were headers present in the request which were not signed";
        return Err(S3Error::new(403, "AccessDenied", message).with("HeadersNotSigned", name));
    }
    let payload = request
        .header("x-amz-content-sha256")
        .ok_or_else(|| S3Error::invalid_request("Missing required header for this request: x-amz-content-sha256"))?;
    let canonical = canonical_request(request, &names, signed_headers, payload);
    let text = format!("{ALGORITHM}\n{date}\n{scope}\n{}", sha256_hex(canonical.as_bytes()));
    if verify(key, &text, signature) {
        return Ok(());
    }
    let message = "The request signature we calculated does not match the signature you provided. Check your key and \
                   signing method.";
    let error = S3Error::new(403, "SignatureDoesNotMatch", message).with("StringToSign", text);
    Err(error.with("CanonicalRequest", canonical).with("SignatureProvided", signature))
}

fn verify(key: &hmac::Key, text: &str, signature: &str) -> bool {
    hex(hmac::sign(key, text.as_bytes()).as_ref()) == signature
}

fn canonical_request(request: &Request, names: &[&str], signed_headers: &str, payload: &str) -> String {
    let mut out = String::with_capacity(1024);
    out.push_str(request.method());
    out.push('\n');
    // S3 encodes the decoded path once, whichever way it was sent.
    let path = percent_decode(request.path(), false).unwrap_or_default();
    out.push_str(&percent_encode(&path, true));
    out.push('\n');
    let encode = |text: &str| percent_encode(&percent_decode(text, true).unwrap_or_default(), false);
    let mut pairs: Vec<(String, String)> = request
        .query()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (encode(name), encode(value)))
        .collect();
    pairs.sort();
    let pairs: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    out.push_str(&pairs.join("&"));
    out.push('\n');
    for name in names {
        let values: Vec<String> = request
            .headers()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        out.push_str(name);
        out.push(':');
        out.push_str(&values.join(","));
        out.push('\n');
    }
    out.push('\n');
    out.push_str(signed_headers);
    out.push('\n');
    out.push_str(payload);
    out
}

/// Checks the signatures of an aws-chunked body, each of which covers the one before.
pub struct ChunkSignatures {
    signed: Signed,
    previous: String,
    hasher: digest::Context,
}

impl ChunkSignatures {
    pub fn new(signed: Signed) -> Self {
        let previous = signed.signature.clone();
        Self { signed, previous, hasher: digest::Context::new(&digest::SHA256) }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// At the end of a chunk; the signature came before its bytes.
    pub fn end_chunk(&mut self, signature: &str) -> bool {
        let hasher = std::mem::replace(&mut self.hasher, digest::Context::new(&digest::SHA256));
        let chunk = hex(hasher.finish().as_ref());
        self.check("AWS4-HMAC-SHA256-PAYLOAD", &format!("{}\n{chunk}", sha256_hex(b"")), signature)
    }

    /// `trailers` is every trailing header as `name:value\n`.
    pub fn end_trailers(&mut self, trailers: &str, signature: &str) -> bool {
        self.check("AWS4-HMAC-SHA256-TRAILER", &sha256_hex(trailers.as_bytes()), signature)
    }

    fn check(&mut self, algorithm: &str, rest: &str, signature: &str) -> bool {
        let Signed { date, scope, key, .. } = &self.signed;
        let text = format!("{algorithm}\n{date}\n{scope}\n{}\n{rest}", self.previous);
        let matches = verify(key, &text, signature);
        self.previous = signature.to_owned();
        matches
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    // The example "GET Object" of Amazon S3's documentation of Signature Version 4.
    const HEAD: &str = "GET /test.txt HTTP/1.1\r\nHost: examplebucket.s3.amazonaws.com\r\nRange: bytes=0-9\r\n\
        x-amz-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\r\n\
        x-amz-date: 20130524T000000Z\r\nAuthorization: AWS4-HMAC-SHA256 \
        Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
        SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,\
        Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41\r\n\r\n";

    fn code(head: &str, now: &str) -> Option<String> {
        let request = Request::parse(Bytes::copy_from_slice(head.as_bytes())).unwrap();
        let credential = Credential {
            access_key: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: None,
            expired: false,
        };
        let now = Timestamp::parse_basic(now).unwrap();
        let sender = authenticate(&request, &Config::default(), &[credential], now);
        sender.err().map(|error| error.code.into_owned())
    }

    #[test]
    fn the_documented_example_passes() {
        assert_eq!(code(HEAD, "20130524T000500Z"), None);
    }

    #[test]
    fn what_was_changed_or_is_late_is_refused() {
        let refused = |from: &str, to: &str| code(&HEAD.replace(from, to), "20130524T000500Z").unwrap();
        assert_eq!(code(HEAD, "20130524T001501Z").unwrap(), "RequestTimeTooSkewed");
        assert_eq!(refused("bytes=0-9", "bytes=0-8"), "SignatureDoesNotMatch");
        assert_eq!(refused("/test.txt", "/test.txt?x"), "SignatureDoesNotMatch");
        assert_eq!(refused("AKIA", "AKIB"), "InvalidAccessKeyId");
        assert_eq!(refused("Range:", "x-amz-request-payer: requester\r\nRange:"), "AccessDenied");
        assert_eq!(refused("/s3/", "/ec2/"), "AuthorizationHeaderMalformed");
    }
}
