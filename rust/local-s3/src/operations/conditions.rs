//! If-Match and its kin.
use crate::date::Timestamp;
use crate::error::S3Error;
use crate::request::Request;
use crate::store::object::Object;

fn etag_matches(header: &str, etag: &str) -> bool {
    let same = |candidate: &str| {
        let candidate = candidate.trim();
        candidate == "*" || candidate.trim_start_matches("W/").trim_matches('"') == etag
    };
    header.split(',').any(same)
}

fn not_modified(object: &Object) -> S3Error {
    let error = S3Error::new(304, "NotModified", "Not Modified").header("ETag", format!("\"{}\"", object.etag));
    error.header("Last-Modified", object.modified.http())
}

/// The names of the four conditions, on a request or on the source of a copy.
struct Names {
    matches: &'static str,
    none_match: &'static str,
    unmodified: &'static str,
    modified: &'static str,
}

const ON_REQUEST: Names = Names {
    matches: "if-match",
    none_match: "if-none-match",
    unmodified: "if-unmodified-since",
    modified: "if-modified-since",
};

const ON_SOURCE: Names = Names {
    matches: "x-amz-copy-source-if-match",
    none_match: "x-amz-copy-source-if-none-match",
    unmodified: "x-amz-copy-source-if-unmodified-since",
    modified: "x-amz-copy-source-if-modified-since",
};

/// The name of the condition that fails, in the order of RFC 9110: an ETag's condition overrules a date's.
fn failed(request: &Request, names: &Names, object: &Object) -> Option<&'static str> {
    // HTTP's dates have no fractions.
    let modified = Timestamp { millis: 0, ..object.modified };
    let date = |name| request.header(name).and_then(Timestamp::parse_http);
    if let Some(header) = request.header(names.matches) {
        if !etag_matches(header, &object.etag) {
            return Some("If-Match");
        }
    } else if date(names.unmodified).is_some_and(|date| modified > date) {
        return Some("If-Unmodified-Since");
    }
    if let Some(header) = request.header(names.none_match) {
        if etag_matches(header, &object.etag) {
            return Some("If-None-Match");
        }
    } else if date(names.modified).is_some_and(|date| modified <= date) {
        return Some("If-Modified-Since");
    }
    None
}

/// For GET and HEAD.
pub fn check_read(request: &Request, object: &Object) -> Result<(), S3Error> {
    match failed(request, &ON_REQUEST, object) {
        None => Ok(()),
        Some("If-None-Match" | "If-Modified-Since") => Err(not_modified(object)),
        Some(condition) => Err(S3Error::precondition_failed(condition)),
    }
}

/// For the source of a copy.
pub fn check_source(request: &Request, object: &Object) -> Result<(), S3Error> {
    failed(request, &ON_SOURCE, object).map_or(Ok(()), |condition| Err(S3Error::precondition_failed(condition)))
}

/// For writes, against what the key holds.
pub fn check_write(request: &Request, key: &str, current: Option<&Object>) -> Result<(), S3Error> {
    match request.header("if-none-match").map(|header| header.trim().trim_matches('"')) {
        Some("*") if current.is_some() => return Err(S3Error::precondition_failed("If-None-Match")),
        Some("*") | None => {}
        Some(_) => return Err(S3Error::not_implemented("If-None-Match")),
    }
    match (request.header("if-match"), current) {
        (Some(_), None) => Err(S3Error::no_such_key(key)),
        (Some(header), Some(object)) if !etag_matches(header, &object.etag) => {
            Err(S3Error::precondition_failed("If-Match"))
        }
        _ => Ok(()),
    }
}
