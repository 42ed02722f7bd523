//! Signature Version 4: who sent a request, and whether it is what was signed.
mod canonical;
mod chunks;
mod claim;

pub use chunks::ChunkSignatures;

use crate::checksum::hex;
use crate::config::{Config, Credential};
use crate::date::Timestamp;
use crate::error::S3Error;
use crate::request::{Query, Request};
use canonical::canonical_request;
use claim::Claim;
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

/// Finds out who sent a request.
pub fn authenticate(
    request: &Request,
    query: &Query,
    config: &Config,
    credentials: &[Credential],
    now: Timestamp,
) -> Result<Sender, S3Error> {
    let Some(claim) = Claim::of(request, query)? else { return Ok(Sender::Anonymous) };
    let known = credentials.iter().find(|c| c.access_key == claim.access_key).ok_or_else(|| {
        let message = "The AWS Access Key Id you provided does not exist in our records.";
        S3Error::new(403, "InvalidAccessKeyId", message).with("AWSAccessKeyId", claim.access_key)
    })?;
    claim.check_time(now, config.max_skew_s)?;
    let key = signing_key(&known.secret_key, claim.scope);
    if config.check_signatures {
        check(request, &claim, &key, config.variant.rewrite_accept_encoding)?;
    }
    check_token(&claim, known)?;
    Ok(Sender::Known(Box::new(Signed {
        region: claim.region.to_owned(),
        key,
        date: claim.date.to_owned(),
        scope: claim.scope.to_owned(),
        signature: claim.signature.to_owned(),
    })))
}

fn check_token(claim: &Claim<'_>, known: &Credential) -> Result<(), S3Error> {
    if known.expired {
        return Err(S3Error::new(400, "ExpiredToken", "The provided token has expired."));
    }
    match (&known.session_token, claim.token) {
        (Some(token), Some(sent)) if token == sent => Ok(()),
        (None, None) => Ok(()),
        _ => Err(S3Error::new(400, "InvalidToken", "The provided token is malformed or otherwise invalid.")),
    }
}

fn check(request: &Request, claim: &Claim<'_>, key: &hmac::Key, rewritten: bool) -> Result<(), S3Error> {
    let names: Vec<&str> = claim.signed_headers.split(';').collect();
    let is_signed = |name: &str| names.contains(&name);
    let unsigned = request.headers().map(|(name, _)| name.to_ascii_lowercase());
    let unsigned = unsigned.into_iter().find(|n| (n == "host" || n.starts_with("x-amz-")) && !is_signed(n));
    if let Some(name) = unsigned {
        let message = "There were headers present in the request which were not signed";
        return Err(S3Error::new(403, "AccessDenied", message).with("HeadersNotSigned", name));
    }
    let payload = claim
        .payload
        .ok_or_else(|| S3Error::invalid_request("Missing required header for this request: x-amz-content-sha256"))?;
    let canonical = canonical_request(request, claim, &names, payload, rewritten);
    let text = format!("{ALGORITHM}\n{}\n{}\n{}", claim.date, claim.scope, sha256_hex(canonical.as_bytes()));
    if verify(key, &text, claim.signature) {
        return Ok(());
    }
    let message = "The request signature we calculated does not match the signature you provided. Check your key and \
                   signing method.";
    let error = S3Error::new(403, "SignatureDoesNotMatch", message).with("StringToSign", text);
    Err(error.with("CanonicalRequest", canonical).with("SignatureProvided", claim.signature))
}

fn verify(key: &hmac::Key, text: &str, signature: &str) -> bool {
    hex(hmac::sign(key, text.as_bytes()).as_ref()) == signature
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

    // The example of the same documentation with query parameters.
    const PRESIGNED: &str = "GET /test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&\
        X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&\
        X-Amz-Expires=86400&X-Amz-SignedHeaders=host&\
        X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404 HTTP/1.1\r\n\
        Host: examplebucket.s3.amazonaws.com\r\n\r\n";

    fn code(head: &str, now: &str) -> Option<String> {
        let request = Request::parse(Bytes::copy_from_slice(head.as_bytes())).unwrap();
        let credential = Credential {
            access_key: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: None,
            expired: false,
        };
        let now = Timestamp::parse_basic(now).unwrap();
        let query = Query::parse(request.query()).unwrap();
        let sender = authenticate(&request, &query, &Config::default(), &[credential], now);
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

    #[test]
    fn the_documented_url_passes_while_it_lives() {
        assert_eq!(code(PRESIGNED, "20130524T000500Z"), None);
        assert_eq!(code(PRESIGNED, "20130524T235959Z"), None);
        assert_eq!(code(PRESIGNED, "20130525T000001Z").unwrap(), "AccessDenied");
        assert_eq!(code(PRESIGNED, "20130523T234459Z").unwrap(), "AccessDenied");
        let refused = |from: &str, to: &str| code(&PRESIGNED.replace(from, to), "20130524T000500Z").unwrap();
        assert_eq!(refused("Expires=86400", "Expires=86401"), "SignatureDoesNotMatch");
        assert_eq!(refused("Expires=86400", "Expires=604801"), "AuthorizationQueryParametersError");
        assert_eq!(refused("X-Amz-Date=20130524T000000Z&", ""), "AuthorizationQueryParametersError");
        assert_eq!(refused("Host:", "Authorization: AWS4-HMAC-SHA256 x\r\nHost:"), "InvalidArgument");
        assert_eq!(refused("Host:", "x-amz-request-payer: requester\r\nHost:"), "AccessDenied");
    }
}
