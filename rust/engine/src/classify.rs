//! What an error answer of S3 means: its kind, and whether another attempt could go better.
use crate::failure::{Fault, Kind, Retry};

/// What an error answer means.
pub fn classify(status: u16, code: &str, is_head: bool) -> Fault {
    let (kind, retry) = match (status, code) {
        (_, "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired") => (Kind::Credentials, Retry::Corrected),
        (_, "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken") => (Kind::Credentials, Retry::Never),
        (_, "SlowDown" | "SlowDownRead" | "SlowDownWrite" | "Throttling" | "ThrottlingException")
        | (_, "RequestLimitExceeded" | "TooManyRequests")
        | (429, _) => (Kind::Throttled, Retry::Throttle),
        // Without a body no code can tell; S3 answers so when it wants less.
        (503, "") if is_head => (Kind::Throttled, Retry::Throttle),
        (_, "RequestTimeTooSkewed") => (Kind::AccessDenied, Retry::Never),
        (301 | 302 | 307 | 308, _) | (400, "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException") => {
            (Kind::Redirect, Retry::Never)
        }
        // A HEAD's refusal has no body, so no code: 400 is how S3 tells it of another region.
        (400, "") if is_head => (Kind::Redirect, Retry::Never),
        (400, "RequestTimeout") | (408, _) => (Kind::Transport, Retry::Counted),
        (400, "BadDigest" | "InvalidDigest" | "XAmzContentChecksumMismatch") => (Kind::Checksum, Retry::Counted),
        (401 | 403, _) => (Kind::AccessDenied, Retry::Never),
        (404, "NoSuchBucket") => (Kind::BucketNotFound, Retry::Never),
        (404, "NoSuchKey" | "NoSuchVersion" | "") => (Kind::NotFound, Retry::Never),
        (404, "NoSuchUpload") => (Kind::Service, Retry::Never),
        (404, _) => (Kind::NotFound, Retry::Never),
        (409, _) => (Kind::Conflict, Retry::Never),
        (412, _) => (Kind::PreconditionFailed, Retry::Never),
        (416, _) => (Kind::Invalid, Retry::Never),
        (501 | 505, _) => (Kind::Service, Retry::Never),
        (500..=599, _) => (Kind::Service, Retry::Counted),
        _ => (Kind::Service, Retry::Never),
    };
    Fault { status, ..Fault::new(kind, retry, reason(status)) }
}

fn reason(status: u16) -> &'static str {
    match status {
        301 | 302 | 307 | 308 => "the bucket is reached elsewhere",
        400 => "bad request",
        401 | 403 => "access denied",
        404 => "not found",
        409 => "conflict",
        412 => "a precondition failed",
        416 => "the range lies outside the object",
        429 | 503 => "the service asks to slow down",
        500..=599 => "an error at the service",
        _ => "an unexpected answer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_go_before_statuses() {
        let told = |status, code| {
            let fault = classify(status, code, false);
            (fault.kind, fault.retry)
        };
        assert_eq!(told(503, "SlowDown"), (Kind::Throttled, Retry::Throttle));
        assert_eq!(told(503, "ServiceUnavailable"), (Kind::Service, Retry::Counted));
        assert_eq!(told(429, ""), (Kind::Throttled, Retry::Throttle));
        assert_eq!(told(400, "ExpiredToken"), (Kind::Credentials, Retry::Corrected));
        assert_eq!(told(403, "SignatureDoesNotMatch"), (Kind::Credentials, Retry::Never));
        assert_eq!(told(400, "AuthorizationHeaderMalformed"), (Kind::Redirect, Retry::Never));
        assert_eq!(told(404, "NoSuchBucket"), (Kind::BucketNotFound, Retry::Never));
        assert_eq!(told(400, "BadDigest"), (Kind::Checksum, Retry::Counted));
        assert_eq!(told(501, "NotImplemented"), (Kind::Service, Retry::Never));
        assert_eq!(classify(400, "", true).kind, Kind::Redirect);
        assert_eq!(classify(503, "", true).kind, Kind::Throttled);
        assert_eq!(told(503, ""), (Kind::Service, Retry::Counted));
        assert_eq!(told(400, ""), (Kind::Service, Retry::Never));
    }
}
