//! Whole objects that come with one answer, as those of known size do, are compared with the checksum that the service has stored.
use super::{Opened, fill};
use crate::attempt::Attempts;
use crate::checksum::Algorithm;
use crate::failure::{Failure, Fault, Kind, Retry};
use crate::raw::Span;
use std::sync::atomic::Ordering::Relaxed;

/// Asks the service for what it has stored; it tells nothing unasked.
const ASK: &[(&str, &str)] = &[("x-amz-checksum-mode", "ENABLED")];

/// The headers of a request for a whole object without a range: with one, S3 tells no checksum of the object.
pub fn headers(attempts: &Attempts<'_>) -> &'static [(&'static str, &'static str)] {
    if attempts.client.settings.verify_reads { ASK } else { &[] }
}

/// What the bytes of an answer must add up to; None where it does not bring the whole object, or nothing is stored that one pass
/// over the bytes can be compared with (checksums of parts, SHA).
pub fn expected(attempts: &Attempts<'_>, opened: &Opened, nbytes: usize) -> Option<(Algorithm, String)> {
    let whole = opened.exchange.head.status == 200 && nbytes as u64 == opened.object_size;
    if !whole || !attempts.client.settings.verify_reads {
        return None;
    }
    let stats = &attempts.client.stats;
    let found = opened.exchange.head.checksum.clone();
    if found.is_some() { &stats.reads_verified } else { &stats.reads_unverified }.fetch_add(1, Relaxed);
    found
}

/// Compares what has come, and fetches it again where it is not what was stored.
pub async fn verify(
    attempts: &mut Attempts<'_>,
    (algorithm, stored): (Algorithm, String),
    span: Span,
    pin: &mut Option<String>,
) -> Result<(), Box<Failure>> {
    loop {
        let computed = crate::call::hash(attempts.lane, algorithm, span).await;
        let fault = match computed {
            Ok(value) if value == stored => return Ok(()),
            Ok(value) => {
                let name = algorithm.name();
                let text = format!(
                    "the {} bytes that came have the {name} {value}, the service has stored {stored}",
                    span.len()
                );
                Fault::new(Kind::Checksum, Retry::Counted, text)
            }
            Err(fault) => fault,
        };
        attempts.after(fault).await?;
        fill(attempts, 0, span, pin, |_, _| Ok(())).await?;
    }
}
