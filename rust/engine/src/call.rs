//! Everything but GetObject: requests with small answers, and uploads.
use crate::attempt::{Attempts, Exchange, FirstByte, Request};
use crate::checksum::{self, Algorithm};
use crate::failure::{Fault, Kind, Retry};
use crate::head::Length;
use crate::hedge::Class;
use crate::lane::Lane;
use crate::proxy::announces;
use crate::raw::Span;
use crate::request::{Call, CallKind, Outcome, Payload, Reply};
use crate::xml;
use std::sync::atomic::Ordering::Relaxed;

/// Listings of 1,000 keys take some 300 KB; keys of 1,024 bytes, each written as %XX, ten times that.
const ANSWER_BODY: usize = 16 << 20;
/// From here on hashing goes to another thread, so that the lane's sockets are served meanwhile.
const HASH_ELSEWHERE: usize = 1 << 20;

pub async fn run(attempts: &mut Attempts<'_>, mut call: Call) -> Outcome {
    let body = call.payload.span();
    let mut in_doubt = 0;
    loop {
        let fault = match once(attempts, &mut call, body).await {
            Ok(Outcome::Reply(mut reply)) => {
                reply.in_doubt = in_doubt;
                return Outcome::Reply(reply);
            }
            Ok(outcome) => return outcome,
            Err(fault) => fault,
        };
        if call.kind == CallKind::CreateUpload && attempts.may_be_done(&fault) {
            // Of an upload whose id nobody heard, nobody can say later that it was this one: it stays, without parts.
            in_doubt += 1;
            attempts.client.stats.uploads_in_doubt.fetch_add(1, Relaxed);
        }
        let fault = explain_head(attempts, &call, fault).await;
        let fault = in_progress(&call, fault);
        let fault = without_checksum(attempts, &mut call, fault);
        if let Err(failure) = attempts.after(fault).await {
            return Outcome::Failure(failure);
        }
    }
}

async fn once(attempts: &mut Attempts<'_>, call: &mut Call, body: Span) -> Result<Outcome, Fault> {
    let algorithm = call.checksum.filter(|_| !attempts.client.no_checksums.load(Relaxed));
    let mut extra: Vec<(&str, &str)> = Vec::new();
    if let Some(algorithm) = algorithm {
        if call.checksum_value.is_none() && matches!(call.kind, CallKind::Put | CallKind::UploadPart) {
            call.checksum_value = Some(hash(attempts.lane, algorithm, body).await?);
        }
        match (&call.checksum_value, call.kind) {
            (Some(value), _) => extra.push((algorithm.header(), value)),
            (None, CallKind::CreateUpload) => extra.push(("x-amz-checksum-algorithm", algorithm.name())),
            (None, _) => (),
        }
        if matches!(call.kind, CallKind::CreateUpload | CallKind::CompleteUpload) && algorithm == Algorithm::Crc64Nvme {
            extra.push(("x-amz-checksum-type", "FULL_OBJECT"));
        }
    }
    extra.extend(call.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())));
    let request = Request {
        method: call.method,
        query: &call.query,
        headers: &extra,
        range: None,
        if_match: None,
        body,
        first_byte: if call.kind.is_long() { FirstByte::Long } else { FirstByte::Usual },
        hedge: match call.kind {
            CallKind::Head => Some(Class::Head),
            CallKind::List => Some(Class::List),
            _ => None,
        },
    };
    let mut exchange = attempts.exchange(&request).await?;
    let length = if call.kind == CallKind::Head { Length::Fixed(0) } else { exchange.head.length };
    let answer = match exchange.connection.read_all(attempts.slot, length, ANSWER_BODY).await {
        Ok(answer) => answer,
        Err(fault) => {
            attempts.abandon(exchange, Some(&fault));
            return Err(fault);
        }
    };
    exchange.bytes_in = answer.len() as u64;
    let result = read_answer(call, algorithm, body, &exchange, &answer);
    attempts.end(exchange, result.as_ref().err());
    result
}

/// The checksum of memory that does not change meanwhile, in base64.
pub async fn hash(lane: &Lane, algorithm: Algorithm, body: Span) -> Result<String, Fault> {
    digest(lane, algorithm, body).await.map(|value| checksum::encode(algorithm, value))
}

/// Likewise as a number.
pub async fn digest(lane: &Lane, algorithm: Algorithm, body: Span) -> Result<u64, Fault> {
    let compute = move || {
        let mut digest = checksum::Digest::new(algorithm);
        let mut scratch = [0; 16 << 10]; // stays in the fastest cache
        body.for_each_chunk(&mut scratch, |chunk| digest.update(chunk));
        digest.value()
    };
    if body.len() < HASH_ELSEWHERE {
        return Ok(compute());
    }
    lane.elsewhere(compute).await
}

fn read_answer(
    call: &Call,
    algorithm: Option<Algorithm>,
    body: Span,
    exchange: &Exchange,
    answer: &[u8],
) -> Result<Outcome, Fault> {
    let head = &exchange.head;
    let mut reply = Reply {
        status: head.status,
        etag: head.etag.clone(),
        last_modified: head.last_modified,
        nbytes: body.len() as u64,
        head: head.raw.clone(),
        ..Reply::default()
    };
    let broken = |e: xml::XmlError| Fault::transport(format_args!("an answer that cannot be read: {e}"));
    let tells_nothing = matches!(call.kind, CallKind::Put | CallKind::Delete | CallKind::AbortUpload);
    if tells_nothing && !answer.is_empty() && head.etag.is_empty() && announces(&head.raw, b"text/html") {
        // Status 200 of whoever answers for everybody on the way, such as the login page of a network. Stores built
        // on a web framework announce such a page also where their answer has no body.
        return Err(Fault::transport("a page for people instead of an answer: is the endpoint an S3 service?"));
    }
    match call.kind {
        CallKind::Head => reply.object_size = head.content_length.unwrap_or(0),
        CallKind::List => {
            let page = xml::parse_list(answer).map_err(|e| match e {
                xml::XmlError::KeyNotUtf8 { .. } => Fault::invalid(e.to_string()), // it will be there the next time too
                e => broken(e),
            })?;
            return Ok(Outcome::List(Box::new(page)));
        }
        CallKind::ListUploads => {
            reply.uploads = xml::parse_uploads(answer).map_err(|e| match e {
                xml::XmlError::KeyNotUtf8 { .. } => Fault::invalid(e.to_string()),
                e => broken(e),
            })?;
        }
        CallKind::UploadPart if reply.etag.is_empty() => {
            // Without it the upload cannot be completed; the part can be sent again.
            return Err(Fault::transport("an answer to UploadPart without an ETag"));
        }
        CallKind::Put | CallKind::UploadPart => {
            if algorithm.is_some() {
                reply.checksum = call.checksum_value.clone().unwrap_or_default();
            }
        }
        CallKind::CreateUpload => {
            reply.nbytes = 0;
            reply.upload_id = xml::parse_initiate(answer).map_err(broken)?;
        }
        CallKind::CompleteUpload | CallKind::Copy | CallKind::UploadPartCopy => {
            reply.nbytes = 0;
            let parse = if call.kind == CallKind::CompleteUpload { xml::parse_complete } else { xml::parse_copy };
            match parse(answer).map_err(broken)? {
                xml::CompleteResult::Failed(error) => return Err(late_error(error, head.request_id.clone())),
                xml::CompleteResult::Done { etag, checksum_crc64nvme, .. } => {
                    if !etag.is_empty() {
                        reply.etag = format!("\"{etag}\"");
                    }
                    reply.checksum = checksum_crc64nvme.unwrap_or_default();
                }
            }
        }
        CallKind::DeleteMany => {
            reply.nbytes = 0;
            reply.key_errors = xml::parse_delete(answer).map_err(broken)?.errors;
        }
        CallKind::AbortUpload | CallKind::Delete => (),
    }
    Ok(Outcome::Reply(Box::new(reply)))
}

/// 200 with an error in the body: what the service would have answered, had it known before it began to.
fn late_error(error: xml::ServiceError, request_id: String) -> Fault {
    let (kind, retry) = match error.code.as_str() {
        "SlowDown" => (Kind::Throttled, Retry::Throttle),
        "PreconditionFailed" => (Kind::PreconditionFailed, Retry::Never),
        "ConditionalRequestConflict" | "OperationAborted" => (Kind::Conflict, Retry::Never),
        "NoSuchKey" => (Kind::NotFound, Retry::Never),
        "NoSuchBucket" => (Kind::BucketNotFound, Retry::Never),
        "AccessDenied" => (Kind::AccessDenied, Retry::Never),
        code if code.starts_with("Invalid") || code == "EntityTooSmall" || code == "NoSuchUpload" => {
            (Kind::Service, Retry::Never)
        }
        "BadDigest" => (Kind::Checksum, Retry::Never),
        _ => (Kind::Service, Retry::Counted),
    };
    Fault { status: 200, code: error.code, request_id, ..Fault::new(kind, retry, error.message) }
}

/// A HEAD's refusal has no body, so a GET of one byte has to tell the code.
async fn explain_head(attempts: &mut Attempts<'_>, call: &Call, fault: Fault) -> Fault {
    let silent = fault.code.is_empty() && matches!(fault.status, 400 | 403 | 404);
    if call.kind != CallKind::Head || !silent || fault.retry != Retry::Never {
        return fault;
    }
    let of_bucket = attempts.target.key.is_empty();
    let request = Request {
        method: "GET",
        query: if of_bucket { "list-type=2&max-keys=0" } else { attempts.target.query() },
        headers: &[],
        range: (!of_bucket).then(|| "bytes=0-0".to_owned()),
        if_match: None,
        body: Span::EMPTY,
        first_byte: FirstByte::Usual,
        hedge: None,
    };
    match attempts.exchange(&request).await {
        Ok(exchange) => {
            attempts.abandon(exchange, None);
            Fault { retry: Retry::Corrected, ..fault } // it has passed meanwhile
        }
        Err(told) if told.status == 416 => Fault { retry: Retry::Corrected, ..fault }, // an empty object, and access to it
        Err(told) if told.status == fault.status || told.retry == Retry::Corrected => told,
        Err(_) => fault,
    }
}

/// Another conditional write of the same object is under way, perhaps this one's own earlier attempt: once it is over, it is known
/// which of them won. (The parts of an upload would have to be sent anew.)
fn in_progress(call: &Call, fault: Fault) -> Fault {
    let passes = matches!(fault.code.as_str(), "ConditionalRequestConflict" | "OperationAborted");
    match call.kind {
        CallKind::Put if fault.status == 409 && passes => Fault { retry: Retry::Counted, ..fault },
        _ => fault,
    }
}

/// Whether a store refuses a checksum header that it does not know.
pub fn refuses_checksum(fault: &Fault) -> bool {
    let refused = matches!(fault.status, 400 | 501)
        && matches!(
            fault.code.as_str(),
            "NotImplemented" | "InvalidArgument" | "InvalidRequest" | "UnsupportedArgument" | "UnsupportedHeader"
        );
    let unnamed = fault.code == "NotImplemented" && fault.about.is_empty();
    refused && (unnamed || fault.message.to_ascii_lowercase().contains("checksum"))
}

/// Some stores refuse checksum headers they do not know: from then on they get none.
fn without_checksum(attempts: &Attempts<'_>, call: &mut Call, fault: Fault) -> Fault {
    if call.checksum.is_some() && refuses_checksum(&fault) {
        attempts.client.no_checksums.store(true, Relaxed);
        call.checksum = None; // another call may have found out while this one was on its way
        return Fault { retry: Retry::Corrected, ..fault };
    }
    fault
}

impl Call {
    pub fn new(kind: CallKind, method: &'static str) -> Call {
        Call {
            kind,
            method,
            query: String::new(),
            headers: Vec::new(),
            payload: Payload::None,
            checksum: None,
            checksum_value: None,
        }
    }
}
