//! Whole objects: GET, HEAD, PUT, DELETE.
use super::versions::{add_deleted, add_version, find as find_version, version_id};
use super::{Call, Operation, archive, conditions, customer_key};
use crate::checksum::{Algorithm, Checksum, Kind, base64};
use crate::date::Timestamp;
use crate::error::{Answer, Failure, S3Error};
use crate::incoming::Incoming;
use crate::receive::{receive, receive_document};
use crate::request::{ByteRange, Request};
use crate::response::{Body, Response};
use crate::store::content::Content;
use crate::store::object::{Attributes, Object, synthetic_etag};
use crate::xml::{self, Writer};
use std::sync::Arc;

/// Headers of an object that are kept and returned as they were sent.
const KEPT_HEADERS: [&str; 13] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
    "x-amz-website-redirect-location",
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-bucket-key-enabled",
    "x-amz-server-side-encryption-context",
    "x-amz-server-side-encryption-customer-algorithm",
    "x-amz-server-side-encryption-customer-key-md5",
];

const MAX_METADATA_BYTES: usize = 2 << 10;

impl Attributes {
    pub fn of(request: &Request) -> Result<Self, S3Error> {
        let mut attributes = Self::default();
        let mut metadata_bytes = 0;
        for (name, value) in request.headers() {
            let name = name.to_ascii_lowercase();
            if let Some(name) = name.strip_prefix("x-amz-meta-") {
                metadata_bytes += name.len() + value.len();
            } else if !KEPT_HEADERS.contains(&name.as_str()) {
                continue;
            }
            // The transfer's coding is not the object's.
            let value = if name == "content-encoding" {
                let codings = value.split(',').map(str::trim).filter(|coding| *coding != "aws-chunked");
                codings.collect::<Vec<_>>().join(",")
            } else {
                value.to_owned()
            };
            if !value.is_empty() {
                attributes.headers.push((name, value));
            }
        }
        if metadata_bytes > MAX_METADATA_BYTES {
            let message = "Your metadata headers exceed the maximum allowed metadata size";
            return Err(S3Error::new(400, "MetadataTooLarge", message));
        }
        attributes.storage_class = request.header("x-amz-storage-class").map(str::to_owned);
        attributes.storage_class.take_if(|class| class == "STANDARD");
        attributes.tags = request.header("x-amz-tagging").map(str::to_owned);
        Ok(attributes)
    }

    /// A copy is encrypted as its request says, not as its source is.
    pub fn encrypted_as(mut self, other: &Self) -> Self {
        let of_encryption = |(name, _): &&(String, String)| name.starts_with("x-amz-server-side-encryption");
        self.headers.retain(|header| !of_encryption(&header));
        self.headers.extend(other.headers.iter().filter(of_encryption).cloned());
        self
    }
}

pub fn quoted(etag: &str) -> String {
    format!("\"{etag}\"")
}

/// The object that a request reads, with bytes that stay as they are.
fn find(call: &Call<'_>) -> Answer<Arc<Object>> {
    let bucket = call.bucket()?;
    let key = &call.target.key;
    loop {
        let object = find_version(&bucket, key, version_id(call.query)?)?;
        let Content::File(_) = object.content else { return Ok(object) };
        let pinned = match object.content.pinned() {
            Ok(content) => content,
            // Deleted by hand, or between the look at the index and this one.
            Err(_) if bucket.get(key).is_none_or(|now| Arc::ptr_eq(&now, &object)) => {
                return Err(S3Error::no_such_key(key).into());
            }
            Err(_) => continue,
        };
        // Another version may have taken the file's place before it was opened.
        if bucket.get(key).is_some_and(|now| Arc::ptr_eq(&now, &object)) {
            return Ok(Arc::new(Object { content: pinned, ..(*object).clone() }));
        }
    }
}

pub async fn get(call: &Call<'_>) -> Answer<Response> {
    let (request, query) = (call.request, call.query);
    let object = find(call)?;
    if !call.ignores_conditions() {
        conditions::check_read(request, &object)?;
    }
    customer_key::check(request, "x-amz-", &object.attributes)?;
    let asked = request.header("range").filter(|_| !call.effects.ignore_range);
    let range = ByteRange::parse(asked, object.size).shifted(call.effects.shift_range, object.size);
    let (status, start, end) = match range {
        ByteRange::Whole => (200, 0, object.size),
        ByteRange::Part { start, end } => (206, start, end),
        ByteRange::Unsatisfiable => {
            let error = S3Error::new(416, "InvalidRange", "The requested range is not satisfiable");
            let error = error.with("RangeRequested", request.header("range").unwrap_or(""));
            let error = error.with("ActualObjectSize", object.size.to_string());
            return Err(error.header("Content-Range", format!("bytes */{}", object.size)).into());
        }
    };
    let mut response = Response::new(status);
    response.header("Last-Modified", object.modified.http());
    response.header("ETag", quoted(&object.etag));
    response.header("Accept-Ranges", "bytes");
    if status == 206 {
        response.header("Content-Range", format!("bytes {start}-{}/{}", end - 1, object.size));
    }
    describe(&mut response, call, &object);
    add_version(&mut response, call, &object)?;
    let whole = status == 200;
    if whole
        && request.header("x-amz-checksum-mode").is_some_and(|mode| mode.eq_ignore_ascii_case("enabled"))
        && let Some(checksum) = checksum_of(call, &object).await?
    {
        add_checksum(&mut response, &checksum);
    }
    if call.operation == Operation::GetObject && matches!(object.content, Content::Discarded) && object.size > 0 {
        let message = "The bytes of this object were discarded by the sink that received them";
        return Err(S3Error::new(403, "InvalidObjectState", message).into());
    }
    let now = call.server.now(call.effects);
    if call.operation == Operation::GetObject {
        archive::check_readable(&object, now, "The operation is not valid for the object's storage class")?;
    }
    archive::describe(&mut response, &object, now);
    // An override of the query comes after the object's own header, which `describe` has left out.
    for name in
        ["cache-control", "content-disposition", "content-encoding", "content-language", "content-type", "expires"]
    {
        if let Some(value) = query.get(&format!("response-{name}")) {
            response.header(name, value);
        }
    }
    response.body = Body::Object { object, start, end };
    Ok(response)
}

fn describe(response: &mut Response, call: &Call<'_>, object: &Object) {
    let overridden = |name: &str| call.query.0.iter().any(|(n, _)| n.strip_prefix("response-") == Some(name));
    let mut has_type = overridden("content-type");
    for (name, value) in &object.attributes.headers {
        if !overridden(name) {
            response.header(name, value);
        }
        has_type |= name == "content-type";
    }
    if !has_type {
        response.header("Content-Type", "binary/octet-stream");
    }
    if let Some(class) = &object.attributes.storage_class {
        response.header("x-amz-storage-class", class);
    }
    if let Some(tags) = &object.attributes.tags {
        response.header("x-amz-tagging-count", tags.split('&').filter(|t| !t.is_empty()).count().to_string());
    }
}

pub fn add_checksum(response: &mut Response, checksum: &Checksum) {
    response.header(checksum.algorithm.header(), &checksum.value);
    response.header("x-amz-checksum-type", checksum.kind.name());
}

/// The kept checksum; for a synthetic object it is computed, once.
async fn checksum_of(call: &Call<'_>, object: &Arc<Object>) -> Answer<Option<Checksum>> {
    let Content::Synthetic { seed } = object.content else { return Ok(object.checksum.clone()) };
    // Computing takes about a quarter of a second a GiB.
    const MAX_BYTES: u64 = 16 << 30;
    if object.size > MAX_BYTES {
        return Ok(None);
    }
    let size = object.size;
    let known = crate::store::lock(&call.server.synthetic_checksums).get(&(seed, size)).cloned();
    let value = match known {
        Some(value) => value,
        None => {
            let computed = tokio::task::spawn_blocking(move || synthetic_checksum(seed, size)).await;
            let value = base64(&computed.map_err(std::io::Error::other)?);
            let mut cache = crate::store::lock(&call.server.synthetic_checksums);
            if cache.len() >= 100_000 {
                cache.clear();
            }
            cache.insert((seed, size), value.clone());
            value
        }
    };
    Ok(Some(Checksum { algorithm: Algorithm::Crc64Nvme, value, kind: Kind::FullObject }))
}

fn synthetic_checksum(seed: u64, size: u64) -> Vec<u8> {
    use crate::store::content::{PIECE_BYTES, synthesize};
    let mut hasher = crate::checksum::Hasher::new(Algorithm::Crc64Nvme);
    let mut buffer = vec![0; PIECE_BYTES.min(size as usize)];
    let mut at = 0;
    while at < size {
        let length = buffer.len().min((size - at) as usize);
        synthesize(seed, at, &mut buffer[..length]);
        hasher.update(&buffer[..length]);
        at += length as u64;
    }
    hasher.finish()
}

pub async fn put(call: &Call<'_>, incoming: &mut Incoming<'_>) -> Answer<Response> {
    let (request, key) = (call.request, &call.target.key);
    let bucket = call.bucket()?;
    let attributes = Attributes::of(request)?;
    let check = |current: Option<&Object>| {
        if call.ignores_write_conditions() { Ok(()) } else { conditions::check_write(request, key, current) }
    };
    // Refused before the body where that is possible, as S3 does; decided for good when the object is put in place.
    check(bucket.get(key).as_deref())?;
    let received = receive(incoming, &call.expected(), call.place(&bucket)).await?;
    let checksum = call.variant().keeps_checksums().then(|| received.stored_checksum());
    let object = Object::new(received.content, received.size, received.etag, call.server.now(call.effects));
    let object = Object { attributes, checksum, ..object };
    let object = bucket.put(key, object, |current| check(current).map_err(Failure::from))?;
    let mut response = Response::new(200);
    response.header("ETag", quoted(&object.etag));
    add_version(&mut response, call, &object)?;
    if let Some(checksum) = &object.checksum {
        add_checksum(&mut response, checksum);
    }
    add_encryption(&mut response, &object.attributes);
    Ok(response)
}

/// What a write echoes of the encryption asked for.
pub fn add_encryption(response: &mut Response, attributes: &Attributes) {
    for (name, value) in attributes.headers.iter().filter(|(n, _)| n.starts_with("x-amz-server-side-encryption")) {
        response.header(name, value);
    }
}

pub fn delete(call: &Call<'_>) -> Answer<Response> {
    let key = &call.target.key;
    let conditional = call.request.header("if-match").is_some() && !call.ignores_write_conditions();
    let deleted = call.bucket()?.delete(key, version_id(call.query)?, |current| match conditional {
        true => conditions::check_write(call.request, key, current).map_err(Failure::from),
        false => Ok(()),
    })?;
    let mut response = Response::new(204);
    add_deleted(&mut response, &deleted);
    Ok(response)
}

/// DeleteObjects takes so many keys.
const MAX_DELETES: usize = 1000;

pub async fn delete_many(call: &Call<'_>, incoming: &mut Incoming<'_>) -> Answer<Response> {
    let request = call.request;
    let bucket = call.bucket()?;
    let md5 = request.header("content-md5").is_some();
    let checked = md5
        || request.headers().any(|(name, _)| Algorithm::of_header(name).is_some())
        || request.header("x-amz-trailer").is_some();
    if call.variant().require_content_md5 && !md5 {
        let message = "Missing required header for this request: Content-Md5.";
        return Err(S3Error::new(400, "MissingContentMD5", message).into());
    }
    if !checked {
        return Err(S3Error::invalid_request("Missing required header for this request: Content-MD5").into());
    }
    let document = receive_document(incoming, &call.expected()).await?;
    let document = xml::parse(&document, "Delete")?;
    let quiet = document.value("Quiet") == Some("true");
    let objects: Vec<_> = document.all("Object").collect();
    if objects.is_empty() || objects.len() > MAX_DELETES {
        return Err(S3Error::malformed_xml().into());
    }
    let mut out = Writer::new(4096);
    out.root("DeleteResult");
    for element in objects {
        let key = element.child("Key").map(|k| k.text.as_str()).filter(|k| !k.is_empty());
        let key = key.ok_or_else(S3Error::malformed_xml)?;
        let version = element.value("VersionId");
        let etag = element.value("ETag").map(|etag| etag.trim_matches('"'));
        let condition = |current: Option<&Object>| match (etag, current) {
            (Some(etag), Some(object)) if etag != object.etag && etag != "*" => {
                Err(S3Error::precondition_failed("If-Match").into())
            }
            _ => Ok(()),
        };
        let deleted = match call.effects.failed_delete(key) {
            Some(error) => Err(error.clone().into()),
            None => bucket.delete(key, version, condition),
        };
        match deleted {
            Ok(_) if quiet => {}
            Ok(deleted) => {
                out.open("Deleted");
                out.text("Key", key);
                out.optional("VersionId", version);
                if deleted.marker {
                    out.text("DeleteMarker", "true");
                    out.optional("DeleteMarkerVersionId", deleted.version.as_deref());
                }
                out.close("Deleted");
            }
            Err(Failure::S3(error)) => {
                out.open("Error");
                out.text("Key", key);
                out.optional("VersionId", version);
                out.text("Code", &error.code);
                out.text("Message", &error.message);
                out.close("Error");
            }
            Err(failure) => return Err(failure),
        }
    }
    out.close("DeleteResult");
    Ok(Response::xml(out.finish()))
}

pub fn tagging(call: &Call<'_>) -> Answer<Response> {
    let object = find(call)?;
    let mut out = Writer::new(512);
    out.root("Tagging");
    out.open("TagSet");
    let tags = crate::request::Query::parse(object.attributes.tags.as_deref().unwrap_or(""))?;
    for (name, value) in &tags.0 {
        out.open("Tag");
        out.text("Key", name);
        out.text("Value", value);
        out.close("Tag");
    }
    out.close("TagSet");
    out.close("Tagging");
    Ok(Response::xml(out.finish()))
}

/// Other bytes for the same key, as a fault asks for: the size given or the one it had.
pub async fn replacement(object: &Object, size: Option<u64>, now: Timestamp) -> std::io::Result<Object> {
    let size = size.unwrap_or(object.size);
    let seed = crate::store::content::mix(size ^ now.seconds as u64 ^ u64::from(now.millis) << 40)
        ^ crate::faults::fingerprint(&[&object.etag]);
    let replacement = Object::new(Content::Synthetic { seed }, size, synthetic_etag(seed, size), now);
    Ok(Object { attributes: object.attributes.clone(), ..replacement })
}
