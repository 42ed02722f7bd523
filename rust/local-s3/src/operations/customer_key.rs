//! Objects encrypted with a key of the customer's (SSE-C): who does not bring the key does not get them.
//!
//! The bytes are kept as they came; of the key, its MD5, as S3 does.
use crate::checksum::{base64, from_base64, md5};
use crate::error::S3Error;
use crate::request::Request;
use crate::store::object::Attributes;

const MD5: &str = "x-amz-server-side-encryption-customer-key-md5";

/// Checks the key that a request brings for an object or an upload; `prefix` is "x-amz-" or that of a copy's source.
pub fn check(request: &Request, prefix: &str, attributes: &Attributes) -> Result<(), S3Error> {
    let header = |name: &str| request.header(&format!("{prefix}server-side-encryption-customer-{name}"));
    let kept = attributes.headers.iter().find(|(name, _)| name == MD5).map(|(_, value)| value.as_str());
    match (kept, header("key"), header("key-md5")) {
        (None, None, None) => Ok(()),
        (None, ..) => Err(S3Error::invalid_request("The encryption parameters are not applicable to this object.")),
        (Some(kept), Some(key), Some(sent)) => {
            let key = from_base64(key).filter(|key| key.len() == 32);
            let key = key.ok_or_else(|| S3Error::invalid_argument("The secret key was invalid for the algorithm."))?;
            match sent == base64(&md5(&key)) && sent == kept {
                true => Ok(()),
                false => Err(S3Error::access_denied()),
            }
        }
        (Some(_), ..) => Err(S3Error::invalid_request(
            "The object was stored using a form of Server Side Encryption. The correct parameters must be provided to \
             retrieve the object.",
        )),
    }
}
