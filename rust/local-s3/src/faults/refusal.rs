//! Errors in the words of S3.
use crate::error::S3Error;

/// An error of the fault plan's; its code is by default the usual one of the status.
pub fn refusal(status: u16, code: Option<&String>, message: Option<&String>) -> S3Error {
    let usual = match status {
        400 => "InvalidRequest",
        403 => "AccessDenied",
        404 => "NoSuchKey",
        408 => "RequestTimeout",
        409 => "ConditionalRequestConflict",
        412 => "PreconditionFailed",
        429 => "TooManyRequests",
        500 => "InternalError",
        501 => "NotImplemented",
        503 => "SlowDown",
        _ => "Fault",
    };
    let code = code.map_or(usual.to_owned(), Clone::clone);
    let usual = match code.as_str() {
        "SlowDown" => "Please reduce your request rate.",
        "AccessDenied" => "Access Denied",
        "ExpiredToken" => "The provided token has expired.",
        "InternalError" => "We encountered an internal error. Please try again.",
        _ => "This answer comes from the fault plan.",
    };
    S3Error::new(status, code, message.map_or(usual.to_owned(), Clone::clone))
}

/// What S3 answers to a request for a bucket of another region.
pub fn wrong_region(status: u16, region: &str) -> S3Error {
    let error = match status {
        400 => {
            let message = format!("The authorization header is malformed; the region is wrong; expecting '{region}'");
            S3Error::new(400, "AuthorizationHeaderMalformed", message)
        }
        307 => {
            let message = "Please re-send this request to the specified temporary endpoint. Continue to use the \
                           original request endpoint for future requests.";
            S3Error::new(307, "TemporaryRedirect", message)
        }
        status => {
            let message = "The bucket you are attempting to access must be addressed using the specified endpoint. \
                           Please send all future requests to this endpoint.";
            S3Error::new(status, "PermanentRedirect", message)
        }
    };
    error.with("Region", region).header("x-amz-bucket-region", region)
}
