//! Multipart uploads.
use super::objects::{add_checksum, add_encryption, quoted};
use super::versions::add_version;
use super::{Call, Operation, conditions, customer_key};
use crate::checksum::{Algorithm, Checksum, Kind, base64, from_base64, hex, md5};
use crate::config::EtagKind;
use crate::error::{Answer, Failure, S3Error};
use crate::incoming::Incoming;
use crate::keep::{Place, Received, Writer as BodyWriter, opaque_etag};
use crate::receive::{receive, receive_document};
use crate::request::{Query, percent_encode};
use crate::response::Response;
use crate::store::bucket::Bucket;
use crate::store::content::{Content, PIECE_BYTES, Piece, Segments, mix};
use crate::store::lock;
use crate::store::object::{Attributes, Object};
use crate::store::upload::{Part, Upload};
use crate::xml::{self, Element, Writer};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const MAX_PARTS: u32 = 10_000;

pub fn find_upload(call: &Call<'_>, bucket: &Bucket) -> Result<Arc<Upload>, S3Error> {
    let id = call.query.get("uploadId").unwrap_or("");
    let upload = bucket.upload(&call.target.key, id).ok_or_else(|| S3Error::no_such_upload(id))?;
    if matches!(call.operation, Operation::UploadPart | Operation::UploadPartCopy) {
        customer_key::check(call.request, "x-amz-", &upload.attributes)?;
    }
    Ok(upload)
}

pub fn part_number(query: &Query) -> Result<u32, S3Error> {
    let number = query.get("partNumber").and_then(|text| text.parse().ok()).filter(|n| (1..=MAX_PARTS).contains(n));
    number.ok_or_else(|| S3Error::invalid_argument("Part number must be an integer between 1 and 10000, inclusive"))
}

pub fn create(call: &Call<'_>) -> Answer<Response> {
    let request = call.request;
    let bucket = call.bucket()?;
    let algorithm = match request.header("x-amz-checksum-algorithm").filter(|_| !call.variant().ignore_checksums) {
        None => None,
        Some(name) => {
            let message = "Checksum algorithm provided is unsupported. Please try again with any of the valid types: \
                           [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]";
            Some(Algorithm::of_name(name).ok_or_else(|| S3Error::invalid_request(message))?)
        }
    };
    let kind = match (algorithm, request.header("x-amz-checksum-type")) {
        (None, _) => None,
        (Some(Algorithm::Crc64Nvme), None | Some("FULL_OBJECT")) => Some(Kind::FullObject),
        (Some(algorithm), Some("FULL_OBJECT")) if algorithm.combines() => Some(Kind::FullObject),
        (Some(algorithm), None | Some("COMPOSITE")) if algorithm != Algorithm::Crc64Nvme => Some(Kind::Composite),
        (Some(algorithm), Some(kind)) => {
            let message =
                format!("The {kind} checksum type cannot be used with the {} checksum algorithm.", algorithm.name());
            return Err(S3Error::invalid_request(message).into());
        }
        (Some(_), None) => None,
    };
    static UPLOADS: AtomicU64 = AtomicU64::new(0);
    let number = UPLOADS.fetch_add(1, Ordering::Relaxed);
    let now = call.server.now(call.effects);
    let id = hex(&[number.to_be_bytes(), mix(number ^ (now.seconds as u64) << 20).to_be_bytes()].concat());
    let upload = Upload {
        id: id.clone(),
        key: call.target.key.clone(),
        attributes: Attributes::of(request)?,
        checksum: algorithm.zip(kind),
        initiated: now,
        parts: Default::default(),
    };
    let mut out = Writer::new(512);
    out.root("InitiateMultipartUploadResult");
    out.text("Bucket", &bucket.name);
    out.text("Key", &upload.key);
    out.text("UploadId", &id);
    out.close("InitiateMultipartUploadResult");
    let mut response = Response::xml(out.finish());
    if let Some((algorithm, kind)) = upload.checksum {
        response.header("x-amz-checksum-algorithm", algorithm.name());
        response.header("x-amz-checksum-type", kind.name());
    }
    add_encryption(&mut response, &upload.attributes);
    bucket.add_upload(Arc::new(upload));
    Ok(response)
}

pub async fn upload_part(call: &Call<'_>, incoming: &mut Incoming<'_>) -> Answer<Response> {
    let bucket = call.bucket()?;
    let number = part_number(call.query)?;
    let upload = find_upload(call, &bucket)?;
    let mut expected = call.expected();
    expected.wanted = upload.checksum.map(|(algorithm, _)| algorithm);
    let received = receive(incoming, &expected, call.place(&bucket)).await?;
    if let (Some((wanted, _)), Some((sent, _))) = (upload.checksum, &received.checksum)
        && wanted != *sent
    {
        let message = format!(
            "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {}",
            wanted.name().to_lowercase(),
            sent.name().to_lowercase()
        );
        return Err(S3Error::invalid_request(message).into());
    }
    let mut response = Response::new(200);
    response.header("ETag", quoted(&received.etag));
    if let Some((algorithm, digest)) = &received.checksum {
        response.header(algorithm.header(), base64(digest));
    }
    add_encryption(&mut response, &upload.attributes);
    keep_part(call, &bucket, &upload, number, received)?;
    Ok(response)
}

/// Adds a part to an upload that is still in progress.
pub fn keep_part(
    call: &Call<'_>,
    bucket: &Bucket,
    upload: &Upload,
    number: u32,
    received: Received,
) -> Answer<Arc<Part>> {
    let part = Arc::new(Part {
        content: received.content,
        size: received.size,
        md5: received.md5,
        etag: received.etag,
        checksum: received.checksum,
        crc64nvme: received.crc64nvme,
        modified: call.server.now(call.effects),
    });
    let mut parts = lock(&upload.parts);
    // It may have been completed or aborted while the body came in.
    if bucket.upload(&upload.key, &upload.id).is_none() {
        return Err(S3Error::no_such_upload(&upload.id).into());
    }
    parts.insert(number, part.clone());
    Ok(part)
}

/// One `<Part>` of a CompleteMultipartUpload and the part that it names.
struct Chosen {
    number: u32,
    part: Arc<Part>,
}

fn choose(call: &Call<'_>, upload: &Upload, document: &Element) -> Result<Vec<Chosen>, S3Error> {
    let parts = lock(&upload.parts);
    let mut chosen: Vec<Chosen> = Vec::new();
    for element in document.all("Part") {
        let number: u32 =
            element.value("PartNumber").and_then(|n| n.parse().ok()).ok_or_else(S3Error::malformed_xml)?;
        let etag = element.value("ETag").ok_or_else(S3Error::malformed_xml)?.trim_matches('"');
        if chosen.last().is_some_and(|last| last.number >= number) {
            let message = "The list of parts was not in ascending order. Parts must be ordered by part number.";
            return Err(S3Error::new(400, "InvalidPartOrder", message).with("UploadId", &upload.id));
        }
        let invalid = || {
            let message = "One or more of the specified parts could not be found. The part may not have been uploaded, \
                           or the specified entity tag may not match the part's entity tag.";
            let error = S3Error::new(400, "InvalidPart", message).with("UploadId", &upload.id);
            error.with("PartNumber", number.to_string()).with("ETag", etag)
        };
        let part = parts.get(&number).filter(|part| part.etag == etag).ok_or_else(invalid)?;
        for algorithm in Algorithm::ALL {
            let Some(value) = element.value(algorithm.element()) else { continue };
            let known = match &part.checksum {
                Some((known, digest)) if *known == algorithm => digest,
                _ if algorithm == Algorithm::Crc64Nvme => &part.crc64nvme,
                _ => continue,
            };
            if from_base64(value).as_ref() != Some(known) {
                return Err(invalid());
            }
        }
        if let Some((algorithm, Kind::Composite)) = upload.checksum
            && element.value(algorithm.element()).is_none()
        {
            let name = algorithm.name().to_lowercase();
            let message = format!(
                "The upload was created using a {name} checksum. The complete request must include the checksum \
                     for each part. It was missing for part {number} in the request."
            );
            return Err(S3Error::invalid_request(message));
        }
        chosen.push(Chosen { number, part: part.clone() });
    }
    let Some((last, others)) = chosen.split_last() else { return Err(S3Error::malformed_xml()) };
    if let Some(small) = others.iter().find(|c| c.part.size < call.config.min_part_bytes) {
        let message = "Your proposed upload is smaller than the minimum allowed size";
        let error = S3Error::new(400, "EntityTooSmall", message).with("PartNumber", small.number.to_string());
        let error = error.with("ProposedSize", small.part.size.to_string()).with("ETag", &small.part.etag);
        return Err(error.with("MinSizeAllowed", call.config.min_part_bytes.to_string()));
    }
    if call.variant().uniform_parts {
        let size = others.first().map_or(last.part.size, |first| first.part.size);
        if others.iter().any(|c| c.part.size != size) || last.part.size > size {
            return Err(S3Error::new(400, "InvalidPart", "All non-trailing parts must have the same length."));
        }
    }
    Ok(chosen)
}

/// The checksum of the whole, as the upload asked for it or, when it did not, as S3 adds it.
fn whole_checksum(upload: &Upload, chosen: &[Chosen]) -> Option<Checksum> {
    let (algorithm, kind) = upload.checksum.unwrap_or((Algorithm::Crc64Nvme, Kind::FullObject));
    let digest = |part: &Part| match &part.checksum {
        Some((known, digest)) if *known == algorithm => Some(digest.clone()),
        _ => (algorithm == Algorithm::Crc64Nvme).then(|| part.crc64nvme.clone()),
    };
    if kind == Kind::Composite {
        let digests: Option<Vec<_>> = chosen.iter().map(|c| digest(&c.part)).collect();
        let value = format!("{}-{}", base64(&algorithm.digest(&digests?.concat())), chosen.len());
        return Some(Checksum { algorithm, value, kind });
    }
    let mut parts = chosen.iter();
    let mut whole = digest(&parts.next()?.part)?;
    for Chosen { part, .. } in parts {
        whole = algorithm.combine(&whole, &digest(part)?, part.size)?;
    }
    Some(Checksum::full(algorithm, &whole))
}

fn whole_etag(call: &Call<'_>, chosen: &[Chosen], size: u64) -> String {
    let count = chosen.len();
    match call.etag() {
        EtagKind::Md5 => {
            let digests: Vec<u8> = chosen.iter().flat_map(|c| c.part.md5).collect();
            format!("{}-{count}", hex(&md5(&digests)))
        }
        EtagKind::Opaque => format!("{}-{count}", opaque_etag(&chosen[0].part.crc64nvme, size)),
    }
}

/// The bytes of the parts as one content.
async fn join(call: &Call<'_>, bucket: &Bucket, chosen: &[Chosen]) -> Answer<Content> {
    let place = call.place(bucket);
    match place {
        Place::Nowhere => Ok(Content::Discarded),
        Place::Memory => {
            let mut segments = Segments::default();
            for Chosen { part, .. } in chosen {
                match &part.content {
                    Content::Memory(bytes) => segments.append(bytes),
                    content => segments.append(&content.collect(0, part.size).await?),
                }
            }
            Ok(Content::Memory(segments))
        }
        Place::File(_) => {
            let mut writer = BodyWriter::new(place, None);
            let mut scratch = Vec::with_capacity(PIECE_BYTES);
            for Chosen { part, .. } in chosen {
                let content = part.content.pinned()?;
                let mut at = 0;
                while at < part.size {
                    let bytes = match content.piece(at, part.size, &mut scratch).await? {
                        Piece::Shared(bytes) => bytes,
                        Piece::Scratch(length) => Bytes::copy_from_slice(&scratch[..length]),
                    };
                    at += bytes.len() as u64;
                    writer.push(bytes).await?;
                }
            }
            writer.finish().await
        }
    }
}

pub async fn complete(call: &Call<'_>, incoming: &mut Incoming<'_>) -> Answer<Response> {
    let (request, key) = (call.request, &call.target.key);
    let bucket = call.bucket()?;
    let upload = find_upload(call, &bucket)?;
    // A checksum in the head is the object's here, not that of the document.
    let mut expected = call.expected();
    expected.ignore_checksums = true;
    let document = receive_document(incoming, &expected).await?;
    let document = xml::parse(&document, "CompleteMultipartUpload")?;
    let chosen = choose(call, &upload, &document)?;
    let size = chosen.iter().map(|c| c.part.size).sum::<u64>();
    if let Some(header) = request.header("x-amz-mp-object-size")
        && header.parse() != Ok(size)
    {
        let message = "The provided 'x-amz-mp-object-size' header value does not match what was computed.";
        return Err(S3Error::invalid_request(message).with("ActualObjectSize", size.to_string()).into());
    }
    let checksum = if call.variant().keeps_checksums() { whole_checksum(&upload, &chosen) } else { None };
    if let Some(checksum) = &checksum {
        for algorithm in Algorithm::ALL {
            let Some(sent) = request.header(algorithm.header()) else { continue };
            let computed = checksum.value.split('-').next();
            if algorithm != checksum.algorithm || sent.split('-').next() != computed {
                let message = format!("The {} you specified did not match the calculated checksum.", algorithm.name());
                return Err(S3Error::new(400, "BadDigest", message).into());
            }
        }
    }
    let content = join(call, &bucket, &chosen).await?;
    let object = Object::new(content, size, whole_etag(call, &chosen, size), call.server.now(call.effects));
    let parts = chosen.iter().map(|c| c.part.size).collect();
    let object = Object { attributes: upload.attributes.clone(), checksum, parts, ..object };
    let object = bucket.put(key, object, |current| {
        if !call.ignores_write_conditions() {
            conditions::check_write(request, key, current)?;
        }
        // Of two requests that complete one upload, one finds it gone.
        let gone = || Failure::from(S3Error::no_such_upload(&upload.id));
        bucket.remove_upload(&upload.id).map(|_| ()).ok_or_else(gone)
    })?;
    let mut out = Writer::new(1024);
    out.root("CompleteMultipartUploadResult");
    out.text("Location", &format!("http://localhost/{}/{key}", bucket.name));
    out.text("Bucket", &bucket.name);
    out.text("Key", key);
    if call.variant().no_completion_etag {
        out.text("ETag", "");
    } else {
        out.text("ETag", &quoted(&object.etag));
    }
    if let Some(checksum) = &object.checksum {
        out.text(checksum.algorithm.element(), &checksum.value);
        out.text("ChecksumType", checksum.kind.name());
    }
    out.close("CompleteMultipartUploadResult");
    let mut response = Response::xml(out.finish());
    add_version(&mut response, call, &object)?;
    if let Some(checksum) = &object.checksum {
        add_checksum(&mut response, checksum);
    }
    add_encryption(&mut response, &object.attributes);
    Ok(response)
}

pub fn abort(call: &Call<'_>) -> Answer<Response> {
    let bucket = call.bucket()?;
    let upload = find_upload(call, &bucket)?;
    bucket.remove_upload(&upload.id);
    Ok(Response::new(204))
}

pub fn list_parts(call: &Call<'_>) -> Answer<Response> {
    let bucket = call.bucket()?;
    let upload = find_upload(call, &bucket)?;
    let number = |name: &str| call.query.get(name).and_then(|text| text.parse::<u32>().ok());
    let after = number("part-number-marker").unwrap_or(0);
    let most = number("max-parts").unwrap_or(1000).min(1000) as usize;
    let parts = lock(&upload.parts);
    let page: Vec<_> = parts.range(after + 1..).take(most).collect();
    let last = page.last().map_or(after, |(number, _)| **number);
    let mut out = Writer::new(256 + page.len() * 200);
    out.root("ListPartsResult");
    out.text("Bucket", &bucket.name);
    out.text("Key", &upload.key);
    out.text("UploadId", &upload.id);
    out.display("PartNumberMarker", after);
    out.display("NextPartNumberMarker", last);
    out.display("MaxParts", most);
    out.display("IsTruncated", parts.range(last + 1..).next().is_some());
    if let Some((algorithm, kind)) = upload.checksum {
        out.text("ChecksumAlgorithm", algorithm.name());
        out.text("ChecksumType", kind.name());
    }
    for (number, part) in page {
        out.open("Part");
        out.display("PartNumber", number);
        out.text("LastModified", &part.modified.iso());
        out.text("ETag", &quoted(&part.etag));
        out.display("Size", part.size);
        if let Some((algorithm, digest)) = &part.checksum {
            out.text(algorithm.element(), &base64(digest));
        }
        out.close("Part");
    }
    out.close("ListPartsResult");
    Ok(Response::xml(out.finish()))
}

pub fn list_uploads(call: &Call<'_>) -> Answer<Response> {
    let query = call.query;
    let bucket = call.bucket()?;
    let parameter = |name: &str| query.get(name).unwrap_or("");
    let (prefix, key_marker, id_marker) = (parameter("prefix"), parameter("key-marker"), parameter("upload-id-marker"));
    let most = query.get("max-uploads").and_then(|text| text.parse().ok()).unwrap_or(1000_usize).min(1000);
    let uploads: Vec<_> = bucket
        .uploads()
        .into_iter()
        .filter(|u| if call.variant().uploads_by_name { u.key == prefix } else { u.key.starts_with(prefix) })
        .filter(|u| match u.key.as_bytes().cmp(key_marker.as_bytes()) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => key_marker.is_empty() || (!id_marker.is_empty() && u.id.as_str() > id_marker),
            std::cmp::Ordering::Greater => true,
        })
        .collect();
    let encodes = query.get("encoding-type") == Some("url");
    let text = |name: &str, value: &str, out: &mut Writer| match encodes {
        true => out.text(name, &percent_encode(value.as_bytes(), true)),
        false => out.text(name, value),
    };
    let page = &uploads[..most.min(uploads.len())];
    let mut out = Writer::new(512 + page.len() * 300);
    out.root("ListMultipartUploadsResult");
    out.text("Bucket", &bucket.name);
    text("KeyMarker", key_marker, &mut out);
    out.text("UploadIdMarker", id_marker);
    if let (Some(last), true) = (page.last(), page.len() < uploads.len()) {
        text("NextKeyMarker", &last.key, &mut out);
        out.text("NextUploadIdMarker", &last.id);
    }
    text("Prefix", prefix, &mut out);
    if encodes {
        out.text("EncodingType", "url");
    }
    out.display("MaxUploads", most);
    out.display("IsTruncated", page.len() < uploads.len());
    for upload in page {
        out.open("Upload");
        text("Key", &upload.key, &mut out);
        out.text("UploadId", &upload.id);
        out.text("StorageClass", upload.attributes.storage_class.as_deref().unwrap_or("STANDARD"));
        out.text("Initiated", &upload.initiated.iso());
        if let Some((algorithm, kind)) = upload.checksum {
            out.text("ChecksumAlgorithm", algorithm.name());
            out.text("ChecksumType", kind.name());
        }
        out.close("Upload");
    }
    out.close("ListMultipartUploadsResult");
    Ok(Response::xml(out.finish()))
}
