//! What stores refuse that are not quite S3.
use super::{Call, Operation};
use crate::error::{Answer, S3Error};

impl Call<'_> {
    /// Refuses what the variant does not know.
    pub fn check_variant(&self) -> Answer<()> {
        let variant = self.variant();
        self.check_headers()?;
        self.check_streaming()?;
        let not_there = match self.operation {
            Operation::DeleteObjects => variant.refuse_multi_delete,
            Operation::UploadPartCopy => variant.refuse_part_copies,
            Operation::GetBucketVersioning | Operation::PutBucketVersioning | Operation::ListObjectVersions => {
                variant.refuse_versions
            }
            _ => false,
        };
        if not_there {
            let message = "A header or query you provided requested a function that is not implemented.";
            return Err(S3Error::new(501, "NotImplemented", message).into());
        }
        if variant.refuse_write_conditions && self.creates() {
            for name in ["If-Match", "If-None-Match"] {
                if self.request.header(name).is_some() {
                    return Err(S3Error::not_implemented(name).into());
                }
            }
        }
        if variant.strict_names {
            self.check_name()?;
        }
        if variant.one_write_a_second && self.creates() && self.server.is_over_key_rate(self.target) {
            let message = "Reduce your concurrent request rate for the same object.";
            return Err(S3Error::new(429, "TooManyRequests", message).into());
        }
        Ok(())
    }

    /// Whether this makes an object.
    fn creates(&self) -> bool {
        matches!(self.operation, Operation::PutObject | Operation::CopyObject | Operation::CompleteMultipartUpload)
    }

    fn check_headers(&self) -> Answer<()> {
        let variant = self.variant();
        let checksums = self.effects.refuse_checksums || variant.refuse_checksums;
        let is_refused = |name: &str| {
            let is_checksum = name.starts_with("x-amz-checksum-") && name != "x-amz-checksum-mode";
            (checksums && (is_checksum || name == "x-amz-sdk-checksum-algorithm"))
                || variant.refuse_headers.iter().any(|refused| refused == name)
        };
        let found = self.request.headers().find(|(name, _)| is_refused(&name.to_ascii_lowercase()));
        let Some((name, value)) = found else { return Ok(()) };
        Err(match variant.refuse_as_invalid {
            true => S3Error::invalid_argument(format!("Unsupported header '{name}' received for this API call.")),
            false => {
                let message = format!("Header '{name}' with value '{value}' not implemented");
                S3Error::new(501, "NotImplemented", message).with("Header", name)
            }
        }
        .into())
    }

    fn check_streaming(&self) -> Answer<()> {
        let payload = self.request.header("x-amz-content-sha256").unwrap_or("");
        if !payload.starts_with("STREAMING-") {
            return Ok(());
        }
        if self.variant().refuse_streaming {
            return Err(S3Error::new(501, "NotImplemented", format!("{payload} not implemented")).into());
        }
        if self.variant().misread_streaming {
            return Err(S3Error::new(403, "SignatureDoesNotMatch", "Access denied.").into());
        }
        Ok(())
    }

    fn check_name(&self) -> Answer<()> {
        let key = &self.target.key;
        if key.split('/').any(|part| part == "." || part == "..") {
            let message = "Resource name contains bad components such as \"..\" or \".\".";
            return Err(S3Error::new(400, "XMinioInvalidResourceName", message).into());
        }
        if key.starts_with('/') || key.contains("//") || key.contains('\\') {
            let message = "Object name contains unsupported characters.";
            return Err(S3Error::new(400, "XMinioInvalidObjectName", message).into());
        }
        Ok(())
    }
}
