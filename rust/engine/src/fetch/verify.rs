//! Whole objects are compared with the checksum that the service has stored: always where they come with one answer, as those of
//! known size do up to two parts; in parallel ranges where that is asked for.
use super::pin::quote;
use super::{Opened, fill};
use crate::assembly::{Assembly, Piece};
use crate::attempt::{Attempts, FirstByte, Request};
use crate::checksum::{self, Algorithm};
use crate::failure::{Failure, Fault, Kind, Retry};
use crate::head::Length;
use crate::hedge::Class;
use crate::raw::Span;
use crate::request::Check;
use std::sync::atomic::Ordering::Relaxed;

/// Asks the service for what it has stored; it tells nothing unasked.
const ASK: &[(&str, &str)] = &[("x-amz-checksum-mode", "ENABLED")];

/// The headers of a request for a whole object without a range: with one, S3 tells no checksum of the object.
pub fn headers(attempts: &Attempts<'_>) -> &'static [(&'static str, &'static str)] {
    let client = attempts.client;
    if client.settings.verify_reads && !client.no_stored_checksums.load(Relaxed) { ASK } else { &[] }
}

/// Some stores refuse to be asked for the checksum: from then on they are not.
pub fn unasked(attempts: &Attempts<'_>, request: &Request<'_>, fault: Fault) -> Fault {
    if request.headers.is_empty() || !crate::call::refuses_checksum(&fault) {
        return fault;
    }
    attempts.client.no_stored_checksums.store(true, Relaxed);
    Fault { retry: Retry::Corrected, ..fault }
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

/// A piece of an assembly is there: takes its checksum, with the last one compares or tells it, and with the first asks what to
/// compare with, while others are on their way.
pub async fn verify_piece(
    attempts: &mut Attempts<'_>,
    assembly: &Assembly,
    piece: Piece,
    pin: &mut Option<String>,
) -> Result<(), Box<Failure>> {
    let algorithm = match assembly.check {
        Check::Usual => return Ok(()),
        Check::Stored => Algorithm::Crc64Nvme,
        Check::Told(algorithm) => algorithm,
    };
    let span = assembly.destination.slice(piece.at, piece.len);
    let sum = crate::call::digest(attempts.lane, algorithm, span).await;
    let sum = sum.map_err(|fault| Box::new(attempts.failure(fault, false)))?;
    if piece.at == 0 && assembly.check == Check::Stored {
        let stored = ask(attempts, pin.as_deref()).await;
        assembly.lock().stored = stored;
    }
    let Some(mut sums) = assembly.note_sum(piece, sum) else { return Ok(()) };
    sums.sort_unstable_by_key(|(piece, _)| piece.at);
    let join = |sum, &(piece, next): &(Piece, u64)| checksum::combine(algorithm, sum, next, piece.len as u64);
    let found = checksum::encode(algorithm, sums.iter().fold(0, join));
    if let Check::Told(_) = assembly.check {
        assembly.lock().checksum = found;
        return Ok(());
    }
    let stats = &attempts.client.stats;
    let Some((of, stored)) = assembly.lock().stored.take() else {
        stats.reads_unverified.fetch_add(1, Relaxed);
        return Ok(());
    };
    stats.reads_verified.fetch_add(1, Relaxed);
    if of == algorithm && found == stored {
        return Ok(());
    }
    verify(attempts, (of, stored), assembly.destination, pin).await
}

/// What a whole object is to be compared with that an answer to a range has brought; counted as verified or not.
pub async fn stored(attempts: &Attempts<'_>, pin: Option<&str>) -> Option<(Algorithm, String)> {
    let found = ask(attempts, pin).await;
    let stats = &attempts.client.stats;
    if found.is_some() { &stats.reads_verified } else { &stats.reads_unverified }.fetch_add(1, Relaxed);
    found
}

/// What the service has stored of the object; None where it cannot be had.
async fn ask(attempts: &Attempts<'_>, pin: Option<&str>) -> Option<(Algorithm, String)> {
    let Attempts { lane, client, slot, target, .. } = attempts;
    let mut attempts = Attempts::new(lane, client, slot, "HeadObject", target);
    let quoted = pin.map(quote);
    let request = Request {
        method: "HEAD",
        query: target.query(),
        headers: ASK,
        range: None,
        if_match: quoted.as_deref(),
        body: Span::EMPTY,
        first_byte: FirstByte::Usual,
        hedge: Some(Class::Head),
    };
    loop {
        match attempts.exchange(&request).await {
            Ok(mut exchange) => {
                let found = exchange.head.checksum.take();
                let ended = exchange.connection.read_all(attempts.slot, Length::Fixed(0), 0).await;
                match ended {
                    Ok(_) => attempts.end(exchange, None),
                    Err(fault) => attempts.abandon(exchange, Some(&fault)),
                }
                return found;
            }
            Err(fault) => attempts.after(fault).await.ok()?,
        }
    }
}
