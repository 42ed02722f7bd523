//! ETags that hold the answers of one fetch together: bytes of two versions are never mixed.
use crate::failure::{Fault, Kind, Retry};

/// A broken pin is a changed object.
pub fn pinned(fault: Fault, pin: Option<&str>) -> Fault {
    match pin {
        Some(pin) if fault.kind == Kind::PreconditionFailed => {
            Fault { kind: Kind::Changed, message: format!("the object is no longer the one with ETag {pin}"), ..fault }
        }
        _ => fault,
    }
}

pub fn compare(pin: &str, etag: &str) -> Result<(), Fault> {
    if etag.is_empty() || bare(pin) == bare(etag) {
        return Ok(());
    }
    let text = format!("the object is no longer the one with ETag {pin}: it has {etag}");
    Err(Fault::new(Kind::Changed, Retry::Never, text))
}

fn bare(etag: &str) -> &str {
    etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"')
}

pub fn quote(etag: &str) -> String {
    format!("\"{}\"", bare(etag))
}
