//! Versions of objects: switched on, read, listed, told of.
use super::Call;
use crate::error::{Answer, S3Error};
use crate::incoming::Incoming;
use crate::receive::receive_document;
use crate::request::{Query, percent_encode_into};
use crate::response::Response;
use crate::store::bucket::Bucket;
use crate::store::object::Object;
use crate::store::versions::{Deleted, Missing, Version, Versioning};
use crate::store::versions_listing::{From, ListedVersion};
use crate::xml::{self, Writer};
use std::sync::Arc;

const MAX_KEYS: usize = 1000;

/// The version that a request names.
pub fn version_id(query: &Query) -> Result<Option<&str>, S3Error> {
    match query.get("versionId") {
        Some("") => Err(S3Error::invalid_argument("Version id cannot be the empty string")),
        id => Ok(id),
    }
}

/// The version asked for, or the newest.
pub fn find(bucket: &Bucket, key: &str, id: Option<&str>) -> Result<Arc<Object>, S3Error> {
    bucket.find(key, id).map_err(|missing| match missing {
        Missing::Key => S3Error::no_such_key(key),
        Missing::Deleted(marker) => marked(S3Error::no_such_key(key), &marker),
        Missing::Marker(marker) => {
            let message = "The specified method is not allowed against this resource.";
            let error = S3Error::new(405, "MethodNotAllowed", message).with("ResourceType", "DeleteMarker");
            let error = error.header("Allow", "DELETE").header("Last-Modified", marker.modified.http());
            marked(error, &marker)
        }
        Missing::Version => {
            let error = S3Error::new(404, "NoSuchVersion", "The specified version does not exist.");
            error.with("Key", key).with("VersionId", id.unwrap_or(""))
        }
    })
}

fn marked(error: S3Error, marker: &Version) -> S3Error {
    error.header("x-amz-delete-marker", "true").header("x-amz-version-id", &marker.id)
}

/// Tells which version was read or written, where there are any.
pub fn add_version(response: &mut Response, call: &Call<'_>, object: &Object) -> Result<(), S3Error> {
    if object.version.is_some() || call.bucket()?.versioning() != Versioning::Off {
        response.header("x-amz-version-id", object.version_id());
    }
    Ok(())
}

pub fn add_source_version(response: &mut Response, source: &Object) {
    if let Some(id) = &source.version {
        response.header("x-amz-copy-source-version-id", id);
    }
}

pub fn add_deleted(response: &mut Response, deleted: &Deleted) {
    if let Some(id) = &deleted.version {
        response.header("x-amz-version-id", id);
    }
    if deleted.marker {
        response.header("x-amz-delete-marker", "true");
    }
}

pub fn get_versioning(call: &Call<'_>) -> Answer<Response> {
    let mut out = Writer::new(256);
    out.root("VersioningConfiguration");
    match call.bucket()?.versioning() {
        Versioning::Off => {}
        Versioning::Enabled => out.text("Status", "Enabled"),
        Versioning::Suspended => out.text("Status", "Suspended"),
    }
    out.close("VersioningConfiguration");
    Ok(Response::xml(out.finish()))
}

pub async fn put_versioning(call: &Call<'_>, incoming: &mut Incoming<'_>) -> Answer<Response> {
    let bucket = call.bucket()?;
    let document = receive_document(incoming, &call.expected()).await?;
    let versioning = match xml::parse(&document, "VersioningConfiguration")?.value("Status") {
        Some("Enabled") => Versioning::Enabled,
        Some("Suspended") => Versioning::Suspended,
        _ => return Err(S3Error::malformed_xml().into()),
    };
    bucket.set_versioning(versioning).map_err(S3Error::not_implemented)?;
    Ok(Response::new(200))
}

pub fn list(call: &Call<'_>) -> Answer<Response> {
    let query = call.query;
    let bucket = call.bucket()?;
    let parameter = |name: &str| query.get(name).unwrap_or("");
    let (prefix, delimiter) = (parameter("prefix"), parameter("delimiter"));
    let (key_marker, id_marker) = (parameter("key-marker"), parameter("version-id-marker"));
    if key_marker.is_empty() && !id_marker.is_empty() {
        let message = "A version-id marker cannot be specified without a key marker.";
        return Err(S3Error::invalid_argument(message).into());
    }
    let max_keys = query.get("max-keys").and_then(|text| text.parse().ok()).unwrap_or(MAX_KEYS).min(MAX_KEYS);
    let from = match (key_marker, id_marker) {
        ("", _) => From::Start,
        (key, "") if !delimiter.is_empty() && key.ends_with(delimiter) => From::Prefix(key.as_bytes()),
        (key, "") => From::Key(key.as_bytes()),
        (key, id) => From::Version(key.as_bytes(), id),
    };
    let page = bucket.list_versions(prefix, delimiter, from, max_keys);

    let encodes = query.get("encoding-type") == Some("url");
    let text = |tag: &str, value: &[u8], out: &mut Writer| {
        out.open(tag);
        match encodes {
            true => percent_encode_into(out.raw(), value, true),
            false => out.escaped(value),
        }
        out.close(tag);
    };
    let mut out = Writer::new(1024 + page.versions.len() * 400);
    out.root("ListVersionsResult");
    out.text("Name", &bucket.name);
    text("Prefix", prefix.as_bytes(), &mut out);
    text("KeyMarker", key_marker.as_bytes(), &mut out);
    out.text("VersionIdMarker", id_marker);
    if page.is_truncated {
        match (page.versions.last(), page.prefixes.last()) {
            (Some(version), common) if common.is_none_or(|common| *common < version.key) => {
                text("NextKeyMarker", &version.key, &mut out);
                out.text("NextVersionIdMarker", &version.id);
            }
            (_, Some(common)) => text("NextKeyMarker", common, &mut out),
            _ => {}
        }
    }
    if !delimiter.is_empty() {
        text("Delimiter", delimiter.as_bytes(), &mut out);
    }
    out.display("MaxKeys", max_keys);
    if encodes {
        out.text("EncodingType", "url");
    }
    out.display("IsTruncated", page.is_truncated);
    for version in &page.versions {
        let tag = if version.item.is_some() { "Version" } else { "DeleteMarker" };
        out.open(tag);
        text("Key", &version.key, &mut out);
        describe(version, &mut out);
        out.close(tag);
    }
    for common in &page.prefixes {
        out.open("CommonPrefixes");
        text("Prefix", common, &mut out);
        out.close("CommonPrefixes");
    }
    out.close("ListVersionsResult");
    Ok(Response::xml(out.finish()))
}

fn describe(version: &ListedVersion, out: &mut Writer) {
    out.text("VersionId", &version.id);
    out.display("IsLatest", version.is_latest);
    out.text("LastModified", &version.modified.iso());
    if let Some(item) = &version.item {
        out.literal("<ETag>&quot;");
        item.write_etag(out.raw());
        out.literal("&quot;</ETag>");
        out.display("Size", item.size());
        let class = item.object().and_then(|object| object.attributes.storage_class.as_deref());
        out.text("StorageClass", class.unwrap_or("STANDARD"));
    }
    out.literal("<Owner><ID>local-s3</ID></Owner>");
}
