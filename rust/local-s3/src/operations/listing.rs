//! ListObjectsV2, and the first version that older tools use.
use super::{Call, Operation, archive, directory_buckets};
use crate::checksum::{base64, from_base64};
use crate::date::Timestamp;
use crate::digits::push_number;
use crate::error::{Answer, S3Error};
use crate::faults::ListingFault;
use crate::request::percent_encode_into;
use crate::response::Response;
use crate::store::listing::{After, Page};
use crate::xml::Writer;

const MAX_KEYS: usize = 1000;
/// What an object takes in the document, but for its key.
const ENTRY_BYTES: usize = 224;

fn token(after: &After) -> String {
    let (kind, name) = match after {
        After::Start => (b's', &[][..]),
        After::Key(key) => (b'k', &key[..]),
        After::Prefix(prefix) => (b'p', &prefix[..]),
    };
    base64(&[&[kind], name].concat())
}

fn read_token(token: &str) -> Option<After> {
    let bytes = from_base64(token)?;
    match bytes.split_first()? {
        (b's', []) => Some(After::Start),
        (b'k', key) => Some(After::Key(key.to_vec())),
        (b'p', prefix) => Some(After::Prefix(prefix.to_vec())),
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
            After::Prefix(start_after.into())
        }
        None => After::Key(start_after.into()),
    };
    let mut page = bucket.list(prefix, delimiter, &after, max_keys);
    if call.variant().hide_children {
        bucket.hide_children(&mut page);
    }
    let fault = disturb(call, &mut page, &after);

    let name = |name: &[u8], out: &mut Writer| {
        if encodes {
            percent_encode_into(out.raw(), name, true);
        } else {
            out.escaped(name);
        }
    };
    let text = |tag: &str, value: &[u8], out: &mut Writer| {
        out.open(tag);
        name(value, out);
        out.close(tag);
    };
    let mut out = Writer::new(1024 + page.objects.len() * (ENTRY_BYTES + prefix.len() + 64));
    out.root("ListBucketResult");
    out.text("Name", &bucket.name);
    text("Prefix", prefix.as_bytes(), &mut out);
    if !delimiter.is_empty() {
        text("Delimiter", delimiter.as_bytes(), &mut out);
    }
    out.display("MaxKeys", max_keys);
    if encodes {
        out.text("EncodingType", "url");
    }
    out.display("IsTruncated", page.next.is_some());
    if second {
        out.display("KeyCount", page.len());
        out.optional("ContinuationToken", continuation);
        if !start_after.is_empty() {
            text("StartAfter", start_after.as_bytes(), &mut out);
        }
        if let Some(next) = page.next.as_ref().filter(|_| fault != Some(ListingFault::Tokenless)) {
            out.text("NextContinuationToken", &token(next));
        }
    } else {
        text("Marker", start_after.as_bytes(), &mut out);
        if let (Some(After::Key(next) | After::Prefix(next)), false) = (&page.next, delimiter.is_empty()) {
            text("NextMarker", next, &mut out);
        }
    }
    let wants_restores = call
        .request
        .header("x-amz-optional-object-attributes")
        .is_some_and(|names| names.split(',').any(|name| name.trim() == "RestoreStatus"));
    let now = call.server.now(call.effects);
    let owner = match !second || query.get("fetch-owner") == Some("true") {
        true => "<Owner><ID>local-s3</ID></Owner>",
        false => "",
    };
    // Neighbours often have one time, and formatting it would be a third of the work.
    let mut modified = (Timestamp { seconds: 0, millis: 0 }, String::new());
    for object in &page.objects {
        out.literal("<Contents><Key>");
        name(page.key(object), &mut out);
        if modified.0 != object.item.modified() {
            modified = (object.item.modified(), object.item.modified().iso());
        }
        out.literal("</Key><LastModified>");
        out.literal(&modified.1);
        out.literal("</LastModified><ETag>&quot;");
        object.item.write_etag(out.raw());
        out.literal("&quot;</ETag>");
        if let Some((algorithm, kind)) = object.item.checksum() {
            out.text("ChecksumAlgorithm", algorithm.name());
            out.text("ChecksumType", kind.name());
        }
        out.literal("<Size>");
        push_number(out.raw(), object.item.size());
        out.literal("</Size><StorageClass>");
        out.escaped(
            object.item.object().and_then(|o| o.attributes.storage_class.as_deref()).unwrap_or("STANDARD").as_bytes(),
        );
        out.literal("</StorageClass>");
        if let Some(object) = object.item.object().filter(|_| wants_restores) {
            archive::list(object, now, &mut out);
        }
        out.literal(owner);
        out.literal("</Contents>");
    }
    for prefix in page.prefixes() {
        out.literal("<CommonPrefixes>");
        text("Prefix", prefix, &mut out);
        out.literal("</CommonPrefixes>");
    }
    out.close("ListBucketResult");
    let mut response = Response::xml(out.finish());
    response.header("x-amz-bucket-region", &bucket.region);
    Ok(response)
}

/// Listings that are not what they should be.
fn disturb(call: &Call<'_>, page: &mut Page, after: &After) -> Option<ListingFault> {
    let unordered = call.variant().unordered_listing || directory_buckets::is_one(&call.target.bucket);
    let unordered = unordered.then_some(ListingFault::Unordered);
    let fault = call.effects.listing.or(unordered);
    match fault {
        None => {}
        Some(ListingFault::Unordered) => {
            page.shuffle();
        }
        Some(ListingFault::Duplicate) => {
            if let (After::Key(key), Ok(bucket)) = (after, call.bucket()) {
                let key = String::from_utf8_lossy(key);
                page.prepend(bucket.list(&key, "", &After::Start, 1));
            }
        }
        Some(ListingFault::Empty) => {
            page.clear();
            page.next = Some(after.clone());
        }
        Some(ListingFault::Endless) => {
            page.next.get_or_insert_with(|| after.clone());
        }
        Some(ListingFault::Stuck | ListingFault::Tokenless) => page.next = Some(after.clone()),
    }
    fault
}
