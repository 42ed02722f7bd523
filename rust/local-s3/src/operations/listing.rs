//! ListObjectsV2, and the first version that older tools use.
use super::{Call, Operation};
use crate::checksum::{base64, from_base64};
use crate::date::Timestamp;
use crate::error::{Answer, S3Error};
use crate::faults::ListingFault;
use crate::request::percent_encode_into;
use crate::response::Response;
use crate::store::listing::{After, Listed, Page};
use crate::xml::Writer;

const MAX_KEYS: usize = 1000;

fn token(after: &After) -> String {
    let text = match after {
        After::Start => "s".to_owned(),
        After::Key(key) => format!("k{key}"),
        After::Prefix(prefix) => format!("p{prefix}"),
    };
    base64(text.as_bytes())
}

fn read_token(token: &str) -> Option<After> {
    let text = String::from_utf8(from_base64(token)?).ok()?;
    let rest = text.get(1..)?.to_owned();
    match text.as_bytes()[0] {
        b's' => Some(After::Start),
        b'k' => Some(After::Key(rest)),
        b'p' => Some(After::Prefix(rest)),
        _ => None,
    }
}

pub fn list(call: &Call<'_>) -> Answer<Response> {
    let query = call.query;
    let bucket = call.bucket()?;
    let second = call.operation == Operation::ListObjectsV2;
    let parameter = |name: &str| query.get(name).unwrap_or("");
    let (prefix, delimiter) = (parameter("prefix"), parameter("delimiter"));
    let encodes = match query.get("encoding-type") {
        None | Some("") => false,
        Some("url") => true,
        Some(_) => return Err(S3Error::invalid_argument("Invalid Encoding Method specified in Request").into()),
    };
    let max_keys = match query.get("max-keys").filter(|text| !text.is_empty()) {
        None => MAX_KEYS,
        Some(text) => match text.parse::<i64>() {
            Ok(number) if number >= 0 => (number as usize).min(MAX_KEYS),
            _ => {
                return Err(
                    S3Error::invalid_argument("Argument maxKeys must be an integer between 0 and 2147483647").into()
                );
            }
        },
    };
    let continuation = query.get("continuation-token").filter(|_| second);
    let start_after = parameter(if second { "start-after" } else { "marker" });
    let after = match continuation {
        Some(text) => {
            read_token(text).ok_or_else(|| S3Error::invalid_argument("The continuation token provided is incorrect"))?
        }
        None if start_after.is_empty() => After::Start,
        // The first version continues after a common prefix with the prefix itself.
        None if !second && !delimiter.is_empty() && start_after.ends_with(delimiter) => {
            After::Prefix(start_after.to_owned())
        }
        None => After::Key(start_after.to_owned()),
    };
    let mut page = bucket.list(prefix, delimiter, &after, max_keys);
    disturb(call, &mut page, &after);

    let text = |name: &str, value: &str, out: &mut Writer| {
        if encodes {
            let mut encoded = String::with_capacity(value.len());
            percent_encode_into(&mut encoded, value.as_bytes(), true);
            out.text(name, &encoded);
        } else {
            out.text(name, value);
        }
    };
    let mut out = Writer::new(512 + page.objects.len() * 320);
    out.root("ListBucketResult");
    out.text("Name", &bucket.name);
    text("Prefix", prefix, &mut out);
    if !delimiter.is_empty() {
        text("Delimiter", delimiter, &mut out);
    }
    out.display("MaxKeys", max_keys);
    if encodes {
        out.text("EncodingType", "url");
    }
    out.display("IsTruncated", page.next.is_some());
    if second {
        out.display("KeyCount", page.objects.len() + page.prefixes.len());
        out.optional("ContinuationToken", continuation);
        if !start_after.is_empty() {
            text("StartAfter", start_after, &mut out);
        }
        if let Some(next) = &page.next {
            out.text("NextContinuationToken", &token(next));
        }
    } else {
        text("Marker", start_after, &mut out);
        if let (Some(After::Key(next) | After::Prefix(next)), false) = (&page.next, delimiter.is_empty()) {
            text("NextMarker", next, &mut out);
        }
    }
    // Neighbours often have one time, and formatting it would be a third of the work.
    let mut modified = (Timestamp { seconds: 0, millis: 0 }, String::new());
    for object in &page.objects {
        out.open("Contents");
        text("Key", &object.key, &mut out);
        if modified.0 != object.modified {
            modified = (object.modified, object.modified.iso());
        }
        out.text("LastModified", &modified.1);
        contents(object, &mut out);
        if !second || query.get("fetch-owner") == Some("true") {
            out.open("Owner");
            out.text("ID", "local-s3");
            out.close("Owner");
        }
        out.close("Contents");
    }
    for prefix in &page.prefixes {
        out.open("CommonPrefixes");
        text("Prefix", prefix, &mut out);
        out.close("CommonPrefixes");
    }
    out.close("ListBucketResult");
    let mut response = Response::xml(out.finish());
    response.header("x-amz-bucket-region", &bucket.region);
    Ok(response)
}

fn contents(object: &Listed, out: &mut Writer) {
    out.raw("ETag", &["&quot;", &object.etag, "&quot;"]);
    if let Some((algorithm, kind)) = object.checksum {
        out.text("ChecksumAlgorithm", algorithm.name());
        out.text("ChecksumType", kind.name());
    }
    out.display("Size", object.size);
    out.text("StorageClass", object.storage_class.as_deref().unwrap_or("STANDARD"));
}

/// Listings that are not what they should be.
fn disturb(call: &Call<'_>, page: &mut Page, after: &After) {
    let unordered = call.variant().unordered_listing.then_some(ListingFault::Unordered);
    match call.effects.listing.or(unordered) {
        None => {}
        Some(ListingFault::Unordered) => {
            page.objects.sort_by_key(|object| crate::faults::fingerprint(&[&object.key]));
        }
        Some(ListingFault::Duplicate) => {
            if let (After::Key(key), Ok(bucket)) = (after, call.bucket()) {
                let before = bucket.list(key, "", &After::Start, 1);
                page.objects.splice(0..0, before.objects);
            }
        }
        Some(ListingFault::Empty) => {
            page.objects.clear();
            page.prefixes.clear();
            page.next = Some(after.clone());
        }
        Some(ListingFault::Endless) => {
            page.next.get_or_insert_with(|| after.clone());
        }
    }
}
