//! GetObject: bytes from the socket into the memory where they are wanted, resumed where they broke, never of two objects.
use crate::assembly::{Assembly, AssemblyState, Piece};
use crate::attempt::{Attempts, Exchange, FirstByte, Request, SMALL, catch_unwind};
use crate::budget::Grant;
use crate::failure::{Failure, Fault, Kind, Retry};
use crate::head::{Head, Length};
use crate::hedge::Class;
use crate::lane::Running;
use crate::queue::Pending;
use crate::raw::{PooledBuffer, Span};
use crate::request::{Check, Fetch, Meta, Outcome, What};
use crate::ticket::{Ticket, broken};
use pin::{compare, pinned, quote};

mod gather;
mod pieces;
mod pin;
mod room;
mod verify;

pub use pieces::run_part;

/// An answer that will deliver `[first, first + len)` of an object.
struct Opened {
    exchange: Exchange,
    first: u64,
    len: u64,
    object_size: u64,
    /// Where the length was not told, the whole body, read already.
    gathered: Option<PooledBuffer>,
}

/// -> the result; None when it is fetched in parallel ranges, of which the last brings it: they have the ticket then.
pub async fn run(
    attempts: &mut Attempts<'_>,
    ticket: &mut Option<Ticket>,
    fetch: Fetch,
    mut grant: Option<Grant>,
    running: &Running,
) -> Option<(Outcome, Option<Grant>)> {
    if let What::Range { start, end } = fetch.what
        && start >= end
    {
        let size = fetch.size.unwrap_or(0);
        return Some((empty(attempts, &fetch, start, size), None));
    }
    loop {
        let opened = match open_at_last(attempts, &fetch, &mut grant).await {
            Ok(opened) => opened,
            Err(outcome) => return Some((outcome, None)),
        };
        let fault = match deliver(attempts, ticket, &fetch, &mut grant, running, opened).await {
            Delivery::Done(outcome) => {
                let holds = fetch.into.is_none() && !matches!(outcome, Outcome::Failure(_));
                return Some((outcome, grant.filter(|_| holds)));
            }
            Delivery::Elsewhere => return None,
            Delivery::Anew(fault) => fault,
        };
        if let Err(failure) = attempts.after(fault).await {
            return Some((Outcome::Failure(failure), None));
        }
    }
}

/// Opens a fetch, in as many attempts as it takes; where there is nothing to fetch, the result.
async fn open_at_last(
    attempts: &mut Attempts<'_>,
    fetch: &Fetch,
    grant: &mut Option<Grant>,
) -> Result<Opened, Outcome> {
    loop {
        let fault = match open(attempts, fetch, grant).await {
            Ok(opened) => return Ok(opened),
            Err(fault) if fault.status == 416 => {
                let size = fault.object_size.unwrap_or(0);
                let start = match fetch.what {
                    What::Range { start, .. } => start,
                    _ => 0,
                };
                if fetch.into.is_none() && (start > 0 || size == 0) {
                    return Err(empty(attempts, fetch, start.min(size), size));
                }
                fault
            }
            Err(fault) => fault,
        };
        attempts.after(pinned(fault, fetch.pin.as_deref())).await.map_err(Outcome::Failure)?;
    }
}

enum Delivery {
    Done(Outcome),
    /// It is fetched in parallel ranges, of which the last brings the result.
    Elsewhere,
    /// What the answer told about itself was not true.
    Anew(Fault),
}

/// Brings what was opened into memory.
async fn deliver(
    attempts: &mut Attempts<'_>,
    ticket: &mut Option<Ticket>,
    fetch: &Fetch,
    grant: &mut Option<Grant>,
    running: &Running,
    mut opened: Opened,
) -> Delivery {
    let failed = |failure: Box<Failure>| Delivery::Done(Outcome::Failure(failure));
    let end = match fetch.what {
        What::Range { end, .. } => end.min(opened.object_size),
        _ => opened.object_size,
    };
    let end = end.min(opened.first.saturating_add(fetch.limit));
    let total = end.saturating_sub(opened.first) as usize;
    let stored = verify::expected(attempts, &opened, total);
    if fetch.into.is_none()
        && let Some(mut buffer) = opened.gathered.take()
    {
        buffer.truncate(total);
        let meta = meta_of(&opened);
        attempts.end(opened.exchange, None);
        if let Some(stored) = stored
            && let Err(failure) = verify::verify(attempts, stored, buffer.span(), &mut pin_of(fetch, &meta)).await
        {
            return failed(failure);
        }
        return Delivery::Done(meta.outcome(attempts.target, Some(buffer), opened.first, total));
    }
    let (span, buffer) = match fetch.into {
        Some(span) if span.len() == total => (span, None),
        Some(span) => {
            let text = format!("{} bytes were asked for, but the object ends after {total}", span.len());
            let fault = Fault { status: 416, object_size: Some(opened.object_size), ..Fault::invalid(text) };
            attempts.abandon(opened.exchange, Some(&fault));
            return failed(Box::new(attempts.failure(fault, false)));
        }
        None => {
            if let Err(fault) = room::settle(attempts, grant, total).await {
                attempts.abandon(opened.exchange, Some(&fault));
                return failed(Box::new(attempts.failure(fault, false)));
            }
            let Some(buffer) = attempts.lane.engine.pool.take(total) else {
                let text = format!("this machine has no memory for {total} bytes at once: read ranges");
                let fault = Fault::invalid(text);
                attempts.abandon(opened.exchange, Some(&fault));
                return failed(Box::new(attempts.failure(fault, false)));
            };
            (buffer.span(), Some(buffer))
        }
    };
    let piece = Piece { at: 0, len: (opened.len as usize).min(total) };
    let mut meta = meta_of(&opened);
    if piece.len < total {
        running.set_large(true);
        let state = AssemblyState {
            etag: Some(meta.etag.clone()).filter(|e| !e.is_empty()).or(fetch.pin.clone()),
            object_size: meta.object_size,
            last_modified: meta.last_modified,
            head: meta.head,
            buffer,
            grant: grant.take(),
            ..AssemblyState::default()
        };
        let part_size = attempts.client.settings.part_size;
        let Some(ticket) = ticket.take() else { return Delivery::Elsewhere };
        let verifies = attempts.client.settings.verify_reads;
        let check = fetch.check_of(total as u64 == opened.object_size, verifies);
        let (assembly, part) = Assembly::new(ticket, span, opened.first, part_size, Some(piece), check, state);
        let queue = &assembly.queue;
        queue.pending.lock().unwrap_or_else(|e| e.into_inner()).push_front(Pending::Split(assembly.clone()));
        attempts.lane.engine.enqueue(queue, attempts.lane.engine.lanes.len());
        let mut pin = Some(meta.etag).filter(|e| !e.is_empty());
        // Other lanes write into this memory by now: a panic here must end the assembly, not file a result beside it.
        let target = attempts.target;
        let received = async {
            receive(attempts, opened, span.slice(0, piece.len), &mut pin).await?;
            verify::verify_piece(attempts, &assembly, piece, &mut pin).await
        };
        let result = catch_unwind(received).await;
        let result = result.unwrap_or_else(|text| Err(Box::new(broken("GetObject", target, &text))));
        if let Some(finished) = part.and_then(|part| part.end(result.map(|()| attempts.sent))) {
            attempts.lane.finish(finished);
        }
        return Delivery::Elsewhere;
    }
    let (first, told) = (opened.first, opened.len);
    // An answer to a range tells no checksum of the object, though it brought all of it.
    let asks = opened.exchange.head.status == 206
        && fetch.check_of(total as u64 == opened.object_size, attempts.client.settings.verify_reads) == Check::Stored;
    let mut pin = pin_of(fetch, &meta);
    let mut received = receive(attempts, opened, span, &mut pin).await;
    let stored = if received.is_ok() && asks { verify::stored(attempts, pin.as_deref()).await } else { stored };
    if let (Ok(()), Some(stored)) = (&received, stored) {
        received = verify::verify(attempts, stored, span, &mut pin).await;
    }
    if let (Ok(()), Check::Told(algorithm)) = (&received, fetch.check) {
        match crate::call::hash(attempts.lane, algorithm, span).await {
            Ok(checksum) => meta.checksum = checksum,
            Err(fault) => received = Err(Box::new(attempts.failure(fault, false))),
        }
    }
    match received {
        Ok(()) => Delivery::Done(meta.outcome(attempts.target, buffer, first, total)),
        Err(failure) if failure.status == 416 && fetch.into.is_none() => {
            Delivery::Anew(Fault::transport(format_args!("{told} bytes were told of, and the object has fewer")))
        }
        Err(failure) => failed(failure),
    }
}

/// The version that everything else must be of.
fn pin_of(fetch: &Fetch, meta: &Meta) -> Option<String> {
    fetch.pin.clone().or_else(|| Some(meta.etag.clone()).filter(|e| !e.is_empty()))
}

fn meta_of(opened: &Opened) -> Meta {
    let head: &Head = &opened.exchange.head;
    let (etag, raw) = (head.etag.clone(), head.raw.clone());
    Meta {
        etag,
        object_size: opened.object_size,
        last_modified: head.last_modified,
        head: raw,
        checksum: String::new(),
    }
}

fn empty(attempts: &Attempts<'_>, fetch: &Fetch, start: u64, object_size: u64) -> Outcome {
    let (etag, checksum) = (fetch.pin.clone().unwrap_or_default(), String::new());
    let meta = Meta { etag, object_size, last_modified: None, head: Box::default(), checksum };
    let buffer = fetch.into.is_none().then(|| attempts.lane.engine.pool.take_none());
    meta.outcome(attempts.target, buffer, start, 0)
}

fn end_of(fetch: &Fetch) -> u64 {
    if let What::Range { end, .. } = fetch.what { end } else { u64::MAX }
}

/// Sends the first request of a fetch, and finds out what it will deliver.
async fn open(attempts: &mut Attempts<'_>, fetch: &Fetch, grant: &mut Option<Grant>) -> Result<Opened, Fault> {
    let part_size = attempts.client.settings.part_size as u64;
    let limit = fetch.limit;
    let asked = match (fetch.what, fetch.size) {
        (What::Whole | What::Range { start: 0, .. }, Some(size)) if size <= limit && size <= end_of(fetch) => None,
        (What::Whole, Some(_)) => Some((0, limit)),
        (What::Whole, None) => Some((0, part_size.min(limit))),
        (What::Range { start, end }, _) => {
            // A range of unknown size is opened with its first part only where it is long.
            let most = if end - start > 2 * part_size { part_size } else { u64::MAX };
            Some((start, end.min(start.saturating_add(limit.min(most)))))
        }
        (What::Suffix(_), _) => None,
    };
    let range = match (fetch.what, asked) {
        (What::Suffix(n), _) => Some(format!("bytes=-{n}")),
        (_, Some((start, end))) => Some(format!("bytes={start}-{}", end - 1)),
        (_, None) => None,
    };
    let small = fetch.extent().is_some_and(|(start, end)| end - start < SMALL);
    let quoted = fetch.pin.as_deref().map(quote);
    let request = Request {
        method: "GET",
        query: attempts.target.query(),
        headers: if range.is_none() { verify::headers(attempts) } else { &[] },
        range,
        if_match: quoted.as_deref(),
        body: Span::EMPTY,
        first_byte: if small { FirstByte::Small } else { FirstByte::Usual },
        hedge: Some(if small { Class::Small } else { Class::Large }),
    };
    let exchange = attempts.exchange(&request).await.map_err(|fault| verify::unasked(attempts, &request, fault))?;
    if let Some(pin) = &fetch.pin
        && let Err(fault) = compare(pin, &exchange.head.etag)
    {
        attempts.abandon(exchange, Some(&fault));
        return Err(fault);
    }
    let start = asked.map(|(start, _)| start);
    inspect(attempts, exchange, fetch.what, start, fetch.size, grant).await
}

async fn inspect(
    attempts: &mut Attempts<'_>,
    mut exchange: Exchange,
    what: What,
    start: Option<u64>,
    size: Option<u64>,
    grant: &mut Option<Grant>,
) -> Result<Opened, Fault> {
    let head = &exchange.head;
    let fault = match (head.status, head.content_range.and_then(|r| Some((r.range?, r.total)))) {
        (206, Some(((first, last), total))) => {
            let len = last - first + 1;
            let object_size = total.unwrap_or(last + 1);
            if start.is_some_and(|s| s != first) || last >= object_size {
                Fault::transport(format_args!("another range was answered: {first}-{last} of {object_size}"))
            } else {
                match head.length {
                    Length::Fixed(n) if n != len => Fault::transport("Content-Length and Content-Range do not agree"),
                    _ => return Ok(Opened { exchange, first, len, object_size, gathered: None }),
                }
            }
        }
        (206, None) => Fault::transport("206 without a valid Content-Range"),
        (200, _) if start.is_some_and(|s| s > 0) || is_more_than_tail(what, head.length) => {
            Fault::invalid("the server ignores the Range header; it cannot be read in parts")
        }
        (200, _) => match head.length {
            Length::Fixed(n) => return Ok(Opened { exchange, first: 0, len: n, object_size: n, gathered: None }),
            _ => match gather::gather(attempts, &mut exchange, size, grant).await {
                Ok(body) => {
                    let n = body.len() as u64;
                    return Ok(Opened { exchange, first: 0, len: n, object_size: n, gathered: Some(body) });
                }
                Err(fault) => fault,
            },
        },
        (status, _) => Fault { status, ..Fault::new(Kind::Service, Retry::Never, "an unexpected answer to a GET") },
    };
    attempts.abandon(exchange, Some(&fault));
    Err(fault)
}

/// Whether a whole object answers more than the tail that was asked for. Of one that is not longer, an empty one for
/// one, it is the tail, and servers may answer so.
fn is_more_than_tail(what: What, length: Length) -> bool {
    matches!(what, What::Suffix(most) if !matches!(length, Length::Fixed(n) if n <= most))
}

/// Reads an opened answer into its place; what breaks on the way is fetched from there on.
async fn receive(
    attempts: &mut Attempts<'_>,
    opened: Opened,
    span: Span,
    pin: &mut Option<String>,
) -> Result<(), Box<Failure>> {
    let Opened { mut exchange, first, len, gathered, .. } = opened;
    if let Some(body) = gathered {
        span.copy_from_span(body.span().slice(0, span.len()));
        attempts.end(exchange, None);
        return Ok(());
    }
    attempts.slot.enter(crate::slot::Phase::Receiving, Some(attempts.client.settings.stall_timeout));
    let mut got = 0;
    let (length, whole) = (exchange.head.length, len as usize == span.len());
    let result = exchange.connection.read_body(attempts.slot, length, span, whole, &mut got).await;
    exchange.bytes_in = got as u64;
    match result {
        Ok(()) if whole => attempts.end(exchange, None),
        Ok(()) => attempts.abandon(exchange, None), // more was sent than is wanted
        Err(fault) => {
            attempts.abandon(exchange, Some(&fault));
            attempts.after_body(fault, got as u64).await?;
            fill(attempts, first + got as u64, span.slice(got, span.len() - got), pin, |_, _| Ok(())).await?;
        }
    }
    Ok(())
}

/// Fetches exactly `[start, start + span.len())` into a span, over as many attempts as it takes. `seen` looks at each answer's head.
async fn fill(
    attempts: &mut Attempts<'_>,
    start: u64,
    span: Span,
    pin: &mut Option<String>,
    mut seen: impl FnMut(&Head, u64) -> Result<(), Fault>,
) -> Result<(), Box<Failure>> {
    let mut got = 0;
    while got < span.len() {
        let from = start + got as u64;
        let range = Some(format!("bytes={from}-{}", start + span.len() as u64 - 1));
        let quoted = pin.as_deref().map(quote);
        let request = Request {
            method: "GET",
            query: attempts.target.query(),
            headers: &[],
            range,
            if_match: quoted.as_deref(),
            body: Span::EMPTY,
            first_byte: FirstByte::Usual,
            hedge: Some(if ((span.len() - got) as u64) < SMALL { Class::Small } else { Class::Large }),
        };
        let result = match attempts.exchange(&request).await {
            Ok(exchange) => inspect(attempts, exchange, What::Whole, Some(from), None, &mut None).await,
            Err(fault) => Err(pinned(fault, pin.as_deref())),
        };
        let fault = match result {
            Err(fault) => fault,
            Ok(opened) => {
                let mut exchange = opened.exchange;
                let head = &exchange.head;
                let checked = match pin {
                    Some(pin) => compare(pin, &head.etag),
                    None => {
                        *pin = Some(head.etag.clone()).filter(|e| !e.is_empty());
                        Ok(())
                    }
                };
                let rest = span.slice(got, span.len() - got);
                let checked = checked.and_then(|()| seen(head, opened.object_size)).and_then(|()| {
                    let short = (opened.len as usize) < rest.len();
                    let text = || format!("the object ends at {}, before the range asked for", opened.object_size);
                    if short { Err(Fault { status: 416, ..Fault::invalid(text()) }) } else { Ok(()) }
                });
                let whole = opened.len as usize == rest.len();
                let read = match (checked, opened.gathered) {
                    (Err(fault), _) => Err(fault),
                    (Ok(()), Some(body)) => {
                        rest.copy_from_span(body.span().slice(0, rest.len()));
                        got += rest.len();
                        Ok(())
                    }
                    (Ok(()), None) => {
                        let (length, before) = (exchange.head.length, got);
                        let read = exchange.connection.read_body(attempts.slot, length, rest, whole, &mut got).await;
                        exchange.bytes_in = (got - before) as u64;
                        read
                    }
                };
                match read {
                    Ok(()) if whole => {
                        attempts.end(exchange, None);
                        continue;
                    }
                    Ok(()) => {
                        attempts.abandon(exchange, None);
                        continue;
                    }
                    Err(fault) => {
                        let bytes = exchange.bytes_in;
                        attempts.abandon(exchange, Some(&fault));
                        attempts.after_body(fault, bytes).await?;
                        continue;
                    }
                }
            }
        };
        attempts.after(fault).await?;
    }
    Ok(())
}
