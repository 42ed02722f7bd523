//! What a request says of its signature: in the Authorization header, or in the query of a presigned URL.
use super::ALGORITHM;
use crate::date::Timestamp;
use crate::error::S3Error;
use crate::request::{Query, Request};

/// Longest life of a presigned URL.
const MAX_EXPIRES_S: i64 = 604_800;

pub struct Claim<'a> {
    pub access_key: &'a str,
    /// `date/region/service/aws4_request`.
    pub scope: &'a str,
    pub region: &'a str,
    pub signed_headers: &'a str,
    pub signature: &'a str,
    pub date: &'a str,
    /// The session's.
    pub token: Option<&'a str>,
    /// SHA-256 of the body, or what stands for it.
    pub payload: Option<&'a str>,
    /// Of a presigned URL: from its date on.
    pub expires_s: Option<i64>,
}

impl<'a> Claim<'a> {
    /// None for a request that is not signed.
    pub fn of(request: &'a Request, query: &'a Query) -> Result<Option<Self>, S3Error> {
        let presigned = ["X-Amz-Algorithm", "X-Amz-Signature", "X-Amz-Credential"].iter().any(|name| query.has(name));
        match request.header("authorization") {
            Some(_) if presigned => {
                let message = "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature \
                               query string parameter or the Authorization header should be specified";
                Err(S3Error::invalid_argument(message))
            }
            Some(header) => Self::of_header(request, header).map(Some),
            None if presigned => Self::of_query(request, query).map(Some),
            None if query.has("AWSAccessKeyId") => Err(unsupported()),
            None => Ok(None),
        }
    }

    fn of_header(request: &'a Request, header: &'a str) -> Result<Self, S3Error> {
        let Some(fields) = header.strip_prefix(ALGORITHM) else { return Err(unsupported()) };
        let field = |name: &str| {
            let value = fields.split(',').find_map(|f| f.trim().strip_prefix(name)?.strip_prefix('='));
            value.ok_or_else(|| malformed(false, &format!("{name} is missing.")))
        };
        let (access_key, scope, region) = credential(field("Credential")?, false)?;
        Ok(Self {
            access_key,
            scope,
            region,
            signed_headers: field("SignedHeaders")?,
            signature: field("Signature")?,
            date: request.header("x-amz-date").unwrap_or(""),
            token: request.header("x-amz-security-token"),
            payload: request.header("x-amz-content-sha256"),
            expires_s: None,
        })
    }

    fn of_query(request: &'a Request, query: &'a Query) -> Result<Self, S3Error> {
        let parameter = |name: &str| {
            let message = "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, \
                           X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.";
            query.get(name).ok_or_else(|| malformed(true, message))
        };
        if parameter("X-Amz-Algorithm")? != ALGORITHM {
            return Err(malformed(true, "X-Amz-Algorithm only supports \"AWS4-HMAC-SHA256\""));
        }
        let expires_s = match parameter("X-Amz-Expires")?.parse() {
            Ok(seconds) if seconds > MAX_EXPIRES_S => {
                return Err(malformed(true, "X-Amz-Expires must be less than a week (in seconds) that is 604800"));
            }
            Ok(seconds) if seconds >= 0 => seconds,
            Ok(_) => return Err(malformed(true, "X-Amz-Expires must be non-negative")),
            Err(_) => return Err(malformed(true, "X-Amz-Expires should be a number")),
        };
        let (access_key, scope, region) = credential(parameter("X-Amz-Credential")?, true)?;
        let payload = request.header("x-amz-content-sha256").or_else(|| query.get("X-Amz-Content-Sha256"));
        Ok(Self {
            access_key,
            scope,
            region,
            signed_headers: parameter("X-Amz-SignedHeaders")?,
            signature: parameter("X-Amz-Signature")?,
            date: parameter("X-Amz-Date")?,
            token: query.get("X-Amz-Security-Token").or_else(|| request.header("x-amz-security-token")),
            payload: Some(payload.unwrap_or("UNSIGNED-PAYLOAD")),
            expires_s: Some(expires_s),
        })
    }

    /// Whether it is of this time.
    pub fn check_time(&self, now: Timestamp, max_skew_s: i64) -> Result<(), S3Error> {
        let sent = Timestamp::parse_basic(self.date).ok_or_else(|| {
            S3Error::new(403, "AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")
        })?;
        if !self.scope.starts_with(self.date.split('T').next().unwrap_or("")) {
            let message = "the date of the credential is not that of the request.";
            return Err(malformed(self.expires_s.is_some(), message));
        }
        match self.expires_s {
            Some(_) if sent.seconds - now.seconds > max_skew_s => {
                let error = S3Error::new(403, "AccessDenied", "Request is not yet valid");
                Err(error.with("ServerTime", now.iso()))
            }
            Some(seconds) if now.seconds > sent.seconds + seconds => {
                let error = S3Error::new(403, "AccessDenied", "Request has expired");
                let error = error.with("X-Amz-Expires", seconds.to_string());
                Err(error.with("Expires", sent.shifted(seconds).iso()).with("ServerTime", now.iso()))
            }
            None if (sent.seconds - now.seconds).abs() > max_skew_s => {
                let message = "The difference between the request time and the current time is too large.";
                let error = S3Error::new(403, "RequestTimeTooSkewed", message).with("RequestTime", self.date);
                let error = error.with("ServerTime", now.iso());
                Err(error.with("MaxAllowedSkewMilliseconds", (max_skew_s * 1000).to_string()))
            }
            _ => Ok(()),
        }
    }
}

/// The parts of a credential: the access key, its scope, and the scope's region.
fn credential(text: &str, presigned: bool) -> Result<(&str, &str, &str), S3Error> {
    let missing = || malformed(presigned, "the credential has no scope.");
    let (access_key, scope) = text.split_once('/').ok_or_else(missing)?;
    let [_, region, service, "aws4_request"] = scope.split('/').collect::<Vec<_>>()[..] else {
        return Err(malformed(presigned, "the credential scope must be date/region/service/aws4_request."));
    };
    if service != "s3" && service != "s3express" {
        let message = format!("incorrect service {service:?}. This endpoint belongs to \"s3\".");
        return Err(malformed(presigned, &message));
    }
    Ok((access_key, scope, region))
}

fn malformed(presigned: bool, message: &str) -> S3Error {
    match presigned {
        true => S3Error::new(400, "AuthorizationQueryParametersError", message.to_owned()),
        false => {
            let message = format!("The authorization header is malformed; {message}");
            S3Error::new(400, "AuthorizationHeaderMalformed", message)
        }
    }
}

fn unsupported() -> S3Error {
    let message = "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.";
    S3Error::invalid_request(message)
}
