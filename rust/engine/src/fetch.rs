//! GetObject: bytes from the socket into the memory where they are wanted, resumed where they broke, never of two objects.
use crate::attempt::{Attempts, Exchange, FirstByte, Request, SMALL, broken, catch_unwind};
use crate::budget::Grant;
use crate::failure::{Failure, Fault, Kind, Retry};
use crate::head::{Head, Length};
use crate::lane::{Lane, Running};
use crate::queue::{Pending, Queue};
use crate::raw::{PooledBuffer, Span};
use crate::request::{Assembly, AssemblyState, Body, Fetch, Outcome, Piece, Reply, Target, What};
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::Poll;

/// An answer that will deliver `[first, first + len)` of an object.
struct Opened {
    exchange: Exchange,
    first: u64,
    len: u64,
    object_size: u64,
    /// Where the length was not told, the whole body, read already.
    unframed: Option<Vec<u8>>,
}

pub async fn run(
    attempts: &mut Attempts<'_>,
    queue: &Arc<Queue>,
    index: u64,
    fetch: Fetch,
    mut grant: Option<Grant>,
    running: &Running,
) -> Option<(Outcome, Option<Grant>)> {
    let failed = |failure: Box<Failure>| Some((Outcome::Failure(failure), None));
    if let What::Range { start, end } = fetch.what
        && start >= end
    {
        let size = fetch.size.unwrap_or(0);
        return Some((empty(attempts, &fetch, start, size), None));
    }
    let opened = loop {
        let fault = match open(attempts, &fetch).await {
            Ok(opened) => break opened,
            Err(fault) if fault.status == 416 => {
                let size = fault.object_size.unwrap_or(0);
                let start = match fetch.what {
                    What::Range { start, .. } => start,
                    _ => 0,
                };
                if fetch.into.is_none() && (start > 0 || size == 0) {
                    return Some((empty(attempts, &fetch, start.min(size), size), None));
                }
                fault
            }
            Err(fault) => fault,
        };
        if let Err(failure) = attempts.after(pinned(fault, fetch.pin.as_deref())).await {
            return failed(failure);
        }
    };
    let end = match fetch.what {
        What::Range { end, .. } => end.min(opened.object_size),
        _ => opened.object_size,
    };
    let end = end.min(opened.first.saturating_add(fetch.limit.unwrap_or(u64::MAX)));
    let total = end.saturating_sub(opened.first) as usize;
    let (span, buffer) = match fetch.into {
        Some(span) if span.len() == total => (span, None),
        Some(span) => {
            let text = format!("{} bytes were asked for, but the object ends after {total}", span.len());
            let fault = Fault { status: 416, object_size: Some(opened.object_size), ..Fault::invalid(text) };
            attempts.abandon(opened.exchange, Some(&fault));
            return failed(Box::new(attempts.failure(fault, false)));
        }
        None => {
            if let Err(fault) = settle(attempts, queue, index, &mut grant, total).await {
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
    let meta = Meta::of(&opened);
    if piece.len < total {
        running.set_large(true);
        let state = AssemblyState {
            next: piece.len,
            in_flight: 1,
            etag: Some(meta.etag.clone()).filter(|e| !e.is_empty()).or(fetch.pin.clone()),
            object_size: meta.object_size,
            last_modified: meta.last_modified,
            head: meta.head,
            buffer,
            grant,
            ..AssemblyState::default()
        };
        let assembly = Arc::new(Assembly {
            queue: queue.clone(),
            index,
            target: attempts.target.clone(),
            destination: span,
            start: opened.first,
            part_size: attempts.client.settings.part_size,
            state: Mutex::new(state),
        });
        queue.pending.lock().unwrap_or_else(|e| e.into_inner()).push_front(Pending::Split(assembly.clone()));
        attempts.lane.engine.enqueue(queue, attempts.lane.engine.lanes.len());
        let mut pin = Some(meta.etag).filter(|e| !e.is_empty());
        // Other lanes write into this memory by now: a panic here must end the assembly, not file a result beside it.
        let target = attempts.target;
        let result = catch_unwind(receive(attempts, opened, span.slice(0, piece.len), &mut pin)).await;
        let result = result.unwrap_or_else(|text| Err(Box::new(broken("GetObject", target, &text))));
        end_piece(attempts.lane, &assembly, result.map(|()| attempts.sent));
        return None;
    }
    let first = opened.first;
    let mut pin = fetch.pin.or(Some(meta.etag.clone()).filter(|e| !e.is_empty()));
    match receive(attempts, opened, span, &mut pin).await {
        Ok(()) => Some((outcome(attempts.target, buffer, first, total, meta), grant)),
        Err(failure) => failed(failure),
    }
}

/// What a result tells besides its bytes.
struct Meta {
    etag: String,
    object_size: u64,
    last_modified: Option<i64>,
    head: Box<[u8]>,
}

impl Meta {
    fn of(opened: &Opened) -> Meta {
        let head: &Head = &opened.exchange.head;
        let raw = head.raw.clone();
        Meta { etag: head.etag.clone(), object_size: opened.object_size, last_modified: head.last_modified, head: raw }
    }
}

fn outcome(target: &Target, buffer: Option<PooledBuffer>, start: u64, nbytes: usize, meta: Meta) -> Outcome {
    let Meta { etag, object_size, last_modified, head } = meta;
    match buffer {
        Some(buffer) => {
            Outcome::Body(Body { target: target.clone(), buffer, start, object_size, etag, last_modified, head })
        }
        None => Outcome::Reply(Box::new(Reply {
            status: 206,
            etag,
            object_size,
            nbytes: nbytes as u64,
            last_modified,
            head,
            ..Reply::default()
        })),
    }
}

fn empty(attempts: &Attempts<'_>, fetch: &Fetch, start: u64, object_size: u64) -> Outcome {
    let meta =
        Meta { etag: fetch.pin.clone().unwrap_or_default(), object_size, last_modified: None, head: Box::default() };
    let buffer = fetch.into.is_none().then(|| attempts.lane.engine.pool.take_none());
    outcome(attempts.target, buffer, start, 0, meta)
}

/// Sends the first request of a fetch, and finds out what it will deliver.
async fn open(attempts: &mut Attempts<'_>, fetch: &Fetch) -> Result<Opened, Fault> {
    let part_size = attempts.client.settings.part_size as u64;
    let limit = fetch.limit.unwrap_or(u64::MAX);
    let asked = match (fetch.what, fetch.size) {
        (What::Whole, Some(size)) if size <= limit => None,
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
        query: "",
        headers: &[],
        range,
        if_match: quoted.as_deref(),
        body: Span::EMPTY,
        first_byte: if small { FirstByte::Small } else { FirstByte::Usual },
    };
    let exchange = attempts.exchange(&request).await?;
    if let Some(pin) = &fetch.pin
        && let Err(fault) = compare(pin, &exchange.head.etag)
    {
        attempts.abandon(exchange, Some(&fault));
        return Err(fault);
    }
    let start = asked.map(|(start, _)| start);
    inspect(attempts, exchange, fetch.what, start, limit).await
}

async fn inspect(
    attempts: &mut Attempts<'_>,
    mut exchange: Exchange,
    what: What,
    start: Option<u64>,
    limit: u64,
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
                    Length::Fixed(n) if n == len => {
                        return Ok(Opened { exchange, first, len, object_size, unframed: None });
                    }
                    Length::Fixed(_) => Fault::transport("Content-Length and Content-Range do not agree"),
                    length => match unframed(attempts, &mut exchange, length, len).await {
                        Ok(body) if body.len() as u64 == len => {
                            return Ok(Opened { exchange, first, len, object_size, unframed: Some(body) });
                        }
                        Ok(body) => Fault::transport(format_args!("{} of {len} bytes came", body.len())),
                        Err(fault) => fault,
                    },
                }
            }
        }
        (206, None) => Fault::transport("206 without a valid Content-Range"),
        (200, _) if start.is_some_and(|s| s > 0) || matches!(what, What::Suffix(_)) => {
            Fault::invalid("the server ignores the Range header; it cannot be read in parts")
        }
        (200, _) => match head.length {
            Length::Fixed(n) => return Ok(Opened { exchange, first: 0, len: n, object_size: n, unframed: None }),
            length => match unframed(attempts, &mut exchange, length, limit).await {
                Ok(body) => {
                    let n = body.len() as u64;
                    return Ok(Opened { exchange, first: 0, len: n, object_size: n, unframed: Some(body) });
                }
                Err(fault) => fault,
            },
        },
        (status, _) => Fault { status, ..Fault::new(Kind::Service, Retry::Never, "an unexpected answer to a GET") },
    };
    attempts.abandon(exchange, Some(&fault));
    Err(fault)
}

/// A whole body whose length its head does not tell, of at most `limit` bytes and no more than the budget has.
async fn unframed(
    attempts: &Attempts<'_>,
    exchange: &mut Exchange,
    length: Length,
    limit: u64,
) -> Result<Vec<u8>, Fault> {
    let most = (attempts.client.budget.limit() as u64).min(limit) as usize;
    let body = exchange.connection.read_all(attempts.slot, length, most).await?;
    exchange.bytes_in = body.len() as u64;
    Ok(body)
}

/// Reads an opened answer into its place; what breaks on the way is fetched from there on.
async fn receive(
    attempts: &mut Attempts<'_>,
    opened: Opened,
    span: Span,
    pin: &mut Option<String>,
) -> Result<(), Box<Failure>> {
    let Opened { mut exchange, first, len, unframed, .. } = opened;
    if let Some(body) = unframed {
        span.copy_from(0, &body[..span.len()]);
        attempts.end(exchange, None);
        return Ok(());
    }
    attempts.slot.enter(crate::slot::Phase::Receiving, Some(attempts.client.settings.stall_timeout));
    let mut got = 0;
    let result = exchange.connection.read_into(attempts.slot, span, &mut got).await;
    exchange.bytes_in = got as u64;
    match result {
        Ok(()) if len as usize == span.len() => attempts.end(exchange, None),
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
            query: "",
            headers: &[],
            range,
            if_match: quoted.as_deref(),
            body: Span::EMPTY,
            first_byte: FirstByte::Usual,
        };
        let result = match attempts.exchange(&request).await {
            Ok(exchange) => inspect(attempts, exchange, What::Whole, Some(from), u64::MAX).await,
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
                let read = match (checked, opened.unframed) {
                    (Err(fault), _) => Err(fault),
                    (Ok(()), Some(body)) => {
                        rest.copy_from(0, &body[..rest.len()]);
                        got += rest.len();
                        Ok(())
                    }
                    (Ok(()), None) => {
                        let before = got;
                        let read = exchange.connection.read_into(attempts.slot, rest, &mut got).await;
                        exchange.bytes_in = (got - before) as u64;
                        read
                    }
                };
                match read {
                    Ok(()) if opened.len as usize == rest.len() => {
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

/// One range of an assembly.
pub async fn run_piece(attempts: &mut Attempts<'_>, assembly: &Arc<Assembly>, piece: Piece) {
    let mut pin = assembly.lock().etag.clone();
    let span = assembly.destination.slice(piece.at, piece.len);
    let seen = |head: &Head, object_size: u64| {
        let mut state = assembly.lock();
        if let Some(etag) = &state.etag {
            compare(etag, &head.etag)?;
        } else {
            state.etag = Some(head.etag.clone()).filter(|e| !e.is_empty());
        }
        if state.head.is_empty() {
            state.head = head.raw.clone();
            state.last_modified = head.last_modified;
            let planned = std::mem::replace(&mut state.object_size, object_size);
            let to_the_end = planned > 0 && assembly.start + assembly.destination.len() as u64 == planned;
            if planned > object_size || to_the_end && planned != object_size {
                let text = format!("the object was {planned} bytes long when it was listed, and is {object_size} now");
                return Err(Fault::new(Kind::Changed, Retry::Never, text));
            }
        }
        Ok(())
    };
    let result = fill(attempts, assembly.start + piece.at as u64, span, &mut pin, seen).await;
    end_piece(attempts.lane, assembly, result.map(|()| attempts.sent));
}

/// Counts a piece as done; the last one files the result.
pub fn end_piece(lane: &Lane, assembly: &Arc<Assembly>, result: Result<u32, Box<Failure>>) {
    let mut state = assembly.lock();
    state.in_flight -= 1;
    match result {
        Ok(sent) => state.attempts += sent,
        Err(failure) => {
            state.next = assembly.destination.len();
            state.failure.get_or_insert(*failure);
        }
    }
    if state.in_flight > 0 || state.next < assembly.destination.len() {
        return;
    }
    let AssemblyState { etag, object_size, last_modified, head, failure, buffer, grant, .. } =
        std::mem::take(&mut *state);
    // Late lookers at this assembly find it exhausted.
    state.next = assembly.destination.len();
    drop(state);
    match failure {
        Some(failure) => lane.finish(assembly.queue.clone(), assembly.index, Outcome::Failure(Box::new(failure)), None),
        None => {
            let meta = Meta { etag: etag.unwrap_or_default(), object_size, last_modified, head };
            let outcome = outcome(&assembly.target, buffer, assembly.start, assembly.destination.len(), meta);
            lane.finish(assembly.queue.clone(), assembly.index, outcome, grant);
        }
    }
}

/// Makes the grant as large as what will be held, waiting for room where the budget has none.
async fn settle(
    attempts: &Attempts<'_>,
    queue: &Arc<Queue>,
    index: u64,
    grant: &mut Option<Grant>,
    need: usize,
) -> Result<(), Fault> {
    let Some(held) = grant else { return Ok(()) };
    if held.bytes() >= need {
        held.shrink(need);
        return Ok(());
    }
    let (more, budget) = (need - held.bytes(), held.budget().clone());
    let extra = match budget.try_acquire(more) {
        Some(extra) => extra,
        None => {
            let _waiting = Waiting::of(&attempts.client.waiting_for_budget);
            // What was reserved on a guess is of more use to those whose body fits.
            held.shrink(0);
            let more = need;
            attempts.slot.enter(crate::slot::Phase::Paused, None);
            poll_fn(|cx| {
                attempts.slot.check(cx)?;
                for last in [false, true] {
                    if queue.is_due(index) {
                        return Poll::Ready(Ok(budget.acquire_forced(more)));
                    }
                    if let Some(extra) = budget.try_acquire(more) {
                        return Poll::Ready(Ok(extra));
                    }
                    if !last {
                        budget.wake_on_release(cx.waker());
                    }
                }
                Poll::Pending
            })
            .await?
        }
    };
    held.join(extra);
    Ok(())
}

/// Counts while it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn of(count: &'a AtomicUsize) -> Waiting<'a> {
        count.fetch_add(1, Relaxed);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// A broken pin is a changed object.
fn pinned(fault: Fault, pin: Option<&str>) -> Fault {
    match pin {
        Some(pin) if fault.kind == Kind::PreconditionFailed => {
            Fault { kind: Kind::Changed, message: format!("the object is no longer the one with ETag {pin}"), ..fault }
        }
        _ => fault,
    }
}

fn compare(pin: &str, etag: &str) -> Result<(), Fault> {
    if etag.is_empty() || bare(pin) == bare(etag) {
        return Ok(());
    }
    let text = format!("the object is no longer the one with ETag {pin}: it has {etag}");
    Err(Fault::new(Kind::Changed, Retry::Never, text))
}

fn bare(etag: &str) -> &str {
    etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"')
}

fn quote(etag: &str) -> String {
    format!("\"{}\"", bare(etag))
}
