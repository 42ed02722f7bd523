//! What can go wrong.
use super::{Effects, Ending, ListingFault, Mutation, Refusal};
use crate::error::S3Error;
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Refuse with a status. The request's body is read first.
    Status {
        status: u16,
        code: Option<String>,
        message: Option<String>,
        retry_after_s: Option<f64>,
        /// Answer without the XML body.
        #[serde(default)]
        empty: bool,
        /// So many bytes of body instead of the XML.
        #[serde(default)]
        body_bytes: u64,
        /// Close the connection afterwards.
        #[serde(default)]
        close: bool,
    },
    /// Refuse when so many bytes of the request's body have come, and close without reading the rest.
    Early {
        status: u16,
        code: Option<String>,
        #[serde(default)]
        at: u64,
    },
    /// RST: at once, or at byte `at` of the body that the request or its answer has.
    Reset {
        at: Option<u64>,
    },
    /// FIN without an answer.
    Close,
    /// The body ends early: FIN after `at` bytes.
    Truncate {
        at: u64,
    },
    /// Nothing more comes from byte `at` on (None: no answer at all), for `duration_s` or for good.
    Stall {
        at: Option<u64>,
        duration_s: Option<f64>,
    },
    Delay {
        delay_s: f64,
    },
    /// The connection carries so many bytes a second for this body.
    Slow {
        bytes_per_s: f64,
    },
    /// After this answer the object has other bytes.
    Replace {
        size_bytes: Option<u64>,
        #[serde(default)]
        before: bool,
    },
    /// After this answer the object is gone.
    Delete {
        #[serde(default)]
        before: bool,
    },
    /// One byte of the body is changed on its way.
    Corrupt {
        at: u64,
        #[serde(default = "all_bits")]
        xor: u8,
    },
    /// The operation is done, its answer never comes.
    Lost {
        #[serde(default)]
        ending: Ending,
    },
    /// The operation is done, the answer is an error.
    LostStatus {
        status: u16,
        code: Option<String>,
    },
    /// The head comes one byte at a time.
    SplitHead,
    /// The body comes chunked, without a Content-Length.
    Chunked,
    /// Content-Length is wrong by `delta`.
    WrongLength {
        delta: i64,
    },
    /// The server's clock is off by so much for this request.
    Skew {
        seconds: i64,
    },
    /// The bucket is said to be in another region: 301, 307 or 400.
    Region {
        status: u16,
        region: String,
        #[serde(default)]
        location: Option<String>,
    },
    /// 200, white space for `after_s`, then an error (CopyObject, UploadPartCopy, CompleteMultipartUpload).
    #[serde(rename = "error_in_200")]
    ErrorIn200 {
        code: Option<String>,
        #[serde(default)]
        after_s: f64,
    },
    /// 200, white space for `delay_s`, then the result.
    SlowResult {
        delay_s: f64,
    },
    IgnoreConditions,
    /// Refuse checksum headers as stores do that do not know them.
    RefuseChecksums,
    /// LIST without order.
    UnorderedListing,
    /// LIST repeats the last key of the page before.
    DuplicateListing,
    /// LIST answers a page without keys that is not the last.
    EmptyListing,
    /// LIST never ends: the last page says that there is another.
    EndlessListing,
    /// These bytes are the answer, head and all; then FIN.
    Raw {
        data: String,
    },
    /// Headers without end.
    EndlessHead,
    /// Close the connection after a complete answer, without having said so.
    CloseAfter,
    /// No connection is accepted for so long, and those that exist are reset.
    Outage {
        duration_s: f64,
    },
}

fn all_bits() -> u8 {
    0xff
}

fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or_default()
}

fn refusal(status: u16, code: Option<&String>, message: Option<&String>) -> S3Error {
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

impl Action {
    pub fn apply(&self, effects: &mut Effects) -> &'static str {
        match self {
            Self::Status { status, code, message, retry_after_s, empty, body_bytes, close } => {
                let mut error = refusal(*status, code.as_ref(), message.as_ref());
                error.close = *close;
                if let Some(delay_s) = retry_after_s {
                    error.headers.push(("Retry-After", delay_s.to_string()));
                }
                effects.refusal = Some(Refusal { error, empty: *empty, body_bytes: *body_bytes, early_at: None });
                "status"
            }
            Self::Early { status, code, at } => {
                let mut error = refusal(*status, code.as_ref(), None);
                error.close = true;
                effects.refusal = Some(Refusal { error, empty: false, body_bytes: 0, early_at: Some(*at) });
                "early"
            }
            Self::Reset { at } => {
                match at {
                    Some(at) => effects.cut = Some((*at, Ending::Reset)),
                    None => effects.ending = Some(Ending::Reset),
                }
                "reset"
            }
            Self::Close => {
                effects.ending = Some(Ending::Close);
                "close"
            }
            Self::Truncate { at } => {
                effects.cut = Some((*at, Ending::Close));
                "truncate"
            }
            Self::Stall { at, duration_s } => {
                match at {
                    Some(at) => effects.cut = Some((*at, Ending::Stall)),
                    None => effects.ending = Some(Ending::Stall),
                }
                effects.stall = duration_s.map(seconds);
                "stall"
            }
            Self::Delay { delay_s } => {
                effects.delay += seconds(*delay_s);
                "delay"
            }
            Self::Slow { bytes_per_s } => {
                effects.bytes_per_s = Some(*bytes_per_s);
                "slow"
            }
            Self::Replace { size_bytes, before } => {
                let mutation = Some(Mutation::Replace { size_bytes: *size_bytes });
                if *before {
                    effects.before = mutation
                } else {
                    effects.after = mutation
                }
                "replace"
            }
            Self::Delete { before } => {
                if *before {
                    effects.before = Some(Mutation::Delete)
                } else {
                    effects.after = Some(Mutation::Delete)
                }
                "delete"
            }
            Self::Corrupt { at, xor } => {
                effects.corrupt.push((*at, *xor));
                "corrupt"
            }
            Self::Lost { ending } => {
                effects.lost = Some(*ending);
                "lost"
            }
            Self::LostStatus { status, code } => {
                effects.lost_refusal = Some(refusal(*status, code.as_ref(), None));
                "lost_status"
            }
            Self::SplitHead => {
                effects.split_head = true;
                "split_head"
            }
            Self::Chunked => {
                effects.chunked = true;
                "chunked"
            }
            Self::WrongLength { delta } => {
                effects.length_delta = *delta;
                "wrong_length"
            }
            Self::Skew { seconds } => {
                effects.skew_s += seconds;
                "skew"
            }
            Self::Region { status, region, location } => {
                let mut error = wrong_region(*status, region);
                error.headers.extend(location.clone().map(|location| ("Location", location)));
                effects.refusal = Some(Refusal { error, empty: false, body_bytes: 0, early_at: None });
                "region"
            }
            Self::ErrorIn200 { code, after_s } => {
                effects.error_in_200 = Some(refusal(500, code.as_ref(), None));
                effects.white_space = seconds(*after_s);
                "error_in_200"
            }
            Self::SlowResult { delay_s } => {
                effects.white_space = seconds(*delay_s);
                "slow_result"
            }
            Self::IgnoreConditions => {
                effects.ignore_conditions = true;
                "ignore_conditions"
            }
            Self::RefuseChecksums => {
                effects.refuse_checksums = true;
                "refuse_checksums"
            }
            Self::UnorderedListing => {
                effects.listing = Some(ListingFault::Unordered);
                "unordered_listing"
            }
            Self::DuplicateListing => {
                effects.listing = Some(ListingFault::Duplicate);
                "duplicate_listing"
            }
            Self::EmptyListing => {
                effects.listing = Some(ListingFault::Empty);
                "empty_listing"
            }
            Self::EndlessListing => {
                effects.listing = Some(ListingFault::Endless);
                "endless_listing"
            }
            Self::Raw { data } => {
                effects.raw = Some(data.clone());
                "raw"
            }
            Self::EndlessHead => {
                effects.endless_head = true;
                "endless_head"
            }
            Self::CloseAfter => {
                effects.close_after = true;
                "close_after"
            }
            Self::Outage { duration_s } => {
                effects.outage = Some(seconds(*duration_s));
                effects.ending = Some(Ending::Reset);
                "outage"
            }
        }
    }
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
