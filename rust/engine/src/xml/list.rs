//! Listings: of objects (both versions of ListObjects), and of uploads that are under way.

use super::answer::{open_root, service_text};
use super::scan::Scanner;
use super::{XmlError, excerpt};
use crate::date::parse_iso8601;

/// The index in [`ListPage::storage_classes`] of an object whose class was not told.
pub const NO_STORAGE_CLASS: u8 = u8::MAX;

/// One page of a listing, as columns: a dataset has millions of keys, and none needs an allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListPage {
    /// The UTF-8 of all keys, one behind the other.
    pub keys: Vec<u8>,
    /// Where in `keys` each key ends.
    pub key_ends: Vec<u32>,
    /// Sizes in bytes.
    pub sizes: Vec<u64>,
    /// Times of last modification in epoch seconds, rounded down; 0 where the server told none.
    pub mtimes: Vec<i64>,
    /// All ETags without their quotes, one behind the other; empty where the server told none.
    pub etags: Vec<u8>,
    /// Where in `etags` each ETag ends.
    pub etag_ends: Vec<u32>,
    /// Indices into `class_names`, or [`NO_STORAGE_CLASS`].
    pub storage_classes: Vec<u8>,
    /// The storage classes of this page, in the order of their first appearance.
    pub class_names: Vec<String>,
    /// What was told of objects restored from an archive: of few, so not a column.
    pub restore_status: Vec<RestoreStatus>,
    pub common_prefixes: Vec<String>,
    pub is_truncated: bool,
    /// Of ListObjectsV2; a page that is truncated and has neither this nor `next_marker` goes on behind its last key.
    pub next_token: Option<String>,
    /// Of version 1 of ListObjects, where a delimiter was given.
    pub next_marker: Option<String>,
    /// What the server says, or else the number of keys and common prefixes.
    pub key_count: u64,
}

/// The state of an archived object that is being, or was, restored for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreStatus {
    /// Which object of the page.
    pub index: u32,
    pub is_in_progress: bool,
    /// When the restored copy goes away again, as the server wrote it.
    pub expiry: Option<String>,
}

impl ListPage {
    /// Number of objects, without the common prefixes.
    pub fn len(&self) -> usize {
        self.key_ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.key_ends.is_empty()
    }

    /// The bytes of key `index`, which are UTF-8.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn key(&self, index: usize) -> &[u8] {
        slice(&self.keys, &self.key_ends, index)
    }

    /// The ETag of object `index`, without quotes.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn etag(&self, index: usize) -> &[u8] {
        slice(&self.etags, &self.etag_ends, index)
    }
}

fn slice<'a>(bytes: &'a [u8], ends: &[u32], index: usize) -> &'a [u8] {
    let start = if index == 0 { 0 } else { ends[index - 1] as usize };
    &bytes[start..ends[index] as usize]
}

/// Reads a ListBucketResult of either version.
///
/// Where the answer says that it is URL-encoded, keys, prefixes and markers are decoded as forms are:
/// `+` is a space, `%XX` a byte; a `%` that begins no such pair is kept.
///
/// # Errors
/// [`XmlError::Service`] if the document is an error; [`XmlError::KeyNotUtf8`] if a key is not text;
/// others if the document is malformed or lacks a key or size.
pub fn parse_list(xml: &[u8]) -> Result<ListPage, XmlError> {
    let mut scanner = Scanner::new(xml)?;
    open_root(&mut scanner, &["ListBucketResult"])?;
    let mut page = ListPage::with_room_for(xml.len());
    let mut is_url_encoded = false;
    let mut key_count = None;
    while let Some(name) = scanner.child()? {
        match name {
            "Contents" => read_object(&mut scanner, &mut page)?,
            "CommonPrefixes" => read_prefixes(&mut scanner, &mut page.common_prefixes)?,
            "IsTruncated" => page.is_truncated = boolean("IsTruncated", scanner.text()?)?,
            "NextContinuationToken" => page.next_token = service_text(&mut scanner)?,
            "NextMarker" => page.next_marker = Some(scanner.text()?.to_owned()).filter(|marker| !marker.is_empty()),
            "KeyCount" => key_count = Some(number("KeyCount", scanner.text()?)?),
            "EncodingType" => is_url_encoded = scanner.text()?.trim().eq_ignore_ascii_case("url"),
            _ => scanner.skip()?,
        }
    }
    // Only now, because the encoding may be told behind the keys.
    if is_url_encoded {
        page.decode_keys()?;
        for text in page.common_prefixes.iter_mut().chain(page.next_marker.as_mut()) {
            url_decode_text(text)?;
        }
    }
    page.key_count = key_count.unwrap_or((page.len() + page.common_prefixes.len()) as u64);
    Ok(page)
}

impl ListPage {
    fn with_room_for(document_bytes: usize) -> Self {
        // The shortest entries of S3 are some 200 bytes; 1,000 is the most that it sends.
        let count = (document_bytes / 200).min(1_000);
        Self {
            keys: Vec::with_capacity(count * 48),
            key_ends: Vec::with_capacity(count),
            sizes: Vec::with_capacity(count),
            mtimes: Vec::with_capacity(count),
            etags: Vec::with_capacity(count * 32),
            etag_ends: Vec::with_capacity(count),
            storage_classes: Vec::with_capacity(count),
            ..Self::default()
        }
    }

    fn class_index(&mut self, class: &str) -> Result<u8, XmlError> {
        // Almost always that of the object before, or one of very few.
        let index = match self.class_names.iter().position(|name| name == class) {
            Some(index) => index,
            None => {
                self.class_names.push(class.to_owned());
                self.class_names.len() - 1
            }
        };
        u8::try_from(index)
            .ok()
            .filter(|&index| index != NO_STORAGE_CLASS)
            .ok_or_else(|| XmlError::BadValue { element: "StorageClass", value: excerpt(class) })
    }

    fn decode_keys(&mut self) -> Result<(), XmlError> {
        if !self.keys.iter().any(|byte| matches!(byte, b'%' | b'+')) {
            return Ok(());
        }
        let encoded = std::mem::take(&mut self.keys);
        self.keys.reserve(encoded.len());
        let mut start = 0;
        for end in &mut self.key_ends {
            let begin = self.keys.len();
            url_decode(&encoded[start..*end as usize], &mut self.keys);
            start = *end as usize;
            // No longer than before, so it still fits 32 bits.
            *end = self.keys.len() as u32;
            let key = &self.keys[begin..];
            if std::str::from_utf8(key).is_err() {
                return Err(XmlError::KeyNotUtf8 { key: key.to_owned() });
            }
        }
        Ok(())
    }
}

fn read_object(scanner: &mut Scanner<'_>, page: &mut ListPage) -> Result<(), XmlError> {
    let (key_start, etag_start) = (page.keys.len(), page.etags.len());
    let mut has_key = false;
    let mut size = None;
    let mut mtime = 0;
    let mut class = NO_STORAGE_CLASS;
    while let Some(name) = scanner.child()? {
        match name {
            "Key" => {
                page.keys.truncate(key_start);
                page.keys.extend_from_slice(scanner.text()?.as_bytes());
                has_key = true;
            }
            "LastModified" => {
                let text = scanner.text()?;
                mtime = parse_iso8601(text)
                    .ok_or_else(|| XmlError::BadValue { element: "LastModified", value: excerpt(text) })?;
            }
            "ETag" => {
                page.etags.truncate(etag_start);
                page.etags.extend_from_slice(unquoted(scanner.text()?).as_bytes());
            }
            "Size" => size = Some(number("Size", scanner.text()?)?),
            "StorageClass" => {
                let text = scanner.text()?;
                class = if text.is_empty() { NO_STORAGE_CLASS } else { page.class_index(text)? };
            }
            "RestoreStatus" => {
                let index = page.key_ends.len() as u32;
                let status = read_restore_status(scanner, index)?;
                page.restore_status.push(status);
            }
            _ => scanner.skip()?,
        }
    }
    if !has_key {
        return Err(XmlError::Missing { element: "Key" });
    }
    page.sizes.push(size.ok_or(XmlError::Missing { element: "Size" })?);
    page.mtimes.push(mtime);
    page.storage_classes.push(class);
    // The scanner takes no document of 4 GiB, and this is part of one.
    page.key_ends.push(page.keys.len() as u32);
    page.etag_ends.push(page.etags.len() as u32);
    Ok(())
}

fn read_restore_status(scanner: &mut Scanner<'_>, index: u32) -> Result<RestoreStatus, XmlError> {
    let mut status = RestoreStatus { index, is_in_progress: false, expiry: None };
    while let Some(name) = scanner.child()? {
        match name {
            "IsRestoreInProgress" => status.is_in_progress = boolean("IsRestoreInProgress", scanner.text()?)?,
            "RestoreExpiryDate" => status.expiry = service_text(scanner)?,
            _ => scanner.skip()?,
        }
    }
    Ok(status)
}

fn read_prefixes(scanner: &mut Scanner<'_>, prefixes: &mut Vec<String>) -> Result<(), XmlError> {
    while let Some(name) = scanner.child()? {
        match name {
            "Prefix" => prefixes.push(scanner.text()?.to_owned()),
            _ => scanner.skip()?,
        }
    }
    Ok(())
}

/// A multipart upload that was begun and neither completed nor aborted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upload {
    pub key: String,
    pub upload_id: String,
    /// When it was begun, in epoch seconds; 0 where the server told not.
    pub initiated_s: i64,
}

/// One page of a listing of uploads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadPage {
    pub uploads: Vec<Upload>,
    pub is_truncated: bool,
    pub next_key_marker: Option<String>,
    pub next_upload_id_marker: Option<String>,
}

/// Reads a ListMultipartUploadsResult; keys are decoded as in [`parse_list`].
///
/// # Errors
/// As [`parse_list`].
pub fn parse_uploads(xml: &[u8]) -> Result<UploadPage, XmlError> {
    let mut scanner = Scanner::new(xml)?;
    open_root(&mut scanner, &["ListMultipartUploadsResult"])?;
    let mut page = UploadPage::default();
    let mut is_url_encoded = false;
    while let Some(name) = scanner.child()? {
        match name {
            "Upload" => page.uploads.push(read_upload(&mut scanner)?),
            "IsTruncated" => page.is_truncated = boolean("IsTruncated", scanner.text()?)?,
            "NextKeyMarker" => {
                page.next_key_marker = Some(scanner.text()?.to_owned()).filter(|marker| !marker.is_empty());
            }
            "NextUploadIdMarker" => page.next_upload_id_marker = service_text(&mut scanner)?,
            "EncodingType" => is_url_encoded = scanner.text()?.trim().eq_ignore_ascii_case("url"),
            _ => scanner.skip()?,
        }
    }
    if is_url_encoded {
        for text in page.uploads.iter_mut().map(|upload| &mut upload.key).chain(page.next_key_marker.as_mut()) {
            url_decode_text(text)?;
        }
    }
    Ok(page)
}

fn read_upload(scanner: &mut Scanner<'_>) -> Result<Upload, XmlError> {
    let mut upload = Upload::default();
    while let Some(name) = scanner.child()? {
        match name {
            "Key" => upload.key = scanner.text()?.to_owned(),
            "UploadId" => upload.upload_id = service_text(scanner)?.unwrap_or_default(),
            "Initiated" => upload.initiated_s = parse_iso8601(scanner.text()?).unwrap_or_default(),
            _ => scanner.skip()?,
        }
    }
    if upload.key.is_empty() {
        return Err(XmlError::Missing { element: "Key" });
    }
    if upload.upload_id.is_empty() {
        return Err(XmlError::Missing { element: "UploadId" });
    }
    Ok(upload)
}

/// An ETag without the quotes that belong to its header's syntax.
pub(super) fn unquoted(etag: &str) -> &str {
    let etag = etag.trim();
    etag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(etag)
}

fn number(element: &'static str, text: &str) -> Result<u64, XmlError> {
    text.trim().parse().map_err(|_| XmlError::BadValue { element, value: excerpt(text) })
}

fn boolean(element: &'static str, text: &str) -> Result<bool, XmlError> {
    match text.trim() {
        value if value.eq_ignore_ascii_case("true") => Ok(true),
        value if value.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err(XmlError::BadValue { element, value: excerpt(text) }),
    }
}

fn url_decode(encoded: &[u8], out: &mut Vec<u8>) {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut rest = encoded;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'%' | b'+')) {
        out.extend_from_slice(&rest[..at]);
        let (byte, len) = match rest[at..] {
            [b'+', ..] => (b' ', 1),
            [b'%', high, low, ..] => match (digit(high), digit(low)) {
                (Some(high), Some(low)) => (high << 4 | low, 3),
                _ => (b'%', 1),
            },
            _ => (b'%', 1),
        };
        out.push(byte);
        rest = &rest[at + len..];
    }
    out.extend_from_slice(rest);
}

fn url_decode_text(text: &mut String) -> Result<(), XmlError> {
    let mut decoded = Vec::with_capacity(text.len());
    url_decode(text.as_bytes(), &mut decoded);
    *text = String::from_utf8(decoded).map_err(|error| XmlError::KeyNotUtf8 { key: error.into_bytes() })?;
    Ok(())
}

#[cfg(test)]
mod tests;
