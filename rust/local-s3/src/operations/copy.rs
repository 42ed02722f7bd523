//! CopyObject and UploadPartCopy.
use super::objects::{add_checksum, quoted};
use super::versions::{add_source_version, add_version, find as find_version};
use super::{Call, access_points, archive, conditions, customer_key, multipart};
use crate::checksum::Algorithm;
use crate::config::EtagKind;
use crate::error::{Answer, Failure, S3Error};
use crate::keep::{Hashes, Place, Received, Writer as BodyWriter};
use crate::request::percent_decode;
use crate::response::Response;
use crate::store::content::{Content, PIECE_BYTES, Piece};
use crate::store::object::{Attributes, Object};
use crate::xml::Writer;
use bytes::Bytes;
use std::sync::Arc;

/// A CopyObject copies no more; greater objects are copied by parts.
const MAX_COPY_BYTES: u64 = 5 << 30;

/// The object that `x-amz-copy-source` names, if its conditions hold.
pub(super) fn source(call: &Call<'_>) -> Answer<(String, String, Arc<Object>)> {
    let header = call.request.header("x-amz-copy-source").unwrap_or("");
    let (path, version) = header.split_once("?versionId=").map_or((header, None), |(path, id)| (path, Some(id)));
    let path = percent_decode(path, false).and_then(|bytes| String::from_utf8(bytes).ok());
    let path = path.ok_or_else(|| S3Error::invalid_argument("Invalid copy source encoding."))?;
    let path = access_points::without_arn(path.strip_prefix('/').unwrap_or(&path));
    let message = "Copy Source must mention the source bucket and key: sourcebucket/sourcekey";
    let (bucket, key) =
        path.split_once('/').filter(|(_, key)| !key.is_empty()).ok_or_else(|| S3Error::invalid_argument(message))?;
    let object = find_version(&*call.server.store.bucket(bucket)?, key, version)?;
    if !call.ignores_conditions() {
        conditions::check_source(call.request, &object)?;
    }
    let message = "Operation is not valid for the source object's storage class";
    archive::check_readable(&object, call.server.now(call.effects), message)?;
    customer_key::check(call.request, "x-amz-copy-source-", &object.attributes)?;
    if matches!(object.content, Content::Discarded) && object.size > 0 {
        let message = "The bytes of the source were discarded by the sink that received them";
        return Err(S3Error::new(403, "InvalidObjectState", message).into());
    }
    Ok((bucket.to_owned(), key.to_owned(), object))
}

/// Copies a range of bytes, hashing them on the way.
async fn transfer(
    call: &Call<'_>,
    object: &Object,
    (start, end): (u64, u64),
    place: Place,
    algorithm: Option<Algorithm>,
) -> Answer<Received> {
    let content = object.content.pinned()?;
    let mut hashes = Hashes::new(call.etag() == EtagKind::Md5, false, algorithm);
    let mut writer = BodyWriter::new(place, Some(end - start));
    let mut scratch = Vec::new();
    let mut at = start;
    while at < end {
        let piece = content.piece(at, end.min(at + PIECE_BYTES as u64), &mut scratch).await?;
        let bytes = match piece {
            Piece::Shared(bytes) => bytes,
            Piece::Scratch(length) => Bytes::copy_from_slice(&scratch[..length]),
        };
        if bytes.is_empty() {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
        hashes.update(&bytes);
        at += bytes.len() as u64;
        writer.push(bytes).await?;
        // Hashing a large object must not keep the thread's other connections waiting.
        tokio::task::yield_now().await;
    }
    let size = writer.size;
    Ok(hashes.finish().received(writer.finish().await?, size, call.etag()))
}

pub async fn copy(call: &Call<'_>) -> Answer<Response> {
    let (request, key) = (call.request, &call.target.key);
    let bucket = call.bucket()?;
    let (source_bucket, source_key, object) = source(call)?;
    if object.size > MAX_COPY_BYTES {
        let message =
            "The specified copy source is larger than the maximum allowable size for a copy source: 5368709120";
        return Err(S3Error::invalid_request(message).into());
    }
    let replaces = match request.header("x-amz-metadata-directive").unwrap_or("COPY") {
        "COPY" => false,
        "REPLACE" => true,
        _ => return Err(S3Error::invalid_argument("Unknown metadata directive.").into()),
    };
    let sent = Attributes::of(request)?;
    let onto_itself = source_bucket == bucket.name && source_key == *key;
    if onto_itself && !replaces && sent.storage_class.is_none() {
        let message = "This copy request is illegal because it is trying to copy an object to itself without changing \
                       the object's metadata, storage class, website redirect location or encryption attributes.";
        return Err(S3Error::invalid_request(message).into());
    }
    let mut attributes = if replaces { sent.clone() } else { object.attributes.clone().encrypted_as(&sent) };
    // The storage class is the new object's own, whatever the directive.
    attributes.storage_class = sent.storage_class;
    attributes.archive_tier = None;
    attributes.tags = match request.header("x-amz-tagging-directive") {
        Some("REPLACE") => sent.tags,
        _ => object.attributes.tags.clone(),
    };
    let algorithm = match request.header("x-amz-checksum-algorithm") {
        Some(name) => Algorithm::of_name(name),
        None => object.checksum.as_ref().map(|checksum| checksum.algorithm),
    };
    let now = call.server.now(call.effects);
    let copy = if matches!(object.content, Content::Synthetic { .. }) && call.server.store.directory.is_none() {
        Object { modified: now, attributes, restore: None, ..(*object).clone() }
    } else {
        let received = transfer(call, &object, (0, object.size), call.place(&bucket), algorithm).await?;
        let checksum = call.variant().keeps_checksums().then(|| received.stored_checksum());
        let object = Object::new(received.content, received.size, received.etag, now);
        Object { attributes, checksum, ..object }
    };
    let copy = bucket.put(key, copy, |current| match call.ignores_write_conditions() {
        true => Ok(()),
        false => conditions::check_write(request, key, current).map_err(Failure::from),
    })?;
    let mut out = Writer::new(512);
    out.root("CopyObjectResult");
    out.text("LastModified", &copy.modified.iso());
    out.text("ETag", &quoted(&copy.etag));
    if let Some(checksum) = &copy.checksum {
        out.text(checksum.algorithm.element(), &checksum.value);
        out.text("ChecksumType", checksum.kind.name());
    }
    out.close("CopyObjectResult");
    let mut response = Response::xml(out.finish());
    add_version(&mut response, call, &copy)?;
    add_source_version(&mut response, &object);
    if let Some(checksum) = &copy.checksum {
        add_checksum(&mut response, checksum);
    }
    Ok(response)
}

pub async fn copy_part(call: &Call<'_>) -> Answer<Response> {
    let bucket = call.bucket()?;
    let number = multipart::part_number(call.query)?;
    let upload = multipart::find_upload(call, &bucket)?;
    let (_, _, object) = source(call)?;
    let range = match call.request.header("x-amz-copy-source-range") {
        None => (0, object.size),
        Some(header) => {
            let ends = header.strip_prefix("bytes=").and_then(|spec| spec.split_once('-'));
            let ends = ends.and_then(|(a, b)| Some((a.parse::<u64>().ok()?, b.parse::<u64>().ok()?)));
            let message = "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last \
                           are the zero-based offsets of the first and last bytes to copy";
            let (first, last) = ends.filter(|(a, b)| a <= b).ok_or_else(|| S3Error::invalid_argument(message))?;
            if last >= object.size {
                let message = format!("Range specified is not valid for source object of size: {}", object.size);
                return Err(S3Error::invalid_argument(message).into());
            }
            (first, last + 1)
        }
    };
    let algorithm = upload.checksum.map(|(algorithm, _)| algorithm);
    let received = transfer(call, &object, range, call.place(&bucket), algorithm).await?;
    let part = multipart::keep_part(call, &bucket, &upload, number, received)?;
    let mut out = Writer::new(512);
    out.root("CopyPartResult");
    out.text("LastModified", &part.modified.iso());
    out.text("ETag", &quoted(&part.etag));
    if let Some((algorithm, digest)) = &part.checksum {
        out.text(algorithm.element(), &crate::checksum::base64(digest));
    }
    out.close("CopyPartResult");
    let mut response = Response::xml(out.finish());
    add_source_version(&mut response, &object);
    Ok(response)
}
