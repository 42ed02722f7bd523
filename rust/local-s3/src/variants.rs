//! Stores that are not quite S3: single behaviours, and bundles of them named after the stores that have them.
//!
//! Where each is known from stands in `docs/local-s3.md`.
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// What a store does otherwise than S3.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Variant {
    /// All parts but the last must have one size, and the last no greater one.
    pub uniform_parts: bool,
    /// UploadPartCopy is not there.
    pub refuse_part_copies: bool,
    /// CompleteMultipartUpload answers with an empty ETag.
    pub no_completion_etag: bool,
    /// ListMultipartUploads tells of the uploads of one key only: its prefix is that key.
    pub uploads_by_name: bool,

    /// Refuse requests that carry `x-amz-checksum-*` or `x-amz-sdk-checksum-algorithm`.
    pub refuse_checksums: bool,
    /// Accept and forget checksums.
    pub ignore_checksums: bool,
    /// Refuse requests that carry one of these headers.
    pub refuse_headers: Vec<String>,
    /// Refuse headers with 400 InvalidArgument instead of 501 NotImplemented.
    pub refuse_as_invalid: bool,
    /// Refuse bodies in aws-chunked coding.
    pub refuse_streaming: bool,
    /// Refuse them as wrongly signed.
    pub misread_streaming: bool,
    /// A signature over Accept-Encoding is wrong, because the header is changed on its way.
    pub rewrite_accept_encoding: bool,

    /// Serve as if no condition had been sent.
    pub ignore_conditions: bool,
    /// The same for writes alone.
    pub ignore_write_conditions: bool,
    /// Refuse conditions of writes.
    pub refuse_write_conditions: bool,
    /// 429 for a second write to a key within a second.
    pub one_write_a_second: bool,

    /// DeleteObjects is not there.
    pub refuse_multi_delete: bool,
    /// DeleteObjects demands Content-MD5 whatever checksum is sent.
    pub require_content_md5: bool,
    /// Versions are not there.
    pub refuse_versions: bool,
    /// Every bucket has versions from the start.
    pub always_versioned: bool,

    /// Refuse keys that are no paths: `a//b`, `/a`, `a/../b`.
    pub strict_names: bool,
    /// LIST leaves out what is below an object: `a/b` where there is `a`.
    pub hide_children: bool,
    /// LIST answers without order, as directory buckets do.
    pub unordered_listing: bool,
}

impl Variant {
    /// The behaviours of a store, by the name of the store.
    pub fn named(name: &str) -> Option<Self> {
        let headers = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Some(match name {
            "s3" => Self::default(),
            "minio" => Self {
                uploads_by_name: true,
                require_content_md5: true,
                strict_names: true,
                hide_children: true,
                ..Self::default()
            },
            "r2" => Self {
                uniform_parts: true,
                refuse_checksums: true,
                refuse_headers: headers(&[
                    "x-amz-acl",
                    "x-amz-expected-bucket-owner",
                    "x-amz-request-payer",
                    "x-amz-server-side-encryption",
                    "x-amz-tagging",
                ]),
                refuse_streaming: true,
                one_write_a_second: true,
                refuse_versions: true,
                ..Self::default()
            },
            "gcs" => Self {
                refuse_part_copies: true,
                ignore_checksums: true,
                misread_streaming: true,
                rewrite_accept_encoding: true,
                ignore_write_conditions: true,
                refuse_multi_delete: true,
                ..Self::default()
            },
            "b2" => Self {
                refuse_checksums: true,
                refuse_headers: headers(&["x-amz-checksum-mode", "x-amz-tagging"]),
                refuse_as_invalid: true,
                refuse_write_conditions: true,
                always_versioned: true,
                ..Self::default()
            },
            _ => return None,
        })
    }

    /// Whether objects have checksums.
    pub fn keeps_checksums(&self) -> bool {
        !self.refuse_checksums && !self.ignore_checksums
    }
}

/// Reads a variant: the name of a store, or behaviours, which `like` puts on top of a store's.
pub fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Variant, D::Error> {
    let unknown = |name: &str| D::Error::custom(format!("unknown variant {name:?}: s3, minio, r2, gcs or b2"));
    match Value::deserialize(deserializer)? {
        Value::String(name) => Variant::named(&name).ok_or_else(|| unknown(&name)),
        Value::Object(mut flags) => {
            if let Some(like) = flags.remove("like") {
                let name = like.as_str().unwrap_or_default();
                let base = Variant::named(name).ok_or_else(|| unknown(name))?;
                if let Value::Object(base) = serde_json::to_value(base).map_err(D::Error::custom)? {
                    base.into_iter().for_each(|(name, value)| {
                        flags.entry(name).or_insert(value);
                    });
                }
            }
            serde_json::from_value(Value::Object(flags)).map_err(D::Error::custom)
        }
        _ => Err(D::Error::custom("a variant is a name or a map of behaviours")),
    }
}

/// The same where it may be absent.
pub fn read_some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Variant>, D::Error> {
    read(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Variant, serde_json::Error> {
        read(&mut serde_json::Deserializer::from_str(text))
    }

    #[test]
    fn names_and_behaviours() {
        assert!(parse(r#""r2""#).unwrap().uniform_parts);
        assert!(parse(r#"{"uniform_parts": true}"#).unwrap().uniform_parts);
        let mixed = parse(r#"{"like": "r2", "uniform_parts": false, "no_completion_etag": true}"#).unwrap();
        assert!(mixed.refuse_streaming && mixed.no_completion_etag && !mixed.uniform_parts);
        for (text, error) in
            [(r#""r3""#, "unknown variant"), (r#"{"uniform": true}"#, "unknown field"), ("1", "a name")]
        {
            assert!(parse(text).unwrap_err().to_string().contains(error), "{text}");
        }
    }
}
